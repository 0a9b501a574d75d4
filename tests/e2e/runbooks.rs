//! The commands of the runbooks, run as they stand there.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::release::{Forward, shared};

/// What is not run, and why.
const NOT_RUN: &[(&str, &str)] = &[
    (
        "kubectl port-forward",
        "it does not end; the test has its own",
    ),
    ("kubectl config", "it changes whose configuration it is"),
    ("kubectl top", "it needs a metrics server"),
    ("xgroup setid", "it has entries delivered anew"),
];

/// What stands in blocks for a shell, once each.
fn commands() -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
    let mut commands = BTreeSet::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let blocks = text.split("```sh\n").skip(1);
        let blocks = blocks.map(|block| block.split("```").next().unwrap());
        commands.extend(blocks.flat_map(str::lines).map(str::to_owned));
    }
    commands
}

#[tokio::test]
async fn every_command_of_the_runbooks_works() {
    let release = &shared();
    let forward = Forward::to(release, "service/sekali", 8080).await;
    let namespace = release.namespace.name();
    let mut failed = Vec::new();
    let mut run = 0;
    for command in commands() {
        if NOT_RUN.iter().any(|(part, _)| command.contains(part)) {
            continue;
        }
        let here = command
            .replace("kubectl ", &format!("kubectl --namespace {namespace} "))
            // The installation of the runbooks is in a namespace that is called so.
            .replace(
                "serviceaccount:sekali:",
                &format!("serviceaccount:{namespace}:"),
            )
            .replace(
                "localhost:8080",
                forward.url("").trim_start_matches("http://"),
            );
        let output = Command::new("bash").args(["-c", &here]).output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        // redis-cli and psql's shell end well with an error on the screen.
        let is_good = output.status.success() && !said.contains("ERR ") && !said.contains("ERROR:");
        if !is_good {
            failed.push(format!("{command}\n{said}"));
        }
        run += 1;
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(run > 40, "{run}");
}
