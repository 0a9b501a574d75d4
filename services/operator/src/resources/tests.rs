use std::path::PathBuf;

use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::*;

fn pipeline(workers: &Value) -> Result<(), String> {
    let mut spec = json!({
        "instance": "sekali",
        "gateway": {"service": "sekali"},
        "workers": {"deployment": "sekali-worker"},
    });
    for (name, value) in workers.as_object().unwrap() {
        spec["workers"][name] = value.clone();
    }
    let pipeline = Pipeline::new("sekali", serde_json::from_value(spec).unwrap());
    pipeline
        .validate_cel()
        .map_err(|errors| format!("{errors:?}"))
}

fn run(name: &str, spec: Value) -> ChaosRun {
    let mut run = ChaosRun::new(name, serde_json::from_value(spec).unwrap());
    run.metadata.namespace = Some("test".into());
    run
}

fn refused(result: Result<(), String>, message: &str) {
    let errors = result.expect_err(message);
    assert!(errors.contains(message), "{message}: {errors}");
}

#[test]
fn a_pipeline_has_bounds_that_can_be_kept() {
    pipeline(&json!({})).unwrap();
    pipeline(&json!({"min": 3, "max": 3, "targetLag": "1m30s"})).unwrap();
    for (workers, message) in [
        (json!({"min": 5}), "min must not be more than max"),
        (
            json!({"targetLag": "500ms"}),
            "targetLag must be from 1s to 1h",
        ),
        (
            json!({"targetLag": "2h"}),
            "targetLag must be from 1s to 1h",
        ),
        (
            json!({"quietPeriod": "25h"}),
            "quietPeriod must be at most 24h",
        ),
    ] {
        refused(pipeline(&workers), message);
    }
}

#[test]
fn a_run_can_be_meant() {
    let check = |name: &str, spec| {
        let run = run(name, spec);
        run.validate_cel().map_err(|errors| format!("{errors:?}"))
    };
    let fault = |every: &str| json!([{"target": "redis", "action": "kill", "every": every}]);
    check("smoke", json!({})).unwrap();
    check("smoke", json!({"faults": fault("1s")})).unwrap();
    for (name, spec, message) in [
        (
            "smoke",
            json!({"duplicates": 0.6, "conflicts": 0.5}),
            "together must be at most 0.99",
        ),
        (
            "smoke",
            json!({"publishers": 3, "events": 2}),
            "at least one for each publisher",
        ),
        (
            "smoke",
            json!({"deadline": "9s"}),
            "deadline must be from 10s to 24h",
        ),
        (
            "smoke",
            json!({"faults": fault("999ms")}),
            "every must be from 1s to 1h",
        ),
        (
            "smoke",
            json!({"faults": fault("61m")}),
            "every must be from 1s to 1h",
        ),
        (&"x".repeat(41), json!({}), "at most 40 characters"),
    ] {
        refused(check(name, spec), message);
    }
}

#[test]
fn a_run_can_not_be_changed() {
    let old = run("smoke", json!({"seed": 7}));
    let mut labelled = old.clone();
    labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    assert!(labelled.validate_cel_update(&old).is_ok());
    let changed = run("smoke", json!({"seed": 8}));
    let result = changed.validate_cel_update(&old);
    refused(
        result.map_err(|errors| format!("{errors:?}")),
        "a ChaosRun can't be changed",
    );
}

#[test]
fn the_defaults_are_those_in_the_documentation() {
    let run = run("smoke", json!({}));
    let ChaosRunSpec {
        pipeline,
        publishers,
        events,
        batch,
        deadline,
        ..
    } = run.spec;
    assert_eq!(
        (pipeline.as_str(), publishers, events),
        ("sekali", 1, 10_000)
    );
    assert_eq!((batch, deadline.to_string().as_str()), (100, "900s"));
}

#[test]
fn every_example_can_be_meant() {
    let in_words = DOCUMENTATION.split("```yaml\n").nth(1).unwrap();
    let in_words = in_words.split("```").next().unwrap();
    for text in [
        in_words,
        include_str!("../../../../k8s/examples/chaos-smoke.yaml"),
        include_str!("../../../../k8s/examples/chaos-everything.yaml"),
        include_str!("../../../../k8s/examples/chaos-rollout.yaml"),
    ] {
        let example: ChaosRun = serde_yaml::from_str(text).unwrap();
        example.validate_cel().unwrap();
        let said: Value = serde_yaml::from_str(text).unwrap();
        assert_eq!(said["kind"], "ChaosRun");
        // A name that is none would be left out without a word.
        let read = serde_json::to_value(&example).unwrap();
        for name in said["spec"].as_object().unwrap().keys() {
            assert!(!read["spec"][name].is_null(), "{name}: {text}");
        }
    }
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/examples");
    let files = std::fs::read_dir(directory).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let is_example = |path: &PathBuf| path.extension().is_some_and(|end| end == "yaml");
    assert_eq!(paths.filter(is_example).count(), 3);
}

const DOCUMENTATION: &str = include_str!("../../../../docs/operator.md");

/// The names of all fields, at whatever depth.
fn fields(schema: &Value, names: &mut Vec<String>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        names.push(name.clone());
        // What is in a condition is Kubernetes' own.
        if name != "conditions" {
            fields(schema, names);
            fields(&schema["items"], names);
        }
    }
}

#[test]
fn every_field_stands_in_the_documentation() {
    let quoted = DOCUMENTATION.split('`').skip(1).step_by(2);
    let words = quoted.flat_map(|quoted| quoted.split(['.', '[', ']', ' ']));
    let words: Vec<_> = words.collect();
    for definition in [Pipeline::crd(), ChaosRun::crd()] {
        let definition = serde_json::to_value(definition).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            let mut names = Vec::new();
            fields(&schema["properties"][part], &mut names);
            assert!(names.len() > 5, "{names:?}");
            for name in names.iter().filter(|&name| name != "conditions") {
                assert!(words.contains(&name.as_str()), "{name} of {part}");
            }
        }
    }
}
