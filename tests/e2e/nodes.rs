//! Two nodes, of which one goes away. `E2E_NODE_KILL` and `E2E_NODE_START` are the commands
//! that cut the power of the node `$NODE` and bring it back.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::cluster::{kubectl, until};
use crate::load::Load;
use crate::release::Release;

#[test]
#[ignore = "it takes two nodes, and takes one of them away: make e2e-full"]
fn one_of_two_nodes_is_drained_and_another_time_loses_its_power() {
    // The servers' volumes stand on the first node; the second may go.
    let (first, second) = two_nodes();
    let on_first = format!("nodeSelector.kubernetes\\.io/hostname={first}");
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
    let drained = Returns(&second, uncordon);
    kubectl(&[
        "drain",
        &second,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=120s",
    ]);
    release.is_whole();
    load.outlasts();
    load.verdict_without_a_failed_request();
    drop(drained);
    spread(&release);

    let leader = leader_on(&second, &release);
    let load = Load::start(&release, "power", 200, 90, 5);
    let began = Instant::now();
    let dark = Returns(&second, start);
    assert!(shell("E2E_NODE_KILL", &second));
    until("its pods are replaced", || {
        nodes(&release, "aggregator") == BTreeSet::from([first.clone()])
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
    drop(dark);
    let node = format!("node/{second}");
    kubectl(&["wait", "--for=condition=Ready", &node, "--timeout=120s"]);
    load.verdict();
    release.settled();
}

/// The names of the two nodes that take pods.
fn two_nodes() -> (String, String) {
    let nodes = kubectl(&["get", "nodes", "--output=json"]);
    let nodes: Value = serde_json::from_str(&nodes).unwrap();
    let takes_pods = |node: &&Value| node["spec"]["taints"].is_null();
    let name = |node: &Value| node["metadata"]["name"].as_str().unwrap().to_owned();
    let nodes = nodes["items"].as_array().unwrap().iter();
    let mut names: Vec<_> = nodes.filter(takes_pods).map(name).collect();
    names.sort();
    let [first, second] = &names[..] else {
        panic!("it takes two nodes, and there are {names:?}");
    };
    (first.clone(), second.clone())
}

/// A node that is taken away and returns with this, if only because the test has failed.
struct Returns<'n>(&'n str, fn(&str) -> bool);

impl Drop for Returns<'_> {
    fn drop(&mut self) {
        let returned = self.1(self.0);
        assert!(returned || std::thread::panicking(), "{} is away", self.0);
    }
}

fn uncordon(node: &str) -> bool {
    let uncordon = Command::new("kubectl").args(["uncordon", node]).status();
    uncordon.is_ok_and(|status| status.success())
}

fn start(node: &str) -> bool {
    shell("E2E_NODE_START", node)
}

/// Has the operator lead that stands on the node which is to go.
fn leader_on(second: &str, release: &Release) -> String {
    let node_of = |pod: &str| release.namespace.get(&["pod", pod])["spec"]["nodeName"].clone();
    until("the leader is on the second node", || {
        release.has_ready("operator", 2);
        let leader = release.leader();
        let is_there = release.pod_names("operator").contains(&leader);
        if !is_there || node_of(&leader) == second {
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

/// Runs the command that a variable has, which knows the node.
fn shell(variable: &str, node: &str) -> bool {
    let command = std::env::var(variable).expect("scripts/e2e asks for it");
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).env("NODE", node);
    shell.status().is_ok_and(|status| status.success())
}
