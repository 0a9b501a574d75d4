//! The first minute.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::Program;

use crate::cluster::{kubectl, until};
use crate::load::Load;
use crate::release::{Forward, NAME, Release, TIMEOUT, shared};

#[test]
fn an_install_with_image_values_alone_is_ready_within_a_minute_and_asks_for_little() {
    let began = Instant::now();
    let release = Release::install("install", &[]);
    let took = began.elapsed();
    println!("install to ready: {:.1} s", took.as_secs_f64());
    assert!(took < Duration::from_mins(1), "{took:?}");

    let (millicores, mebibytes) = requests(&release);
    println!("requests: {millicores} m CPU, {mebibytes} MiB");
    assert!(millicores <= 500, "{millicores}");
    assert!(mebibytes <= 512, "{mebibytes}");

    until("at rest it uses less than it asks for", || {
        let used = usage(&release);
        used.len() == 5
            && used
                .iter()
                .all(|(nanocores, bytes)| *nanocores > 0 && *bytes > 0)
            && total(&used).0 < millicores
            && total(&used).1 < mebibytes
    });
    let (used_millicores, used_mebibytes) = total(&usage(&release));
    println!("at rest: {used_millicores} m CPU, {used_mebibytes} MiB");

    let tested = release.namespace.helm(&["test", NAME, TIMEOUT]).unwrap();
    assert!(tested.contains("Succeeded"), "{tested}");
    // The pods of the tests stay, and the first step of the notes is not kept up by them.
    let notes = release.namespace.helm(&["get", "notes", NAME]).unwrap();
    let step = notes.lines().find(|line| line.contains("wait --for"));
    let words: Vec<_> = step.unwrap().split_whitespace().skip(1).collect();
    kubectl(&words);
    // The test leaves nothing behind.
    let stats = release.settled();
    assert_eq!(stats["topics"], Value::Array(Vec::new()), "{stats}");
}

/// What all pods ask for together.
fn requests(release: &Release) -> (u64, u64) {
    let pods = release.namespace.get(&["pods"]);
    let pods = pods["items"].as_array().unwrap().iter();
    let containers = pods.flat_map(|pod| pod["spec"]["containers"].as_array().unwrap());
    containers.fold((0, 0), |(millicores, mebibytes), container| {
        let requests = &container["resources"]["requests"];
        let number = |name: &str, unit: &str| -> u64 {
            let text = requests[name].as_str().unwrap();
            let number = text.strip_suffix(unit).unwrap_or_else(|| panic!("{text}"));
            number.parse().unwrap()
        };
        (
            millicores + number("cpu", "m"),
            mebibytes + number("memory", "Mi"),
        )
    })
}

/// The same of what they use: millicores and mebibytes.
fn total(used: &[(u64, u64)]) -> (u64, u64) {
    let nanocores: u64 = used.iter().map(|pod| pod.0).sum();
    let bytes: u64 = used.iter().map(|pod| pod.1).sum();
    (nanocores.div_ceil(1_000_000), bytes >> 20)
}

/// What each pod uses, in billionths of a core and bytes, as its kubelet has measured it.
fn usage(release: &Release) -> Vec<(u64, u64)> {
    let nodes = kubectl(&["get", "nodes", "--output=name"]);
    let mut used = Vec::new();
    for node in nodes.lines() {
        let path = format!(
            "/api/v1/nodes/{}/proxy/stats/summary",
            &node["node/".len()..]
        );
        let summary: Value = serde_json::from_str(&kubectl(&["get", "--raw", &path])).unwrap();
        for pod in summary["pods"].as_array().into_iter().flatten() {
            if pod["podRef"]["namespace"] == release.namespace.name() {
                let nanocores = pod["cpu"]["usageNanoCores"].as_u64().unwrap_or_default();
                let bytes = pod["memory"]["workingSetBytes"]
                    .as_u64()
                    .unwrap_or_default();
                used.push((nanocores, bytes));
            }
        }
    }
    used
}

#[test]
fn the_image_is_small() {
    drop(shared());
    let nodes: Value = serde_json::from_str(&kubectl(&["get", "nodes", "--output=json"])).unwrap();
    let images = nodes["items"][0]["status"]["images"].as_array().unwrap();
    let is_ours = |image: &&Value| {
        // One whose name another image has taken has none.
        let names = image["names"].as_array();
        names.into_iter().flatten().any(|name| {
            name.as_str()
                .unwrap()
                .ends_with(concat!("/sekali:", env!("CARGO_PKG_VERSION")))
        })
    };
    let bytes = images.iter().find(is_ours).unwrap()["sizeBytes"]
        .as_u64()
        .unwrap();
    println!("image: {} MiB", bytes >> 20);
    assert!(bytes < 60 << 20, "{bytes}");
}

#[tokio::test]
async fn publishers_inside_and_outside_get_a_good_verdict_and_all_who_count_agree() {
    let release = &shared();
    let inside = Load::start_with(release, "inside", &["events=20000", "rate=4000"]);
    let forward = Forward::to(release, "service/sekali", 8080).await;
    let mut outside = publisher(&forward);
    let ended = outside.ended().await;
    assert!(ended.success(), "{ended}: {}", outside.log());
    inside.verdict();

    let stats = release.settled();
    assert_eq!(
        forward.get("/stats").await.ok()["received"],
        stats["received"]
    );
    // The publishers have deleted their topics, books and all, so what counts is what comes
    // from now on: events on one side, Prometheus on the other.
    let before = accepted(&forward.get("/metrics").await.body);
    let events: Vec<_> = (0..100).map(event).collect();
    assert_eq!(
        forward.publish(&Value::Array(events)).await.ok()["accepted"],
        100
    );
    until("all of them are received", || {
        let now = release.stats().unwrap_or_default();
        now["received"].as_i64() == stats["received"].as_i64().map(|count| count + 100)
    });
    assert_eq!(accepted(&forward.get("/metrics").await.body), before + 100);
    release.settled();
}

/// The publisher's own program on this machine, with all that it says on one channel.
fn publisher(forward: &Forward) -> Program {
    let programs = std::env::var("E2E_PROGRAMS").expect("`make e2e` sets it");
    let mut command = Command::new(format!("{programs}/sekali-publisher"));
    command
        .args(["--target-url", &forward.url("")])
        .args([
            "--run",
            "outside",
            "--events",
            "20000",
            "--batch",
            "50",
            "--malformed",
            "0.02",
        ])
        .args(["--new", "--verify", "--clean"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Program::spawn("publisher", &mut command)
}

fn accepted(metrics: &str) -> u64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("sekali_gateway_accepted_events_total "));
    line.unwrap().parse().unwrap()
}

fn event(number: u32) -> Value {
    serde_json::json!({
        "topic": "metrics", "event_id": number.to_string(), "timestamp": "2026-01-01T00:00:00Z",
        "source": "e2e", "payload": {},
    })
}
