use serde_json::{Value, json};

use super::*;
use crate::fixtures::{Cluster, Write};

const PIPELINE: &str = "sekali.dev/v1alpha1/pipelines/sekali";
const DEPLOYMENT: &str = "apps/v1/deployments/sekali-worker";

fn pipeline(status: Option<&PipelineStatus>) -> Value {
    json!({
        "apiVersion": "sekali.dev/v1alpha1", "kind": "Pipeline",
        "metadata": {
            "name": "sekali", "namespace": "test", "uid": "1", "generation": 1,
            "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "instance": "sekali",
            "gateway": {"service": "sekali", "port": 0},
            "workers": {"deployment": "sekali-worker"},
        },
        "status": status,
    })
}

fn cluster(status: Option<&PipelineStatus>) -> Cluster {
    let deployment = json!({
        "metadata": {"name": "sekali-worker"},
        "spec": {"replicas": 1, "selector": {}, "template": {}},
        "status": {"readyReplicas": 1},
    });
    Cluster::default()
        .with(PIPELINE, &pipeline(status))
        .with(DEPLOYMENT, &deployment)
}

async fn look(cluster: Cluster) -> (Result<Action, Error>, Vec<Write>) {
    let pipeline = serde_json::from_value(pipeline(None)).unwrap();
    cluster
        .run(async |context| reconcile(pipeline, context).await)
        .await
}

fn of<'a>(writes: &'a [Write], path: &str) -> Vec<&'a Write> {
    let all = writes.iter();
    all.filter(|write| write.path.starts_with(path)).collect()
}

fn status(writes: &[Write]) -> PipelineStatus {
    let status = of(writes, &format!("{PIPELINE}/status"));
    assert_eq!(status.len(), 1, "{writes:?}");
    // It may be decided on only as it was read.
    assert_eq!(status[0].body["metadata"]["resourceVersion"], "7");
    serde_json::from_value(status[0].body["status"].clone()).unwrap()
}

#[tokio::test]
async fn a_grown_queue_is_answered_with_one_apply_of_the_scale() {
    let (result, writes) = look(cluster(None).with_books(50_000, 2.0)).await;
    assert_eq!(result.unwrap(), Action::requeue(PERIOD));
    let scale = of(&writes, &format!("{DEPLOYMENT}/scale"));
    assert_eq!(scale.len(), 1, "{writes:?}");
    assert_eq!(scale[0].method, "PATCH");
    assert!(scale[0].path.contains("force=true"), "{}", scale[0].path);
    assert!(scale[0].path.contains("fieldManager=sekali-operator"));
    assert_eq!(scale[0].body["spec"], json!({"replicas": 3}));
    assert_eq!(status(&writes).desired_workers, Some(3));
    let events = of(&writes, "events.k8s.io/v1/events");
    assert!(events.iter().any(|event| event.body["reason"] == "Scaled"));
}

#[tokio::test]
async fn at_rest_nothing_is_written() {
    let (_, writes) = look(cluster(None).with_books(0, 0.0)).await;
    let status = status(&writes);
    assert_eq!(status.queue, Some(0));
    let (result, writes) = look(cluster(Some(&status)).with_books(0, 0.0)).await;
    assert_eq!(result.unwrap(), Action::requeue(PERIOD));
    assert_eq!(writes, []);
}

#[tokio::test]
async fn whatever_else_scales_the_workers_is_left_to_it() {
    let autoscaler = json!({
        "metadata": {"name": "h"},
        "spec": {"maxReplicas": 9, "scaleTargetRef": {"kind": "Deployment", "name": "sekali-worker"}},
    });
    let keda = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "k"},
        "spec": {"scaleTargetRef": {"name": "sekali-worker"}},
    });
    let mut older = pipeline(None);
    older["metadata"]["name"] = json!("first");
    older["metadata"]["creationTimestamp"] = json!("2025-01-01T00:00:00Z");
    for (path, object, reason) in [
        (
            "autoscaling/v2/horizontalpodautoscalers",
            &autoscaler,
            "OtherOwner",
        ),
        ("keda.sh/v1alpha1/scaledobjects", &keda, "OtherOwner"),
        ("sekali.dev/v1alpha1/pipelines", &older, "Claimed"),
    ] {
        let list = json!({"metadata": {}, "items": [object]});
        let cluster = cluster(None).with_books(1_000_000, 2.0).with(path, &list);
        let (_, writes) = look(cluster).await;
        assert_eq!(of(&writes, DEPLOYMENT), Vec::<&Write>::new(), "{reason}");
        let status = status(&writes);
        assert_eq!(find(&status.conditions, SCALING).unwrap().reason, reason);
    }
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_changes_no_number() {
    let (result, writes) = look(cluster(None)).await;
    assert_eq!(result.unwrap(), Action::requeue(PERIOD));
    assert_eq!(of(&writes, DEPLOYMENT), Vec::<&Write>::new());
    let status = status(&writes);
    let ready = find(&status.conditions, READY).unwrap();
    assert_eq!(
        (&*ready.status, &*ready.reason),
        ("False", "BooksUnreadable")
    );
    assert!(
        ready.message.contains("no gateway answers"),
        "{}",
        ready.message
    );
}

#[tokio::test]
async fn what_the_api_server_refuses_is_a_failure_of_its_class() {
    let cluster = cluster(None)
        .with_books(50_000, 2.0)
        .refusing(&format!("{DEPLOYMENT}/scale"), 403);
    let (result, writes) = look(cluster).await;
    let error = result.unwrap_err();
    assert_eq!(error.class(), "forbidden");
    assert!(
        error.to_string().starts_with("scale the workers: "),
        "{error}"
    );
    // What was not done is not said.
    assert_eq!(status(&writes).desired_workers, None);
}

