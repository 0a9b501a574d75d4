//! The Jobs that send the load. Pure: from a run and a template to objects.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::core::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};

use crate::gateway::as_float;
use crate::resources::{ChaosRun, ChaosRunSpec, GatewayRef, Ids};

/// On the Jobs and pods of a run: its name.
pub(crate) const RUN_LABEL: &str = "sekali.dev/chaosrun";

/// The container of the template that is the publisher.
pub(super) const CONTAINER: &str = "publisher";

/// Where Kubernetes reads the termination message.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Seeds have so many bits, which every reader of JSON reads as they were meant.
const SEED_MASK: u64 = (1 << 53) - 1;

/// The operator ends a run at its deadline; should it be gone then, the Job ends itself.
const BACKSTOP: Duration = Duration::from_mins(1);

/// How a publisher's pod looks, apart from what it sends.
#[derive(Debug, Clone)]
pub(crate) struct Template(PodTemplateSpec);

impl Template {
    /// Reads a pod template in YAML. Arguments that its container `publisher` has are kept.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).context("read it")?;
        Self::parse(&text)
    }

    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let template: PodTemplateSpec = serde_yaml::from_str(text)
            .map_err(|error| anyhow!("it is no pod template: {error}"))?;
        let spec = template.spec.as_ref().context("it has no spec")?;
        let publishers = spec.containers.iter().filter(|one| one.name == CONTAINER);
        ensure!(
            publishers.count() == 1,
            "it needs one container called {CONTAINER}"
        );
        Ok(Self(template))
    }
}

/// What the names of the run's Jobs and topics begin with. The uid is in it, so that a later
/// run of the same name meets nothing of this one.
pub(crate) fn prefix(run: &ChaosRun) -> String {
    let uid = run.uid().unwrap_or_default();
    let uid: String = uid
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(8)
        .collect();
    format!("{}-{uid}-", run.name_any())
}

/// The names of its Jobs. A publisher's run has the name of its Job.
pub(crate) fn names(run: &ChaosRun) -> Vec<String> {
    let prefix = prefix(run);
    (0..run.spec.publishers)
        .map(|number| format!("{prefix}{number}"))
        .collect()
}

/// What all its topics begin with, as the publisher names them.
pub(crate) fn topic_prefix(run: &ChaosRun) -> String {
    format!("run-{}", prefix(run))
}

/// The seed of a run that names none.
pub(crate) fn seed(run: &ChaosRun) -> i64 {
    run.spec.seed.unwrap_or_else(|| {
        // FNV-1a, the same for ever: an operator that comes later sends the same.
        let uid = run.uid().unwrap_or_default();
        let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash & SEED_MASK).cast_signed()
    })
}

/// The Jobs of a run, in the order of their numbers.
pub(crate) fn jobs(run: &ChaosRun, gateway: &GatewayRef, template: &Template) -> Vec<Job> {
    names(run)
        .into_iter()
        .zip(0..)
        .map(|(name, number)| job(run, &name, number, gateway, template))
        .collect()
}

fn job(run: &ChaosRun, name: &str, number: i32, gateway: &GatewayRef, template: &Template) -> Job {
    let label = (RUN_LABEL.to_owned(), run.name_any());
    let mut template = template.0.clone();
    template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default()
        .insert(label.0.clone(), label.1.clone());
    let pod = template.spec.get_or_insert_default();
    pod.restart_policy = Some("Never".into());
    for container in &mut pod.containers {
        if container.name == CONTAINER {
            let told = arguments(&run.spec, name, number, seed(run), gateway);
            container.args.get_or_insert_default().extend(told);
            container.termination_message_path = Some(TERMINATION_LOG.into());
            container.termination_message_policy = Some("File".into());
        }
    }
    let deadline = Duration::from(run.spec.deadline) + BACKSTOP;
    Job {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: run.namespace(),
            labels: Some(BTreeMap::from([label])),
            owner_references: run.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            // One that is started again would send its load again, and its verdict would be
            // about something else.
            backoff_limit: Some(0),
            active_deadline_seconds: i64::try_from(deadline.as_secs()).ok(),
            template,
            ..JobSpec::default()
        }),
        status: None,
    }
}

