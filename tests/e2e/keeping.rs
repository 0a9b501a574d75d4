//! What outlives a server, an upgrade and the release itself.

use serde_json::{Value, json};

use crate::cluster::until;
use crate::load::Load;
use crate::release::{Forward, NAME, Release, shared};

#[tokio::test]
async fn servers_that_are_killed_come_back_with_their_volumes() {
    let release = &shared();
    release.pause_workers(true);
    let before = release.settled()["received"].as_i64().unwrap();
    let forward = Forward::to(release, "service/sekali", 8080).await;
    forward
        .publish(&json!([event("kept", "in the queue", "")]))
        .await
        .ok();
    for server in ["redis", "postgresql"] {
        let pod = format!("sekali-{server}-0");
        release
            .namespace
            .kubectl(&["delete", "pod", &pod, "--force", "--grace-period=0"]);
        release.has_replicas(server, 1);
    }
    until("the queue still has it", || {
        let stats = release.stats().unwrap_or_default();
        stats["received"] == before + 1 && stats["queue_depth"] == 1
    });
    release.pause_workers(false);
    release.settled();
    forward.get("/events/kept/in%20the%20queue").await.ok();
}

#[tokio::test]
async fn a_full_redis_refuses_and_recovers_by_itself() {
    let release = &shared();
    release.pause_workers(true);
    let forward = Forward::to(release, "service/sekali", 8080).await;
    let used: u64 = info(&release.redis("INFO memory"), "used_memory")
        .parse()
        .unwrap();
    let bound = (used + (2 << 20)).to_string();
    let whole = info(&release.redis("INFO memory"), "maxmemory").to_owned();
    release.redis(&format!("CONFIG SET maxmemory {bound}"));

    let filling = "x".repeat(1_000);
    let mut refused = None;
    for request in 0..100 {
        let events: Vec<_> = (0..100)
            .map(|number| event("full", &format!("{request}-{number}"), &filling))
            .collect();
        let answer = forward.publish(&Value::Array(events)).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a queue of 2 MiB takes no 10 MB");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.json()["type"], "urn:sekali:queue-full");
    assert!(!refused.header("retry-after").is_empty());
    // It says no, and stays ready: another gateway's queue is no emptier.
    assert_eq!(forward.get("/readyz").await.status, 200);

    release.pause_workers(false);
    release.settled();
    let again = forward.publish(&json!([event("full", "after", "")])).await;
    assert_eq!(again.status, 200, "{}", again.body);
    release.redis(&format!("CONFIG SET maxmemory {whole}"));
    release.settled();
}

fn info<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    line.unwrap()
}

#[tokio::test]
async fn what_an_uninstall_leaves_a_second_install_takes_up() {
    let release = Release::install("keeping", &[]);
    let namespace = &release.namespace;
    let forward = Forward::to(&release, "service/sekali", 8080).await;
    forward.publish(&json!([event("kept", "1", "")])).await.ok();
    let before = release.settled();
    let secret = namespace.get(&["secret", NAME])["data"].clone();

    // An upgrade keeps the password that the volumes were made with.
    release
        .upgrade(&["worker.podAnnotations.upgraded=yes"])
        .unwrap();
    assert_eq!(namespace.get(&["secret", NAME])["data"], secret);
    assert_eq!(release.settled()["received"], before["received"]);

    drop(forward);
    namespace.helm(&["uninstall", NAME, "--wait"]).unwrap();
    until("what is left is what the README says", || {
        let mut left: Vec<_> = what_is_left(&release);
        left.sort();
        left == [
            "persistentvolumeclaim/data-sekali-postgresql-0",
            "persistentvolumeclaim/data-sekali-redis-0",
            "secret/sekali",
        ]
    });

    release.upgrade(&[]).unwrap();
    assert_eq!(namespace.get(&["secret", NAME])["data"], secret);
    let forward = Forward::to(&release, "service/sekali", 8080).await;
    forward.get("/events/kept/1").await.ok();
    assert_eq!(release.settled()["received"], before["received"]);
    Load::start_with(&release, "again", &["events=2000"]).verdict();
}

#[tokio::test]
async fn a_larger_queue_takes_up_the_volume_that_it_had() {
    let release = Release::install("larger", &[]);
    let forward = Forward::to(&release, "service/sekali", 8080).await;
    forward.publish(&json!([event("kept", "1", "")])).await.ok();
    release.settled();
    drop(forward);

    // As docs/operations.md has it, but for the volume itself, which can't grow on every cluster.
    let orphan = ["delete", "statefulset", "sekali-redis", "--cascade=orphan"];
    release.namespace.kubectl(&orphan);
    release
        .upgrade(&[
            "redis.maxmemory=512Mi",
            "redis.resources.limits.memory=1Gi",
            "redis.persistence.size=4Gi",
        ])
        .unwrap();
    let bound = (512_u64 << 20).to_string();
    release.is_whole();
    let said = release.redis("CONFIG GET maxmemory");
    assert!(said.contains(&bound), "{said}");
    assert_eq!(release.redis("GET 'sekali:{0}:in'").trim(), "1");
}

#[test]
fn an_upgrade_that_moves_the_queue_is_refused_until_it_is_said_to_be_empty() {
    let release = &shared();
    let only_tried = "--dry-run=server";
    for elsewhere in [
        &["brokerPrefix=other"][..],
        &["redis.enabled=false", "externalRedis.host=r"],
    ] {
        let settings = [&[only_tried], elsewhere].concat();
        let refused = release.upgrade(&settings).unwrap_err();
        let sentence = "this would move the queue from sekali-redis:6379/sekali to ";
        assert!(refused.contains(sentence), "{refused}");
        let emptied = "emptiedQueue=sekali-redis:6379/sekali";
        let settings = [&[only_tried, emptied], elsewhere].concat();
        release.upgrade(&settings).unwrap();
    }
}

/// Whatever the chart makes, pods included, that is there.
fn what_is_left(release: &Release) -> Vec<String> {
    let kinds = "secrets,persistentvolumeclaims,pods,services,deployments,statefulsets,configmaps,\
                 networkpolicies,serviceaccounts,jobs,poddisruptionbudgets";
    let ours = "--selector=app.kubernetes.io/instance=sekali";
    let names = release
        .namespace
        .kubectl(&["get", kinds, ours, "--output=name"]);
    names.lines().map(str::to_owned).collect()
}

fn event(topic: &str, id: &str, filling: &str) -> Value {
    json!({
        "topic": topic, "event_id": id, "timestamp": "2026-01-01T00:00:00Z", "source": "e2e",
        "payload": {"filling": filling},
    })
}
