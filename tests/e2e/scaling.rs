//! More and fewer of them, under load.

use crate::load::Load;
use crate::release::{Release, shared};

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
