use serde_json::{Value, json};

use super::*;
use crate::fixtures::{Cluster, Write};

const RUN: &str = "sekali.dev/v1alpha1/chaosruns/smoke";
const JOBS: &str = "batch/v1/jobs";
const PODS: &str = "/api/v1/pods";

fn run(status: &Value) -> Value {
    json!({
        "apiVersion": "sekali.dev/v1alpha1", "kind": "ChaosRun",
        "metadata": {
            "name": "smoke", "namespace": "test", "uid": "1a2b3c4d-5", "generation": 1,
            "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "publishers": 2, "deadline": "24h",
            "faults": [{"target": "worker", "action": "kill", "every": "1s", "count": 5}],
        },
        "status": status,
    })
}

/// A run that is held, in a phase that began a moment ago.
fn held(phase: &str, injected: &[Value]) -> Value {
    let mut run = run(&json!({
        "phase": phase, "seed": 7, "createdAt": now().to_string(),
        "startedAt": now().to_string(), "endedAt": now().to_string(), "injected": injected,
    }));
    run["metadata"]["finalizers"] = json!([FINALIZER]);
    run
}

fn injection(target: &str, action: &str) -> Value {
    json!({
        "fault": 0, "target": target, "action": action, "pod": "w-0", "uid": "u-0",
        "at": "2026-01-01T00:00:00Z", "done": false,
    })
}

fn cluster(run: &Value) -> Cluster {
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "Serving", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let pipeline = json!({
        "apiVersion": "sekali.dev/v1alpha1", "kind": "Pipeline",
        "metadata": {"name": "sekali", "namespace": "test"},
        "spec": {
            "instance": "sekali", "gateway": {"service": "sekali", "port": 0},
            "workers": {"deployment": "sekali-worker"},
        },
        "status": {"conditions": [condition]},
    });
    Cluster::default()
        .with(RUN, run)
        .with("sekali.dev/v1alpha1/pipelines/sekali", &pipeline)
}

async fn look(run: &Value, cluster: Cluster) -> (Result<Action, Error>, Vec<Write>) {
    let run = serde_json::from_value(run.clone()).unwrap();
    cluster
        .run(async |context| reconcile(run, context).await)
        .await
}

/// Method and path of each, without queries and events.
fn told(writes: &[Write]) -> Vec<(String, String)> {
    let path = |write: &Write| write.path.split('?').next().unwrap_or_default().to_owned();
    let told = writes
        .iter()
        .map(|write| (write.method.to_string(), path(write)));
    told.filter(|(_, path)| !path.starts_with("events"))
        .collect()
}

fn is(method: &str, path: &str) -> (String, String) {
    (method.into(), path.into())
}

#[tokio::test]
async fn a_run_is_held_and_said_to_start_before_its_jobs_are_made() {
    let run = run(&Value::Null);
    let (result, writes) = look(&run, cluster(&run)).await;
    assert_eq!(result.unwrap(), Action::requeue(Duration::ZERO));
    let expected = [is("PATCH", RUN), is("PATCH", &format!("{RUN}/status"))];
    assert_eq!(told(&writes), expected);
    assert_eq!(writes[0].body["metadata"]["finalizers"], json!([FINALIZER]));
    assert_eq!(writes[0].body["metadata"]["uid"], "1a2b3c4d-5");
    assert_eq!(writes[1].body["status"]["phase"], "Starting");

    let run = held("Starting", &[]);
    let (result, writes) = look(&run, cluster(&run)).await;
    assert_eq!(result.unwrap(), Action::requeue(PERIOD));
    let made = [is("POST", JOBS), is("POST", JOBS)];
    assert_eq!(told(&writes)[..2], made);
}

#[tokio::test]
async fn no_job_is_made_after_the_deadline() {
    let mut run = held("Starting", &[]);
    run["status"]["createdAt"] = json!("2026-01-01T00:00:00Z");
    let (result, writes) = look(&run, cluster(&run)).await;
    assert_eq!(result.unwrap(), Action::requeue(Duration::ZERO));
    assert_eq!(status(&writes)["phase"], "Cleaning");
    assert!(!told(&writes).contains(&is("POST", JOBS)), "{writes:?}");
}

