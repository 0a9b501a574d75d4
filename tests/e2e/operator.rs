//! The operator's resources over their whole lives.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{kubectl, until};
use crate::load::Load;
use crate::release::{NAME, Release, shared};
use crate::run::{Run, condition, run};

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
fn what_can_not_be_meant_is_refused_by_the_api_server_with_its_reason() {
    let release = &shared();
    let fault = |every: &str| json!([{"target": "redis", "action": "kill", "every": every}]);
    for (spec, message) in [
        (
            json!({"duplicates": 0.6, "conflicts": 0.5}),
            "together must be at most 0.99",
        ),
        (
            json!({"publishers": 3, "events": 2}),
            "at least one for each publisher",
        ),
        (
            json!({"deadline": "9s"}),
            "deadline must be from 10s to 24h",
        ),
        (
            json!({"faults": fault("61m")}),
            "every must be from 1s to 1h",
        ),
        (json!({"seed": -1}), "spec.seed"),
        (
            json!({"faults": [{"target": "redis", "action": "explode"}]}),
            "Unsupported value",
        ),
    ] {
        let refused = release.namespace.apply(&run("bad", &spec).to_string(), &[]);
        let error = refused.expect_err(message);
        assert!(error.contains(message), "{message}: {error}");
    }
    let long = run(&"x".repeat(41), &json!({})).to_string();
    let error = release.namespace.apply(&long, &[]).unwrap_err();
    assert!(error.contains("at most 40 characters"), "{error}");

    let never = json!({"pipeline": "nobody", "deadline": "10m"});
    let waiting = Run::create(release, "waits", &never);
    until("it says what it waits for", || {
        condition(&waiting.status(), "Complete") == ("False", "NoPipeline")
    });
    let change = ["patch", "chaosrun", "waits", "--type=merge", "--patch"];
    let change = [&change[..], &[r#"{"spec":{"seed":9}}"#]].concat();
    let error = release.namespace.try_kubectl(&change).unwrap_err();
    assert!(error.contains("a ChaosRun can't be changed"), "{error}");
}

#[test]
fn a_run_that_kills_everything_passes_and_leaves_nothing_behind() {
    let release = &shared();
    let fault = |target: &str, every: &str, count: i32| json!({"target": target, "action": "kill", "every": every, "count": count});
    let spec = json!({
        "publishers": 2, "events": 100_000, "duplicates": 0.3, "conflicts": 0.01,
        "malformed": 0.01, "rate": 1500, "seed": 7, "deadline": "8m",
        "faults": [
            fault("worker", "9s", 4), fault("aggregator", "13s", 3),
            fault("redis", "17s", 2), fault("postgres", "21s", 2),
        ],
    });
    let run = Run::create(release, "everything", &spec);
    let status = run.passes();
    assert_eq!(status["faults"], "11/11");
    assert_eq!(status["sent"], 100_000);
    let injected = status["injected"].as_array().unwrap();
    assert!(injected.iter().all(|one| one["done"] == true), "{status}");
    let books = release.settled();
    assert!(
        !books["topics"].to_string().contains("run-everything-"),
        "{books}"
    );
}

#[test]
#[ignore = "it takes minutes: make e2e-full"]
fn an_operator_that_is_killed_in_any_phase_goes_on_where_it_was() {
    let release = &shared();
    let fault = json!({"target": "worker", "action": "terminate", "every": "4s", "count": 5});
    let spec =
        json!({"events": 12_000, "rate": 400, "seed": 7, "faults": [fault], "deadline": "6m"});
    let run = Run::create(release, "orphaned", &spec);
    kill_operator(release);
    for phase in ["Starting", "Running"] {
        until(&format!("it is {phase} or further"), || {
            let status = run.status();
            let order = ["Pending", "Starting", "Running", "Cleaning", "Complete"];
            let at = |name: &str| order.iter().position(|one| *one == name);
            at(status["phase"].as_str().unwrap_or("Pending")) >= at(phase)
        });
        kill_operator(release);
    }
    until("faults are injected", || {
        run.status()["injected"]
            .as_array()
            .is_some_and(|all| all.len() >= 2)
    });
    kill_operator(release);
    until("it has a verdict", || !run.status()["verdict"].is_null());
    kill_operator(release);
    let status = run.passes();
    assert_eq!(status["faults"], "5/5");
    // Each once: none was forgotten, none was done again.
    assert_eq!(status["injected"].as_array().unwrap().len(), 5, "{status}");
    let jobs = release
        .namespace
        .get(&["jobs", "--selector=sekali.dev/chaosrun=orphaned"]);
    assert_eq!(jobs["items"].as_array().unwrap().len(), 1);
    assert!(run.get()["metadata"]["finalizers"].is_null());
}

fn kill_operator(release: &Release) {
    for pod in release.pod_names("operator") {
        let kill = ["delete", "pod", &pod, "--force", "--grace-period=0"];
        let _ = release.namespace.try_kubectl(&kill);
    }
}

#[test]
#[ignore = "it takes minutes: make e2e-full"]
fn a_run_that_is_deleted_ends_its_jobs_and_removes_its_topics() {
    let release = &shared();
    let spec = json!({"events": 1_000_000, "rate": 500, "deadline": "10m"});
    let run = Run::create(release, "short-lived", &spec);
    run.reaches("Running");
    until("its events arrive", || {
        let stats = release.stats().unwrap_or_default();
        stats["topics"].to_string().contains("run-short-lived-")
    });
    let delete = ["delete", "chaosrun", "short-lived", "--timeout=150s"];
    release.namespace.kubectl(&delete);
    let jobs = release
        .namespace
        .get(&["jobs", "--selector=sekali.dev/chaosrun=short-lived"]);
    assert_eq!(jobs["items"], json!([]));
    let stats = release.settled();
    assert!(
        !stats["topics"].to_string().contains("short-lived"),
        "{stats}"
    );
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

#[test]
fn a_sekali_that_loses_events_fails_and_the_run_says_how_many() {
    let release = &shared();
    // Without resends, which would bring back what is taken out.
    let spec = json!({"events": 6_000, "duplicates": 0, "rate": 300, "deadline": "5m"});
    let run = Run::create(release, "robbed", &spec);
    run.reaches("Running");
    // Of this run: rows of topics that were deleted go in the background.
    let rob = "DELETE FROM events WHERE ctid IN (SELECT ctid FROM events WHERE topic_id IN \
               (SELECT id FROM topics WHERE name LIKE $$run-robbed-%$$) LIMIT 7)";
    until("seven events are taken out of the table", || {
        let script = format!("psql --host localhost --username sekali --command '{rob}'");
        let psql = ["exec", "sekali-postgresql-0", "--", "sh", "-c", &script];
        release
            .namespace
            .try_kubectl(&psql)
            .is_ok_and(|said| said.contains("DELETE 7"))
    });
    let status = run.over();
    assert_eq!(
        condition(&status, "Passed"),
        ("False", "PromiseBroken"),
        "{status}"
    );
    assert_eq!(
        (&status["verdict"], &status["lost"]),
        (&json!("Failed"), &json!(7))
    );
    assert_eq!(status["doubled"], 0);
}

/// The image `sekali:broken` has a worker that acknowledges before its commit.
#[test]
#[ignore = "it takes minutes: make e2e-full"]
fn a_worker_that_acknowledges_too_early_is_found_out_and_the_run_says_how_many() {
    let release = Release::install("broken", &["image.tag=broken"]);
    // A kubelet leaves a process two seconds, in which a worker records what it has. So the
    // database goes at the same time.
    let kill =
        |target: &str| json!({"target": target, "action": "kill", "every": "6s", "count": 4});
    // Without resends, which could bring back what was lost; so many that a worker is never idle.
    let spec = json!({
        "events": 300_000, "duplicates": 0, "rate": 8_000, "batch": 500, "seed": 7,
        "faults": [kill("postgres"), kill("worker")], "deadline": "8m",
    });
    let status = Run::create(&release, "broken", &spec).over();
    assert_eq!(
        condition(&status, "Passed"),
        ("False", "PromiseBroken"),
        "{status}"
    );
    let count = |name: &str| status[name].as_i64().unwrap();
    assert!(count("lost") > 0, "{status}");
    assert_eq!(
        count("lost"),
        count("uniqueExpected") - count("uniqueStored"),
        "{status}"
    );
    assert_eq!(count("doubled"), 0, "{status}");
}
