//! What there is of a run.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;

use super::cleanup;
use super::decide::{Obstacle, Publisher, Seen};
use super::job::{CONTAINER, RUN_LABEL, names};
use super::phase;
use super::report;
use super::schedule::Victim;
use super::verdict::Outcome;
use crate::conditions::find;
use crate::context::{Context, is_disabled, list};
use crate::error::Error;
use crate::resources::{ChaosRun, Phase, Pipeline, Target};

/// What the chart calls the components in the label of that name.
const COMPONENT: &str = "app.kubernetes.io/component";
const INSTANCE: &str = "app.kubernetes.io/instance";

pub(super) async fn observe(
    run: &ChaosRun,
    pipeline: Option<&Pipeline>,
    context: &Context,
) -> Result<Seen, Error> {
    let mut seen = Seen {
        refused: None,
        obstacle: None,
        publishers: Vec::new(),
        victims: Vec::new(),
        cleaned: Ok(()),
    };
    match phase(run) {
        Phase::Pending => seen.obstacle = obstacle(run, pipeline, context).await?,
        Phase::Starting | Phase::Running => {
            seen.publishers = publishers(run, context).await?;
            if let Some(pipeline) = pipeline
                && !run.spec.faults.is_empty()
            {
                seen.victims = victims(pipeline, context).await?;
            }
        }
        Phase::Cleaning => seen.cleaned = cleanup::clean(run, pipeline, context).await,
        Phase::Complete => {}
    }
    Ok(seen)
}

/// Why a run can't begin yet. One at a time: the faults of another are not its own.
async fn obstacle(
    run: &ChaosRun,
    pipeline: Option<&Pipeline>,
    context: &Context,
) -> Result<Option<Obstacle>, Error> {
    let name = &run.spec.pipeline;
    let obstacle = |reason, message| Ok(Some(Obstacle { reason, message }));
    let Some(pipeline) = pipeline else {
        return obstacle("NoPipeline", format!("there is no Pipeline {name}"));
    };
    let status = pipeline.status.as_ref();
    let ready = status.and_then(|status| find(&status.conditions, "Ready"));
    match ready {
        Some(ready) if ready.status == "True" && ready.reason != "Paused" => {}
        Some(ready) => {
            let message = format!("the Pipeline {name} is not ready: {}", ready.message);
            return obstacle("PipelineNotReady", message);
        }
        None => {
            let message = format!("nobody has looked at the Pipeline {name} yet");
            return obstacle("PipelineNotReady", message);
        }
    }
    let all = list(&context.api::<ChaosRun>()).await;
    let all = all.map_err(Error::doing("list the ChaosRuns"))?;
    if let Some(other) = all.iter().find(|other| goes_first(other, run)) {
        let message = format!("the ChaosRun {} goes first", other.name_any());
        return obstacle("Waiting", message);
    }
    Ok(None)
}

fn goes_first(other: &ChaosRun, run: &ChaosRun) -> bool {
    let age = |one: &ChaosRun| (one.creation_timestamp().map(|time| time.0), one.name_any());
    if other.spec.pipeline != run.spec.pipeline || other.uid() == run.uid() {
        return false;
    }
    match phase(other) {
        Phase::Starting | Phase::Running | Phase::Cleaning => true,
        // Nobody looks at one that is to be left alone: it would go first for ever.
        Phase::Pending => !is_disabled(other) && age(other) < age(run),
        Phase::Complete => false,
    }
}

async fn publishers(run: &ChaosRun, context: &Context) -> Result<Vec<Publisher>, Error> {
    let own = own(run);
    let jobs = context.api::<Job>().list(&own).await;
    let jobs = jobs.map_err(Error::doing("list the publishers' Jobs"))?;
    let jobs: BTreeMap<_, _> = jobs.into_iter().map(|job| (job.name_any(), job)).collect();
    let mut pods = None;
    let mut publishers = Vec::new();
    for name in names(run) {
        publishers.push(match jobs.get(&name) {
            None => Publisher::Missing,
            Some(job) if has_ended(job) => {
                let pods = match &pods {
                    Some(pods) => pods,
                    None => pods.insert(run_pods(run, context).await?),
                };
                Publisher::Ended(outcome(job, pods))
            }
            Some(job) if is_running(job) => Publisher::Running,
            Some(_) => Publisher::Starting,
        });
    }
    Ok(publishers)
}

/// The pods of a run's Jobs.
pub(super) async fn run_pods(run: &ChaosRun, context: &Context) -> Result<Vec<Pod>, Error> {
    let pods = context.api::<Pod>().list(&own(run)).await;
    Ok(pods
        .map_err(Error::doing("list the publishers' pods"))?
        .items)
}

/// What is a run's own.
pub(super) fn own(run: &ChaosRun) -> ListParams {
    ListParams::default().labels(&format!("{RUN_LABEL}={}", run.name_any()))
}

pub(super) fn has_ended(job: &Job) -> bool {
    let conditions = job
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        let ends = |type_: &str| ["Complete", "Failed"].contains(&type_);
        all.iter()
            .any(|one| one.status == "True" && ends(&one.type_))
    })
}

fn is_running(job: &Job) -> bool {
    let ready = job.status.as_ref().and_then(|status| status.ready);
    ready.is_some_and(|ready| ready > 0)
}

/// What the termination message of its pod's publisher says.
fn outcome(job: &Job, pods: &[Pod]) -> Outcome {
    let name = job.name_any();
    let of_job = |pod: &&Pod| pod.labels().get("batch.kubernetes.io/job-name") == Some(&name);
    let message = pods.iter().filter(of_job).find_map(|pod| {
        let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
        let own = containers.iter().filter(|one| one.name == CONTAINER);
        let states = own.filter_map(|one| one.state.as_ref()?.terminated.as_ref());
        let mut messages = states.filter_map(|state| state.message.as_ref());
        messages.find(|message| !message.trim().is_empty())
    });
    match message {
        Some(message) => report::parse(message),
        None => Err(format!("the Job {name} ended without a report")),
    }
}

/// The pods that faults may hit.
async fn victims(pipeline: &Pipeline, context: &Context) -> Result<Vec<Victim>, Error> {
    let of_instance = format!("{INSTANCE}={}", pipeline.spec.instance);
    let pods = context
        .api::<Pod>()
        .list(&ListParams::default().labels(&of_instance))
        .await;
    let pods = pods.map_err(Error::doing("list the installation's pods"))?;
    Ok(pods.iter().filter_map(victim).collect())
}

fn victim(pod: &Pod) -> Option<Victim> {
    let target = match pod.labels().get(COMPONENT)?.as_str() {
        "aggregator" => Target::Aggregator,
        "worker" => Target::Worker,
        "redis" => Target::Redis,
        "postgresql" => Target::Postgres,
        _ => return None,
    };
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let is_ready = conditions
        .iter()
        .any(|one| one.type_ == "Ready" && one.status == "True");
    (is_ready && pod.metadata.deletion_timestamp.is_none()).then(|| Victim {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        target,
    })
}