/// A gateway with nothing to do, and workers after a quiet period.
fn idle(status: &PipelineStatus, workers: i32) -> Cluster {
    let deployment = json!({
        "metadata": {"name": "sekali-worker"},
        "spec": {"replicas": workers, "selector": {}, "template": {}},
        "status": {"readyReplicas": workers},
    });
    let cluster = cluster(Some(status)).with_books(0, 0.0);
    cluster.with(DEPLOYMENT, &deployment)
}

#[tokio::test]
async fn a_quiet_period_is_spent_before_workers_go() {
    let scale = format!("{DEPLOYMENT}/scale");
    let said = format!("{PIPELINE}/status");
    let (_, writes) = look(cluster(None).with_books(0, 0.0)).await;
    let mut status = status(&writes);
    status.quiet_since = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();

    let (result, writes) = look(idle(&status, 4)).await;
    assert_eq!(result.unwrap(), Action::requeue(PERIOD));
    let paths = writes.iter().map(|write| write.path.split('?').next());
    let paths: Vec<_> = paths.flatten().collect();
    assert_eq!(paths[..2], [&said, &scale], "{writes:?}");
    assert_eq!(writes[0].body["status"]["quietSince"], Value::Null);
    // What is not done yet is not said.
    assert_eq!(writes[0].body["status"]["desiredWorkers"], 1);
    assert_eq!(writes[1].body["spec"], json!({"replicas": 2}));

    // Who could not write it lets nobody go.
    for code in [403, 409, 500] {
        let (result, writes) = look(idle(&status, 4).refusing(&said, code)).await;
        result.unwrap_err();
        assert_eq!(of(&writes, &scale), Vec::<&Write>::new(), "{code}");
    }

    // Nor does the next one if they could not go.
    let (result, writes) = look(idle(&status, 4).refusing(&scale, 503)).await;
    result.unwrap_err();
    let spent = serde_json::from_value(writes[0].body["status"].clone()).unwrap();
    let (result, writes) = look(idle(&spent, 4)).await;
    result.unwrap();
    assert_eq!(of(&writes, &scale), Vec::<&Write>::new());
}

#[tokio::test]
async fn a_pipeline_that_can_not_be_read_stops_no_other() {
    let unreadable = json!({
        "metadata": {"name": "first", "creationTimestamp": "2025-01-01T00:00:00Z"},
        "spec": {"instance": "sekali", "workers": 3},
    });
    let list = json!({"metadata": {}, "items": [unreadable, pipeline(None)]});
    let cluster = cluster(None).with_books(50_000, 2.0);
    let (result, writes) = look(cluster.with("sekali.dev/v1alpha1/pipelines", &list)).await;
    result.unwrap();
    assert_eq!(of(&writes, &format!("{DEPLOYMENT}/scale")).len(), 1);
}

#[tokio::test]
async fn what_the_api_server_refuses_is_said_once() {
    let refused = |status: Option<&PipelineStatus>, path: &str, code| {
        let cluster = cluster(status).with_books(50_000, 2.0);
        look(cluster.refusing(path, code).refusing_reads(path, code))
    };
    let (_, writes) = look(cluster(None).with_books(0, 0.0)).await;
    let good = status(&writes);
    for (path, code, message) in [
        (DEPLOYMENT, 403, "read the workers' Deployment: refused"),
        (
            &format!("{DEPLOYMENT}/scale"),
            422,
            "scale the workers: refused",
        ),
        (
            "autoscaling/v2/horizontalpodautoscalers",
            400,
            "list the HorizontalPodAutoscalers: refused",
        ),
    ] {
        let (result, writes) = refused(Some(&good), path, code).await;
        result.unwrap_err();
        let said = status(&writes);
        let ready = find(&said.conditions, READY).unwrap();
        assert_eq!((&*ready.status, &*ready.reason), ("Unknown", "Refused"));
        assert_eq!(ready.message, message);
        let events = of(&writes, "events.k8s.io/v1/events");
        assert_eq!(events.len(), 1, "{path}");

        let (result, writes) = refused(Some(&said), path, code).await;
        result.unwrap_err();
        assert_eq!(of(&writes, PIPELINE), Vec::<&Write>::new(), "{path}");
    }
    // What passes by itself is tried again, and is no news.
    for code in [404, 409, 429, 500] {
        let path = "autoscaling/v2/horizontalpodautoscalers";
        let (result, writes) = refused(Some(&good), path, code).await;
        result.unwrap_err();
        assert_eq!(writes, [], "{code}");
    }
}

#[tokio::test]
async fn a_gateway_that_answers_something_else_is_not_said_to_be_away() {
    let (_, writes) = look(cluster(None).with_other_books()).await;
    let status = status(&writes);
    let ready = find(&status.conditions, READY).unwrap();
    assert_eq!(ready.reason, "BooksUnreadable");
    let words = "answers what this operator can't read: missing field";
    assert!(ready.message.contains(words), "{}", ready.message);
}

#[tokio::test]
async fn another_installations_pipeline_is_left_alone() {
    let mut other = pipeline(None);
    other["spec"]["instance"] = json!("other");
    let cluster = cluster(None).with_books(50_000, 2.0).with(PIPELINE, &other);
    let (result, writes) = look(cluster).await;
    assert_eq!(result.unwrap(), Action::await_change());
    assert_eq!(writes, []);
}
