//! Another release of the image and other settings, and back, under load.

use std::collections::BTreeSet;

use crate::cluster::until;
use crate::load::Load;
use crate::release::{NAME, Release, TIMEOUT, shared};

/// The same programs in an image of another name.
const NEXT: &str = "image.tag=next";

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
