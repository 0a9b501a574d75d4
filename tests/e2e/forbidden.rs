//! What the operator says when it may not do what it has to.

use serde_json::{Value, json};

use crate::account::MAY;
use crate::cluster::until;
use crate::release::{NAME, Release};
use crate::run::run;

/// Asked for all that it can do, the operator misses each verb by name: so each is used, and
/// none fails in silence.
#[test]
#[ignore = "it takes minutes: make e2e-full"]
fn each_verb_that_is_taken_away_is_missed_aloud() {
    let release = Release::install("forbidden", &[]);
    let role = release.namespace.get(&["role", "sekali-operator"]);
    let all = MAY.iter().flat_map(|(what, verbs)| {
        let resource = what.split(' ').next().unwrap();
        verbs.split(' ').map(move |verb| (resource, verb))
    });
    let mut said = Vec::new();
    for (number, (resource, verb)) in all.enumerate() {
        let name = format!("number-{number}");
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let resource = format!("{resource}/{subresource}");
        let resource = resource.trim_end_matches('/');
        change(&release, &without(&role, group, resource, verb));
        demand_everything(&release, &name);
        if (group, verb) == ("sekali.dev", "delete") {
            // Before that there is nothing to retire.
            until("the Pipeline is there again", || {
                let pipeline = ["get", "pipeline", NAME];
                release.namespace.try_kubectl(&pipeline).is_ok()
            });
            retire(&release);
        }
        let phrase = format!("cannot {verb} resource \"{resource}\" in API group \"{group}\"");
        until(&format!("the operator says that it {phrase}"), || {
            complaints(&release).any(|line| line.contains(&phrase))
        });
        said.push(phrase);
        change(&release, &role);
        let_go(&release, &name);
    }
    // With all of them it misses none.
    demand_everything(&release, "whole");
    until("the run is over", || {
        release.namespace.get(&["chaosrun", "whole"])["status"]["phase"] == "Complete"
    });
    retire(&release);
    until("the run is gone", || {
        let names = ["get", "chaosruns", "--output=name"];
        !release.namespace.kubectl(&names).contains("whole")
    });
    let missed: Vec<_> = complaints(&release)
        .filter(|line| line.contains("cannot"))
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
    println!("{} verbs, each missed by name", said.len());
}

/// A Role without one verb.
fn without(role: &Value, group: &str, resource: &str, verb: &str) -> Value {
    let mut role = role.clone();
    let mut taken = 0;
    for rule in role["rules"].as_array_mut().unwrap() {
        let is_of = |list: &str, one: &str| rule[list].as_array().unwrap().contains(&json!(one));
        if is_of("apiGroups", group) && is_of("resources", resource) && is_of("verbs", verb) {
            let verbs = rule["verbs"].as_array_mut().unwrap();
            verbs.retain(|one| one != verb);
            taken += 1;
        }
    }
    assert_eq!(taken, 1, "{verb} {resource}");
    let rules = role["rules"].as_array_mut().unwrap();
    rules.retain(|rule| rule["verbs"] != json!([]));
    role
}

/// Puts a Role in the place of the one that is there.
fn change(release: &Release, role: &Value) {
    let mut role = role.clone();
    let metadata = role["metadata"].as_object_mut().unwrap();
    metadata.retain(|key, _| ["name", "labels", "annotations"].contains(&&**key));
    let whole = ["--server-side", "--force-conflicts"];
    release.namespace.apply(&role.to_string(), &whole).unwrap();
}

/// All that an operator ever has to do: it starts, makes its Lease and its Pipeline, brings the
/// workers back, and has a run that injects faults and outlasts its deadline.
fn demand_everything(release: &Release, run_name: &str) {
    let namespace = &release.namespace;
    let operator = "--selector=app.kubernetes.io/component=operator";
    namespace.kubectl(&["delete", "pod", operator, "--force", "--grace-period=0"]);
    namespace.kubectl(&["delete", "lease", "sekali-operator", "--ignore-not-found"]);
    namespace.kubectl(&["delete", "pipeline", NAME, "--ignore-not-found"]);
    namespace.kubectl(&["scale", "deployment", "sekali-worker", "--replicas=0"]);
    let kill = json!({"target": "worker", "action": "kill", "every": "1s", "count": 2});
    let spec = json!({"events": 1_000_000, "rate": 100, "deadline": "20s", "faults": [kill]});
    namespace
        .apply(&run(run_name, &spec).to_string(), &[])
        .unwrap();
}

/// The rest of it: the errand before an uninstall.
fn retire(release: &Release) {
    let template = ["--show-only=templates/operator/retire.yaml"];
    let job = release.render(&[], &template).unwrap();
    let old = [
        "delete",
        "job",
        "sekali-operator-retire",
        "--ignore-not-found",
    ];
    release.namespace.kubectl(&old);
    release.namespace.apply(&job, &[]).unwrap();
}

/// What a run holds on to is not waited for.
fn let_go(release: &Release, run_name: &str) {
    let free = r#"--patch={"metadata":{"finalizers":null}}"#;
    let namespace = &release.namespace;
    let _ = namespace.try_kubectl(&["patch", "chaosrun", run_name, "--type=merge", free]);
    let _ = namespace.try_kubectl(&["delete", "chaosrun", run_name, "--wait=false"]);
}

/// The lines of the operator's pods that whoever looks at warnings sees.
fn complaints(release: &Release) -> impl Iterator<Item = String> {
    let of_all = [
        "logs",
        "--selector=app.kubernetes.io/component=operator",
        "--tail=-1",
    ];
    let text = release.namespace.try_kubectl(&of_all).unwrap_or_default();
    let lines: Vec<_> = text.lines().map(|line| line.replace('\\', "")).collect();
    let is_loud = |line: &String| line.contains(r#""WARN""#) || line.contains(r#""ERROR""#);
    lines.into_iter().filter(is_loud)
}
