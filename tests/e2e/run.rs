//! A ChaosRun, from its creation to its verdict.

use std::time::Instant;

use serde_json::{Value, json};

use crate::cluster::{Namespace, until};
use crate::release::Release;

/// A run that the namespace has until the value goes.
pub(crate) struct Run<'a> {
    namespace: &'a Namespace,
    name: &'a str,
}

impl<'a> Run<'a> {
    pub(crate) fn create(release: &'a Release, name: &'a str, spec: &Value) -> Self {
        let namespace = &release.namespace;
        namespace
            .apply(&run(name, spec).to_string(), &["--server-side"])
            .unwrap();
        Self { namespace, name }
    }

    pub(crate) fn get(&self) -> Value {
        self.namespace.get(&["chaosrun", self.name])
    }

    pub(crate) fn status(&self) -> Value {
        self.get()["status"].clone()
    }

    pub(crate) fn reaches(&self, phase: &str) {
        until(&format!("{} is {phase}", self.name), || {
            self.status()["phase"] == phase
        });
    }

    /// Its status, once it is over.
    #[expect(
        clippy::print_stdout,
        reason = "the run's figures, for whoever reads the log"
    )]
    pub(crate) fn over(&self) -> Value {
        let begun = Instant::now();
        let arguments = ["wait", "--for=condition=Complete", "--timeout=600s"];
        let name = format!("chaosrun/{}", self.name);
        self.namespace.kubectl(&[&arguments[..], &[&name]].concat());
        let status = self.status();
        println!(
            "{}: {} after {:.0} s: sent {}, expected {}, stored {}, duplicates {}, lost {}, doubled {}, faults {}, {} events/s, p99 {} ms",
            self.name,
            status["verdict"],
            begun.elapsed().as_secs_f64(),
            status["sent"],
            status["uniqueExpected"],
            status["uniqueStored"],
            status["duplicates"],
            status["lost"],
            status["doubled"],
            status["faults"],
            status["rate"],
            status["p99Milliseconds"],
        );
        status
    }

    pub(crate) fn passes(&self) -> Value {
        let status = self.over();
        assert_eq!(
            condition(&status, "Passed"),
            ("True", "PromiseKept"),
            "{status}"
        );
        assert_eq!(status["verdict"], "Passed");
        assert_eq!(
            (&status["lost"], &status["doubled"]),
            (&json!(0), &json!(0))
        );
        assert_eq!(status["uniqueExpected"], status["uniqueStored"], "{status}");
        status
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let _ = self
            .namespace
            .try_kubectl(&["delete", "chaosrun", self.name]);
    }
}

/// As it stands in a manifest.
pub(crate) fn run(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "sekali.dev/v1alpha1", "kind": "ChaosRun",
        "metadata": {"name": name}, "spec": spec,
    })
}

/// A condition's status and reason.
pub(crate) fn condition<'a>(status: &'a Value, type_: &str) -> (&'a str, &'a str) {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let found = conditions.clone().find(|one| one["type"] == type_);
    found.map_or(("", ""), |one| {
        (
            one["status"].as_str().unwrap(),
            one["reason"].as_str().unwrap(),
        )
    })
}