fn arguments(
    spec: &ChaosRunSpec,
    name: &str,
    number: i32,
    seed: i64,
    gateway: &GatewayRef,
) -> Vec<String> {
    let publishers = i64::from(spec.publishers);
    let rest = i64::from(i64::from(number) < spec.events % publishers);
    let events = spec.events / publishers + rest;
    let seed = (seed.cast_unsigned() + u64::from(number.cast_unsigned())) & SEED_MASK;
    let patience = Duration::from(spec.deadline).as_secs();
    let ids = match spec.ids {
        Ids::V4 => "v4",
        Ids::V7 => "v7",
        Ids::Text => "text",
    };
    let GatewayRef { service, port } = gateway;
    // The uid is in the name: there can be nothing of it yet.
    let mut arguments = vec!["--verify".to_owned(), "--new".to_owned()];
    let mut flag = |name: &str, value: String| arguments.push(format!("--{name}={value}"));
    flag("target-url", format!("http://{service}:{port}"));
    flag("run", name.into());
    flag("seed", seed.to_string());
    flag("events", events.to_string());
    flag("duplicates", spec.duplicates.to_string());
    flag("conflicts", spec.conflicts.to_string());
    flag("malformed", spec.malformed.to_string());
    flag("batch", spec.batch.to_string());
    flag("ids", ids.into());
    flag("rate", share(spec.rate, publishers));
    // The run's deadline is the only one.
    flag("max-retry-seconds", patience.to_string());
    flag("queue-wait-seconds", patience.to_string());
    flag("report", TERMINATION_LOG.into());
    arguments
}

fn share(rate: i64, publishers: i64) -> String {
    (as_float(rate) / as_float(publishers)).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEMPLATE: &str = "
metadata:
  labels: {app.kubernetes.io/component: publisher}
spec:
  automountServiceAccountToken: false
  containers:
    - name: publisher
      image: sekali:1
      command: [sekali-publisher]
      args: [--api-key-file=/key]
";

    fn run(spec: serde_json::Value) -> ChaosRun {
        let mut run = ChaosRun::new("smoke", serde_json::from_value(spec).unwrap());
        run.metadata.uid = Some("1a2b3c4d-0000-0000-0000-000000000000".into());
        run.metadata.namespace = Some("test".into());
        run
    }

    fn gateway() -> GatewayRef {
        GatewayRef {
            service: "sekali".into(),
            port: 8080,
        }
    }

    fn all(spec: serde_json::Value) -> Vec<Job> {
        jobs(&run(spec), &gateway(), &Template::parse(TEMPLATE).unwrap())
    }

    fn arguments_of(job: &Job) -> Vec<String> {
        let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        pod.containers[0].args.clone().unwrap()
    }

    #[test]
    fn the_load_is_shared_out_to_the_last_event() {
        let jobs = all(json!({"publishers": 3, "events": 1_000, "rate": 300, "seed": 7}));
        let mut events = 0;
        for (number, job) in jobs.iter().enumerate() {
            let name = format!("smoke-1a2b3c4d-{number}");
            assert_eq!(job.metadata.name.as_ref(), Some(&name));
            let arguments = arguments_of(job);
            assert_eq!(arguments[0], "--api-key-file=/key");
            // With an earlier run thought possible, an event may be taken any number of times.
            assert!(arguments.iter().any(|one| one == "--new"));
            let value = |flag: &str| {
                let flag = format!("--{flag}=");
                let value = arguments.iter().find_map(|one| one.strip_prefix(&flag));
                value.unwrap_or_else(|| panic!("{flag}: {arguments:?}"))
            };
            events += value("events").parse::<i64>().unwrap();
            assert_eq!(value("seed"), (7 + number).to_string());
            assert_eq!(value("rate"), "100");
            assert_eq!(value("run"), name);
            assert_eq!(value("target-url"), "http://sekali:8080");
            assert_eq!(value("report"), "/dev/termination-log");
        }
        assert_eq!(events, 1_000);
    }

    #[test]
    fn a_job_runs_once_and_goes_with_its_run() {
        let job = &all(json!({"deadline": "5m"}))[0];
        let spec = job.spec.as_ref().unwrap();
        assert_eq!(spec.backoff_limit, Some(0));
        assert_eq!(spec.active_deadline_seconds, Some(360));
        let owner = &job.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.name.as_str()),
            ("ChaosRun", "smoke")
        );
        let pod = &spec.template;
        let labels = pod.metadata.as_ref().unwrap().labels.as_ref().unwrap();
        assert_eq!(labels["app.kubernetes.io/component"], "publisher");
        assert_eq!(labels[RUN_LABEL], "smoke");
        let pod = pod.spec.as_ref().unwrap();
        assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
        assert_eq!(pod.automount_service_account_token, Some(false));
    }

    #[test]
    fn a_seed_that_is_not_named_follows_from_the_uid() {
        let one = run(json!({}));
        let mut other = one.clone();
        assert_eq!(seed(&one), seed(&other));
        other.metadata.uid = Some("ffffffff-0000-0000-0000-000000000000".into());
        assert_ne!(seed(&one), seed(&other));
        assert!((0..=9_007_199_254_740_991).contains(&seed(&one)));
        assert_eq!(seed(&run(json!({"seed": 7}))), 7);
    }

    #[test]
    fn a_template_that_can_not_be_used_is_refused_with_a_reason() {
        for (text, reason) in [
            ("[", "no pod template"),
            ("metadata: {}", "no spec"),
            ("spec: {containers: []}", "one container called publisher"),
            (
                "spec: {containers: [{name: a}]}",
                "one container called publisher",
            ),
        ] {
            let error = format!("{:#}", Template::parse(text).unwrap_err());
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
