//! Two nodes, of which one goes away. `E2E_NODE_KILL` and `E2E_NODE_START` are the commands
//! that cut the power of the second and bring it back.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use crate::cluster::{kubectl, until};
use crate::load::Load;
use crate::release::Release;

/// The servers' volumes stand on the first node; the second may go.
const SECOND: &str = "node2";

#[test]
#[ignore = "it takes two nodes, and takes one of them away: make e2e-full"]
fn one_of_two_nodes_is_drained_and_another_time_loses_its_power() {
    let on_first = "nodeSelector.kubernetes\\.io/hostname=node1";
    let settings = [
        &format!("redis.{on_first}"),
        &format!("postgresql.{on_first}"),
        &format!("publisher.{on_first}"),
        "aggregator.replicas=2",
        "worker.replicas=2",
        "operator.replicas=2",
    ];
    let release = Release::install("nodes", &settings);
    assert_eq!(nodes(&release, "aggregator").len(), 2, "they stand apart");
    assert_eq!(nodes(&release, "worker").len(), 2, "they stand apart");

    let load = Load::start(&release, "drain", 200, 60, 5);
    kubectl(&[
        "drain",
        SECOND,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=120s",
    ]);
    release.is_whole();
    assert!(
        load.is_running(),
        "the load is to outlast what is done under it"
    );
    load.verdict_without_a_failed_request();
    kubectl(&["uncordon", SECOND]);
    spread(&release);

    let leader = leader_on_second(&release);
    let load = Load::start(&release, "power", 200, 90, 5);
    let began = Instant::now();
    shell("E2E_NODE_KILL");
    until("its pods are replaced", || {
        nodes(&release, "aggregator") == BTreeSet::from(["node1".into()])
    });
    release.has_ready("aggregator", 2);
    println!(
        "two gateways again after {:.0} s",
        began.elapsed().as_secs_f64()
    );
    until("another operator leads", || {
        !["", &leader].contains(&release.leader().as_str())
    });
    println!(
        "an operator leads again after {:.0} s at most",
        began.elapsed().as_secs_f64()
    );
    shell("E2E_NODE_START");
    let node = format!("node/{SECOND}");
    kubectl(&["wait", "--for=condition=Ready", &node, "--timeout=120s"]);
    load.verdict();
    release.settled();
}

/// Has the operator lead that stands on the node which is to go.
fn leader_on_second(release: &Release) -> String {
    let node_of = |pod: &str| release.namespace.get(&["pod", pod])["spec"]["nodeName"].clone();
    until("the leader is on the second node", || {
        release.has_ready("operator", 2);
        let leader = release.leader();
        let is_there = release.pod_names("operator").contains(&leader);
        if !is_there || node_of(&leader) == SECOND {
            return is_there;
        }
        release.namespace.kubectl(&["delete", "pod", &leader]);
        false
    });
    release.leader()
}

/// Has replicas of each stand on both nodes again.
fn spread(release: &Release) {
    for component in ["aggregator", "worker", "operator"] {
        let deployment = format!("deployment/sekali-{component}");
        release
            .namespace
            .kubectl(&["rollout", "restart", &deployment]);
        release.is_whole();
        release.has_replicas(component, 2);
        assert_eq!(nodes(release, component).len(), 2, "{component}");
    }
}

/// On which nodes a component's pods are that are not about to go.
fn nodes(release: &Release, component: &str) -> BTreeSet<String> {
    let pods = release.pods(component);
    let staying = pods
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    staying
        .map(|pod| {
            pod["spec"]["nodeName"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

fn shell(variable: &str) {
    let command = std::env::var(variable).expect("make e2e-full sets it");
    let status = Command::new("sh").args(["-c", &command]).status().unwrap();
    assert!(status.success(), "{command}");
}
