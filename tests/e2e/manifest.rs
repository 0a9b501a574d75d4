//! A Sekali without Helm: the commands of k8s/README.md, in its order.

use std::process::Command;

use serde_json::json;
use tempfile::TempDir;
use tests::example;

use crate::cluster::{Namespace, ROOT, until};
use crate::release::{Forward, Release};

const PAGE: &str = include_str!("../../k8s/README.md");

/// Runs the commands of the page's next block in a directory that has the manifest where the
/// repository has it.
async fn run(block: &str, release: &Release, directory: &TempDir) -> Vec<String> {
    let mut said = Vec::new();
    for example in example::examples(block) {
        // A way in that lasts is made by the test itself.
        if example.command.contains("port-forward") {
            continue;
        }
        let namespace = release.namespace.name();
        let command = example
            .command
            .replace("--namespace sekali", &format!("--namespace {namespace}"));
        let create = format!("create namespace {namespace}");
        let command = command.replace("create namespace sekali", &create);
        said.extend(example::run(command, directory.path(), &[]).await);
    }
    said
}

/// The manifest as the repository has it, but for the images and the namespace.
fn write_manifest(release: &Release, directory: &TempDir) {
    let manifest = Command::new(format!("{ROOT}/scripts/manifests"))
        .args(["--print", "--namespace", release.namespace.name()])
        .args(release.flags(&[]))
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&manifest.stderr);
    assert!(manifest.status.success(), "{complaints}");
    let folder = directory.path().join("k8s");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("sekali.yaml"), manifest.stdout).unwrap();
}

#[tokio::test]
async fn what_kubectl_applies_works_and_goes_away_again() {
    let release = Release::in_namespace(Namespace::to_be("manifest"));
    let directory = tests::directory();
    write_manifest(&release, &directory);
    let [install, remove] = example::blocks(PAGE, "console")[..] else {
        panic!("the page has other blocks");
    };

    run(install, &release, &directory).await;
    release.namespace.is_of_this_run();
    release.is_whole();
    let forward = Forward::to(&release, "service/sekali", 8080).await;
    let event = json!({
        "topic": "applied", "event_id": "1", "timestamp": "2026-01-01T00:00:00Z",
        "source": "e2e", "payload": {},
    });
    forward.publish(&json!([event, event])).await.ok();
    let stats = release.settled();
    assert_eq!(
        (&stats["received"], &stats["unique_processed"]),
        (&json!(2), &json!(1))
    );
    forward.get("/events/applied/1").await.ok();
    drop(forward);

    run(remove, &release, &directory).await;
    until("what is left is what the page says", || {
        let kinds = "secret,persistentvolumeclaim,lease,pod,service,deployment,statefulset,configmap,\
                     networkpolicy,serviceaccount,role,rolebinding,job,pipeline";
        let left = release.namespace.kubectl(&["get", kinds, "--output=name"]);
        let mut left: Vec<_> = left
            .lines()
            // Every namespace has these.
            .filter(|name| {
                !name.ends_with("/kube-root-ca.crt") && *name != "serviceaccount/default"
            })
            .collect();
        left.sort_unstable();
        left == [
            "lease.coordination.k8s.io/sekali-operator",
            "persistentvolumeclaim/data-sekali-postgresql-0",
            "persistentvolumeclaim/data-sekali-redis-0",
            "secret/sekali",
        ]
    });
}