#[tokio::test]
async fn a_run_that_changed_meanwhile_starts_nothing() {
    let run = run(&Value::Null);
    let cluster = cluster(&run).refusing(&format!("{RUN}/status"), 409);
    let (result, writes) = look(&run, cluster).await;
    assert!(result.unwrap_err().is_conflict());
    assert!(!told(&writes).contains(&is("POST", JOBS)), "{writes:?}");
}

#[tokio::test]
async fn a_run_without_its_pipeline_makes_nothing_and_says_so() {
    let run = run(&Value::Null);
    let mut deadline = run.clone();
    deadline["metadata"]["creationTimestamp"] = json!(now().to_string());
    let (result, writes) = look(&deadline, Cluster::default().with(RUN, &deadline)).await;
    assert_eq!(result.unwrap(), Action::requeue(PENDING_PERIOD));
    assert_eq!(told(&writes), [is("PATCH", &format!("{RUN}/status"))]);
    let conditions = &writes[0].body["status"]["conditions"];
    assert_eq!(conditions[0]["reason"], "NoPipeline", "{conditions}");
}

#[tokio::test]
async fn what_was_decided_is_done_once_with_the_grace_that_fits() {
    for (target, action, grace) in [
        ("worker", "kill", json!(0)),
        ("aggregator", "kill", json!(0)),
        ("redis", "kill", json!(1)),
        ("postgres", "kill", json!(1)),
        ("redis", "terminate", Value::Null),
    ] {
        let run = held("Running", &[injection(target, action)]);
        // A successor of the pod's name must not be hit in its place.
        for answer in [200, 404, 409] {
            let mut cluster = cluster(&run).with(JOBS, &jobs(false));
            if answer != 200 {
                cluster = cluster.refusing(&format!("{PODS}/w-0"), answer);
            }
            let (result, writes) = look(&run, cluster).await;
            result.unwrap();
            let deleted: Vec<_> = writes.iter().filter(|one| one.method == "DELETE").collect();
            assert_eq!(deleted.len(), 1, "{writes:?}");
            assert_eq!(deleted[0].body["gracePeriodSeconds"], grace, "{target}");
            assert_eq!(deleted[0].body["preconditions"]["uid"], "u-0");
            let status = writes
                .iter()
                .find(|one| one.path.contains("/status"))
                .unwrap();
            assert_eq!(status.body["status"]["injected"][0]["done"], true);
            assert_eq!(status.body["status"]["faults"], "1/5");
            // What somebody else deleted is not told of as one's own.
            let is_told = |one: &Write| one.body["reason"] == "FaultInjected";
            assert_eq!(writes.iter().any(is_told), answer == 200, "{answer}");
        }
    }
}

#[tokio::test]
async fn a_fault_that_could_not_be_injected_is_not_said_to_be() {
    let run = held("Running", &[injection("worker", "kill")]);
    let cluster = cluster(&run)
        .with(JOBS, &jobs(false))
        .refusing(&format!("{PODS}/w-0"), 403);
    let (result, writes) = look(&run, cluster).await;
    assert_eq!(result.unwrap_err().class(), "forbidden");
    let expected = [
        is("DELETE", &format!("{PODS}/w-0")),
        is("PATCH", &format!("{RUN}/status")),
    ];
    assert_eq!(told(&writes), expected);
    let status = status(&writes);
    assert_eq!(status["injected"][0]["done"], false);
    assert_eq!(status["faults"], "0/5");
    assert_eq!(complete(&status), ("Refused", "delete a pod: refused"));
}

