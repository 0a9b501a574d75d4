//! What is done to an installation while a load goes on: pods are taken away, politely and not,
//! there are more and fewer of them, and another release comes and goes.

use std::collections::BTreeSet;

use crate::cluster::until;
use crate::load::Load;
use crate::release::{NAME, Release, TIMEOUT, shared};

const COMPONENTS: [&str; 4] = ["aggregator", "worker", "redis", "postgresql"];

/// The same programs in an image of another name.
const NEXT: &str = "image.tag=next";

#[test]
fn each_pod_in_turn_is_deleted_under_load_with_and_without_grace() {
    let release = &shared();
    let load = Load::start(release, "deletion", 100, 75, 10);
    for component in COMPONENTS {
        delete(release, component, &[]);
        delete(release, component, &["--force", "--grace-period=0"]);
    }
    load.outlasts();
    load.verdict();
    release.settled();
}

/// Deletes the pods of a component and waits for what comes in their place.
fn delete(release: &Release, component: &str, how: &[&str]) {
    let before = release.pod_uids(component);
    let selector = format!("--selector=app.kubernetes.io/component={component}");
    release
        .namespace
        .kubectl(&[&["delete", "pod", &selector, "--wait=false"], how].concat());
    until(&format!("{component} is replaced"), || {
        let now = release.pod_uids(component);
        !now.is_empty() && now.iter().all(|uid| !before.contains(uid))
    });
    release.has_replicas(component, 1);
}

#[test]
fn scaling_under_load_fails_no_request_and_loses_nothing() {
    let release = &shared();
    let load = Load::start(release, "scaling", 400, 75, 5);
    for replicas in [4, 1] {
        scale(release, "worker", replicas);
    }
    for replicas in [3, 1] {
        scale(release, "aggregator", replicas);
    }
    load.outlasts();
    load.verdict_without_a_failed_request();
}

fn scale(release: &Release, component: &str, replicas: usize) {
    let deployment = format!("deployment/sekali-{component}");
    let replicas_flag = format!("--replicas={replicas}");
    release
        .namespace
        .kubectl(&["scale", &deployment, &replicas_flag]);
    release.has_replicas(component, replicas);
}

#[test]
fn an_upgrade_and_a_rollback_under_load_fail_no_request() {
    let release = &shared();
    release
        .upgrade(&["aggregator.replicas=2", "worker.replicas=2"])
        .unwrap();
    let load = Load::start(release, "rollout", 2_000, 75, 1);

    let settings = [
        "aggregator.replicas=2",
        "worker.replicas=2",
        "worker.extraArgs[0]=--batch-events=2000",
    ];
    let upgrade = [&settings[..], &[NEXT]].concat();
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| release.upgrade(&upgrade));
        until("both releases serve at once", || images(release).len() == 2);
        upgrade.join().unwrap().unwrap();
    });
    until("the next release serves alone", || {
        images(release).iter().all(|image| image.ends_with(":next"))
    });

    release
        .namespace
        .helm(&["rollback", NAME, "--wait", TIMEOUT])
        .unwrap();
    until("the release before serves alone", || {
        images(release)
            .iter()
            .all(|image| image.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))))
    });
    load.outlasts();
    let report = load.verdict_without_a_failed_request();
    println!(
        "rolling restarts under {} requests/s: {} requests, {} sent again",
        2_000, report["requests"], report["retried"]
    );
    release.upgrade(&[]).unwrap();
    release.has_replicas("aggregator", 1);
    release.has_replicas("worker", 1);
}

/// The images that the gateways that are there run.
fn images(release: &Release) -> BTreeSet<String> {
    let image = |pod: serde_json::Value| {
        pod["spec"]["containers"][0]["image"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    release.pods("aggregator").into_iter().map(image).collect()
}
