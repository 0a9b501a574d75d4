//! Pods that are taken away, politely and not.

use crate::load::Load;
use crate::release::{Release, shared};

const COMPONENTS: [&str; 4] = ["aggregator", "worker", "redis", "postgresql"];

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
    crate::cluster::until(&format!("{component} is replaced"), || {
        let now = release.pod_uids(component);
        !now.is_empty() && now.iter().all(|uid| !before.contains(uid))
    });
    release.has_replicas(component, 1);
}