#[tokio::test]
async fn a_fault_that_can_not_be_injected_holds_up_no_deadline() {
    let mut run = held("Running", &[injection("worker", "kill")]);
    run["status"]["createdAt"] = json!("2026-01-01T00:00:00Z");
    let base = cluster(&run)
        .with(JOBS, &jobs(false))
        .refusing(&format!("{PODS}/w-0"), 403);
    let (result, writes) = look(&run, base).await;
    assert_eq!(result.unwrap_err().class(), "forbidden");
    let status = status(&writes);
    assert_eq!(
        (&status["phase"], &status["verdict"]),
        (&json!("Cleaning"), &json!("Failed"))
    );
    // It is over, and nothing is injected any more.
    let run = held("Cleaning", &[injection("worker", "kill")]);
    let (result, writes) = look(&run, cluster(&run).with(JOBS, &jobs(false))).await;
    assert_eq!(result.unwrap(), Action::requeue(PERIOD));
    let pod = is("DELETE", &format!("{PODS}/w-0"));
    assert!(!told(&writes).contains(&pod), "{writes:?}");
}

#[tokio::test]
async fn what_the_api_server_refuses_is_said_once() {
    for (phase, path, message) in [
        ("Pending", RUN, "change the finalizer: refused"),
        ("Starting", JOBS, "create a publisher's Job: refused"),
        ("Running", JOBS, "list the publishers' Jobs: refused"),
    ] {
        let mut run = held(phase, &[]);
        if phase == "Pending" {
            run["metadata"]["finalizers"] = json!([]);
        }
        let refusing = |run: &Value| match phase {
            "Running" => cluster(run).refusing_reads(path, 403),
            _ => cluster(run).refusing(path, 403),
        };
        let (result, writes) = look(&run, refusing(&run)).await;
        assert_eq!(result.unwrap_err().class(), "forbidden", "{phase}");
        let said = status(&writes);
        assert_eq!(complete(&said), ("Refused", message), "{phase}");

        run["status"] = said;
        let (result, writes) = look(&run, refusing(&run)).await;
        result.unwrap_err();
        let written = is("PATCH", &format!("{RUN}/status"));
        assert!(!told(&writes).contains(&written), "{phase}: {writes:?}");
    }
}

#[tokio::test]
async fn a_run_that_is_over_stays_so_whatever_is_refused() {
    let run = held("Complete", &[]);
    let (result, writes) = look(&run, cluster(&run).refusing(RUN, 403)).await;
    assert_eq!(result.unwrap_err().class(), "forbidden");
    for write in writes.iter().filter(|one| one.path.contains("/status")) {
        assert_ne!(complete(&write.body["status"]).0, "Refused");
    }
}

/// What was written of the run.
fn status(writes: &[Write]) -> Value {
    let mut all = writes.iter().filter(|one| one.path.contains("/status"));
    let status = all.next().unwrap().body["status"].clone();
    assert_eq!(all.next(), None, "{writes:?}");
    status
}

/// Why it is not over: the reason and the message.
fn complete(status: &Value) -> (&str, &str) {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let complete = conditions.into_iter().find(|one| one["type"] == COMPLETE);
    complete.map_or(("", ""), |one| {
        (
            one["reason"].as_str().unwrap(),
            one["message"].as_str().unwrap(),
        )
    })
}

/// Two Jobs of the run, which have ended or run.
fn jobs(ended: bool) -> Value {
    let job = |number: i32| {
        let status = if ended {
            json!({"conditions": [{"type": "Complete", "status": "True"}]})
        } else {
            json!({"active": 1, "ready": 1})
        };
        json!({"metadata": {"name": format!("smoke-1a2b3c4d-{number}")}, "status": status})
    };
    json!({"metadata": {}, "items": [job(0), job(1)]})
}

