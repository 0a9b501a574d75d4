//! Pipelines: what they say, and whom they scale; and the operator that does it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{kubectl, until};
use crate::load::Load;
use crate::release::{NAME, Release, shared};
use crate::run::condition;

fn pipeline(release: &Release) -> Value {
    release.namespace.get(&["pipeline", "sekali"])["status"].clone()
}

fn has_condition(release: &Release, type_: &str, expected: (&str, &str)) {
    until(&format!("{type_} is {expected:?}"), || {
        condition(&pipeline(release), type_) == expected
    });
}

fn patch(release: &Release, spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    release.namespace.kubectl(&[
        "patch",
        "pipeline",
        "sekali",
        "--type=merge",
        "--patch",
        &patch,
    ]);
}

#[test]
fn a_pipeline_says_what_the_books_say_and_is_the_dashboard_of_who_has_none() {
    let release = &shared();
    Load::start_with(release, "said", &["events=2000"]).verdict();
    let stats = release.settled();
    until("the status follows", || {
        let pipeline = pipeline(release);
        pipeline["queue"] == 0
            && pipeline["received"] == stats["received"]
            && pipeline["unique"] == stats["unique_processed"]
            && pipeline["duplicates"] == stats["duplicate_dropped"]
    });
    has_condition(release, "Ready", ("True", "Serving"));
    has_condition(release, "Balanced", ("True", "Exact"));
    let table = release.namespace.kubectl(&["get", "pipelines"]);
    for column in "NAME READY QUEUE LAG WORKERS RECEIVED UNIQUE DUPLICATES AGE".split(' ') {
        assert!(table.contains(column), "{table}");
    }
}

#[test]
fn a_paused_pipeline_has_no_workers_and_a_grown_queue_gets_them_within_ten_seconds() {
    let release = &shared();
    patch(
        release,
        &json!({"paused": true, "workers": {"quietPeriod": "10s"}}),
    );
    release.has_replicas("worker", 0);
    has_condition(release, "Ready", ("True", "Paused"));
    let load = Load::start_with(release, "grown", &["events=60000", "batch=500"]);
    until("50,000 events are queued", || {
        pipeline(release)["queue"].as_i64() > Some(50_000)
    });
    let resumed = Instant::now();
    patch(release, &json!({"paused": false}));
    until("there are to be more workers", || {
        pipeline(release)["desiredWorkers"].as_i64() > Some(1)
    });
    let took = resumed.elapsed();
    println!(
        "from 50,000 queued events to more workers: {:.1} s",
        took.as_secs_f64()
    );
    assert!(took < Duration::from_secs(10), "{took:?}");
    load.verdict();
    release.has_replicas("worker", 1);
    has_condition(release, "Balanced", ("True", "Exact"));
    let events = release
        .namespace
        .kubectl(&["get", "events", "--output=name"]);
    assert!(events.contains("sekali."), "{events}");
    patch(release, &json!({"workers": {"quietPeriod": "120s"}}));
}

#[test]
#[ignore = "it takes minutes: make e2e-full"]
fn a_pipeline_stands_back_for_an_autoscaler() {
    let release = &shared();
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "workers"},
        "spec": {
            "minReplicas": 1, "maxReplicas": 2,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "sekali-worker"},
        },
    });
    release
        .namespace
        .apply(&autoscaler.to_string(), &[])
        .unwrap();
    has_condition(release, "Scaling", ("False", "OtherOwner"));
    release.namespace.kubectl(&["delete", "hpa", "workers"]);
    has_condition(release, "Scaling", ("True", "ByQueue"));
}

#[test]
#[ignore = "it takes minutes: make e2e-full"]
fn of_two_pipelines_that_claim_the_same_workers_the_older_wins() {
    let release = &shared();
    let mut second = release.namespace.get(&["pipeline", "sekali"]);
    second["metadata"] = json!({"name": "second"});
    second["status"] = Value::Null;
    release.namespace.apply(&second.to_string(), &[]).unwrap();
    until("the second says so", || {
        let status = release.namespace.get(&["pipeline", "second"])["status"].clone();
        condition(&status, "Scaling") == ("False", "Claimed")
    });
    has_condition(release, "Scaling", ("True", "ByQueue"));
    release.namespace.kubectl(&["delete", "pipeline", "second"]);
}

#[test]
#[ignore = "it takes minutes: make e2e-full"]
fn of_two_operators_one_leads_and_the_other_takes_over() {
    let release = &shared();
    release.upgrade(&["operator.replicas=2"]).unwrap();
    release.has_replicas("operator", 2);
    until("one leads", || {
        release.pod_names("operator").contains(&release.leader())
    });
    let leader = release.leader();
    let killed = Instant::now();
    let kill = ["delete", "pod", &leader, "--force", "--grace-period=0"];
    release.namespace.kubectl(&kill);
    until("another leads", || {
        !["", &leader].contains(&release.leader().as_str())
    });
    let took = killed.elapsed();
    println!(
        "from a dead leader to the next: {:.1} s",
        took.as_secs_f64()
    );
    assert!(took < Duration::from_secs(30), "{took:?}");
    patch(release, &json!({"workers": {"min": 2}}));
    release.has_replicas("worker", 2);
    patch(release, &json!({"workers": {"min": 1}}));
    release.upgrade(&[]).unwrap();
    release.has_replicas("operator", 1);
}

#[test]
#[ignore = "it takes minutes: make e2e-full"]
fn definitions_are_upgraded_in_place_and_their_resources_stay() {
    let release = &shared();
    let before = release.namespace.get(&["pipeline", "sekali"])["metadata"]["uid"].clone();
    // As an earlier release of the chart, under this name, would have left them.
    let mut older: Value = serde_json::from_str(&kubectl(&[
        "get",
        "crd/pipelines.sekali.dev",
        "--output=json",
    ]))
    .unwrap();
    older["metadata"] = json!({
        "name": "pipelines.sekali.dev", "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {
            "meta.helm.sh/release-name": NAME,
            "meta.helm.sh/release-namespace": release.namespace.name(),
        },
    });
    older["status"].take();
    older["spec"]["versions"][0]["additionalPrinterColumns"].take();
    let as_helm = ["--server-side", "--force-conflicts", "--field-manager=helm"];
    release
        .namespace
        .apply(&older.to_string(), &as_helm)
        .unwrap();
    assert!(
        !release
            .namespace
            .kubectl(&["get", "pipelines"])
            .contains("RECEIVED")
    );
    release.upgrade(&[]).unwrap();
    until("the columns are back", || {
        release
            .namespace
            .kubectl(&["get", "pipelines"])
            .contains("RECEIVED")
    });
    let after = release.namespace.get(&["pipeline", "sekali"])["metadata"]["uid"].clone();
    assert_eq!(before, after);
}
