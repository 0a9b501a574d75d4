//! `ChaosRun`s over their whole lives.

use serde_json::json;

use crate::cluster::until;
use crate::release::{Release, shared};
use crate::run::{Run, condition, run};

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