#[tokio::test]
async fn a_run_that_is_deleted_ends_its_jobs_first_and_then_its_topics() {
    let mut run = held("Running", &[]);
    run["metadata"]["deletionTimestamp"] = json!(now().to_string());
    let pods = |phase: &str| {
        let pod = json!({"metadata": {"name": "p"}, "status": {"phase": phase}});
        json!({"metadata": {}, "items": [pod]})
    };
    let base = cluster(&run)
        .with_books(0, 0.0)
        .with_topics(&["run-smoke-1a2b3c4d-0-0", "other"]);

    let running = base
        .clone()
        .with(JOBS, &jobs(false))
        .with(PODS, &pods("Running"));
    let (result, writes) = look(&run, running).await;
    assert_eq!(result.unwrap(), Action::requeue(PERIOD));
    let job = |number: i32| is("DELETE", &format!("{JOBS}/smoke-1a2b3c4d-{number}"));
    assert_eq!(told(&writes), [job(0), job(1)]);

    let (result, writes) = look(&run, base).await;
    assert_eq!(result.unwrap(), Action::await_change());
    assert_eq!(told(&writes), [is("PATCH", RUN)]);
    assert_eq!(writes[0].body["metadata"]["finalizers"], json!([]));
}

#[tokio::test]
async fn a_deleted_run_is_not_held_for_ever_by_a_gateway_that_is_gone() {
    let mut run = held("Running", &[]);
    run["metadata"]["deletionTimestamp"] = json!(now().to_string());
    let (result, writes) = look(&run, cluster(&run)).await;
    assert_eq!(result.unwrap(), Action::requeue(PERIOD));
    assert_eq!(told(&writes), []);
    run["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let (result, writes) = look(&run, cluster(&run)).await;
    assert_eq!(result.unwrap(), Action::await_change());
    assert_eq!(told(&writes), [is("PATCH", RUN)]);
}

#[tokio::test]
async fn a_clean_up_that_is_refused_says_why_and_holds_no_run_for_ever() {
    let recent = json!(now().to_string());
    let old = json!("2026-01-01T00:00:00Z");
    let mut deleted = held("Running", &[]);
    let refusing = |run: &Value| cluster(run).refusing_reads(JOBS, 403);
    deleted["metadata"]["deletionTimestamp"] = recent;
    let (result, writes) = look(&deleted, refusing(&deleted)).await;
    assert_eq!(result.unwrap(), Action::requeue(PERIOD));
    assert_eq!(told(&writes), []);
    deleted["metadata"]["deletionTimestamp"] = old.clone();
    let (result, writes) = look(&deleted, refusing(&deleted)).await;
    assert_eq!(result.unwrap(), Action::await_change());
    assert_eq!(told(&writes), [is("PATCH", RUN)]);

    let mut ended = held("Cleaning", &[]);
    let (result, writes) = look(&ended, refusing(&ended)).await;
    assert_eq!(result.unwrap(), Action::requeue(PERIOD));
    let why = "list the publishers' Jobs: refused";
    assert_eq!(complete(&status(&writes)), ("Cleaning", why));
    ended["status"]["endedAt"] = old;
    let (result, writes) = look(&ended, refusing(&ended)).await;
    assert_eq!(result.unwrap(), Action::await_change());
    let status = status(&writes);
    assert_eq!(status["phase"], "Complete");
    assert_eq!(complete(&status).0, "TopicsLeft");
}

#[tokio::test]
async fn what_may_still_be_there_is_never_said_to_be_gone() {
    let queued = "events are still queued, which may make its topics anew";
    let gone = "there is no Pipeline sekali to delete topics of";
    for (has_pipeline, queue, why) in [(true, 5, queued), (false, 0, gone)] {
        let cluster_of = |run: &Value| {
            if has_pipeline {
                cluster(run)
                    .with_books(queue, 0.0)
                    .with_topics(&["run-smoke-1a2b3c4d-0-0"])
            } else {
                Cluster::default().with(RUN, run)
            }
        };
        let mut run = held("Cleaning", &[]);
        let a_while = now() - Duration::from_secs(90);
        run["status"]["endedAt"] = json!(a_while.to_string());
        let (_, writes) = look(&run, cluster_of(&run)).await;
        assert_eq!(complete(&status(&writes)), ("Cleaning", why));

        let mut kept = run.clone();
        kept["spec"]["keepEvents"] = json!(true);
        let (_, writes) = look(&kept, cluster_of(&kept)).await;
        assert_eq!(complete(&status(&writes)), ("Over", ""));

        run["status"]["endedAt"] = json!("2026-01-01T00:00:00Z");
        let (_, writes) = look(&run, cluster_of(&run)).await;
        let why = format!("what it made may still be there: {why}");
        assert_eq!(complete(&status(&writes)), ("TopicsLeft", why.as_str()));
    }
}

#[tokio::test]
async fn a_run_waits_for_an_older_one_unless_that_is_left_alone_or_unreadable() {
    let mut run = run(&Value::Null);
    run["metadata"]["creationTimestamp"] = json!(now().to_string());
    let mut older = run.clone();
    older["metadata"]["name"] = json!("older");
    older["metadata"]["uid"] = json!("0");
    older["metadata"]["creationTimestamp"] = json!("2025-01-01T00:00:00Z");
    let beside = |older: &Value| {
        let list = json!({"metadata": {}, "items": [older]});
        cluster(&run).with("sekali.dev/v1alpha1/chaosruns", &list)
    };
    let (_, writes) = look(&run, beside(&older)).await;
    assert_eq!(complete(&status(&writes)).0, "Waiting");
    older["metadata"]["annotations"] = json!({"sekali.dev/reconcile": "disabled"});
    let (_, writes) = look(&run, beside(&older)).await;
    assert_eq!(status(&writes)["phase"], "Starting");
    // Nor for one of which nobody can tell what it is.
    let mut unreadable = older;
    unreadable["metadata"]["annotations"] = Value::Null;
    unreadable["status"] = json!({"phase": "Over"});
    let (_, writes) = look(&run, beside(&unreadable)).await;
    assert_eq!(status(&writes)["phase"], "Starting");
}

#[tokio::test]
async fn publishers_that_ended_are_judged_by_their_termination_messages() {
    let run = held("Running", &[]);
    let container = |name: &str, state: &Value| {
        json!({
            "name": name, "state": state, "ready": false, "restartCount": 0, "image": "",
            "imageID": "",
        })
    };
    let pod = |number: i32, message: &str| {
        let state = json!({"terminated": {"exitCode": 1, "message": message}});
        json!({
            "metadata": {
                "name": format!("p-{number}"),
                "labels": {"batch.kubernetes.io/job-name": format!("smoke-1a2b3c4d-{number}")},
            },
            "status": {"containerStatuses": [
                container("beside", &json!({"terminated": {"exitCode": 0, "message": "bye"}})),
                container("publisher", &state),
            ]},
        })
    };
    let report = json!({
        "passed": false, "sent": 10, "acknowledged": 10, "refused": {"expected": 0},
        "seconds": 1.0, "latency_ms": {"p99": 1.0}, "failures": [],
        "verdict": {"good": false, "words": "BAD: 3 lost", "expected": 10, "stored": 7,
            "duplicates": 0, "conflicts": 0, "missing": 3, "doubled": 0, "foreign": 0, "altered": 0},
    });
    let report = report.to_string();
    let pods = json!({"metadata": {}, "items": [pod(0, &report), pod(1, &report)]});
    let cluster = cluster(&run).with(JOBS, &jobs(true)).with(PODS, &pods);
    let (result, writes) = look(&run, cluster).await;
    result.unwrap();
    let status = &writes
        .iter()
        .find(|one| one.path.contains("/status"))
        .unwrap()
        .body["status"];
    assert_eq!(
        (&status["verdict"], &status["lost"]),
        (&json!("Failed"), &json!(6))
    );
    assert_eq!(status["uniqueExpected"], 20);
    assert_eq!(status["phase"], "Cleaning");
}

#[tokio::test]
async fn a_run_that_is_over_is_let_go() {
    let run = held("Complete", &[]);
    let (result, writes) = look(&run, cluster(&run)).await;
    assert_eq!(result.unwrap(), Action::await_change());
    assert!(told(&writes).contains(&is("PATCH", RUN)), "{writes:?}");
}
