//! The controller of ChaosRuns: do what the status says is to be done, look, decide, say.

mod cleanup;
mod decide;
mod job;
mod observe;
mod report;
mod schedule;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PostParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use crate::conditions::{Aspect, REFUSED, find};
use crate::context::{Context, apply};
use crate::error::Error;
use crate::resources::{
    ChaosRun, ChaosRunStatus, FaultAction, Injection, Phase, Pipeline, Target, Verdict,
};
use crate::time::now;
use decide::{COMPLETE, decide, is_late};
use verdict::PASSED;

pub(crate) use job::Template;

/// While this stands on a run, deleting it first ends its Jobs and removes its topics. To do
/// without: `kubectl patch chaosrun NAME --type=merge -p '{"metadata":{"finalizers":null}}'`.
pub(crate) const FINALIZER: &str = "sekali.dev/chaosrun";

/// How often to look while it runs: faults come at most so late.
const PERIOD: Duration = Duration::from_secs(1);

/// How often to look whether it can begin.
const PENDING_PERIOD: Duration = Duration::from_secs(5);

/// What a pod of a StatefulSet is left. None at all takes the pod's name away while its
/// process still ends, and its successor would open the same files.
const STATEFUL_GRACE: u32 = 1;

/// Looks at a run, and does what follows from it.
pub(crate) async fn reconcile(run: ChaosRun, context: Arc<Context>) -> Result<Action, Error> {
    let runs = context.api::<ChaosRun>();
    // What the watch holds may be older than what was written last.
    let read = runs.get_opt(&run.name_any()).await;
    let Some(mut run) = read.map_err(Error::doing("read the ChaosRun"))? else {
        return Ok(Action::await_change());
    };
    let pipeline = context.api::<Pipeline>().get_opt(&run.spec.pipeline).await;
    let pipeline = pipeline.map_err(Error::doing("read the Pipeline"))?;
    if pipeline
        .as_ref()
        .is_some_and(|one| one.spec.instance != context.instance)
    {
        return Ok(Action::await_change());
    }
    let looked = look(&mut run, pipeline.as_ref(), &context).await;
    if let Err(error) = &looked
        && error.is_refusal()
    {
        say_refused(&run, error, &context).await;
    }
    looked
}

/// Leaves the run as it then is.
async fn look(
    run: &mut ChaosRun,
    pipeline: Option<&Pipeline>,
    context: &Context,
) -> Result<Action, Error> {
    if run.metadata.deletion_timestamp.is_some() {
        return cleanup::retire(run, pipeline, context).await;
    }
    let before = phase(run);
    // What can't be done holds up neither the deadline nor the verdict.
    let acted = act(run, pipeline, context).await;
    let mut seen = observe::observe(run, pipeline, context).await?;
    let refusal = acted.as_ref().err().filter(|error| error.is_refusal());
    seen.refused = refusal.map(ToString::to_string);
    let status = decide(run, &seen, now());
    if !matches!(status.phase, Phase::Pending | Phase::Complete) && !is_held(run) {
        *run = hold(run, true, context).await?;
    }
    if run.status.as_ref() != Some(&status) {
        let written = context.write_status(run, &status).await?;
        tell(run, &status, context).await;
        *run = written;
    }
    if status.phase == Phase::Complete && is_held(run) {
        hold(run, false, context).await?;
    }
    acted?;
    Ok(next(before, &status))
}

fn phase(run: &ChaosRun) -> Phase {
    let status = run.status.as_ref();
    status.map(|status| status.phase).unwrap_or_default()
}

fn next(before: Phase, status: &ChaosRunStatus) -> Action {
    let is_due = status.injected.iter().any(|one| !one.done);
    match status.phase {
        Phase::Complete => Action::await_change(),
        Phase::Pending => Action::requeue(PENDING_PERIOD),
        // What a phase begins with is to be done now.
        phase if phase != before => Action::requeue(Duration::ZERO),
        Phase::Running if is_due => Action::requeue(Duration::ZERO),
        Phase::Starting | Phase::Running | Phase::Cleaning => Action::requeue(PERIOD),
    }
}

/// Why it does not go on; what stands there would tell of a run that does.
async fn say_refused(run: &ChaosRun, error: &Error, context: &Context) {
    let mut status = run.status.clone().unwrap_or_default();
    if status.phase == Phase::Complete {
        return;
    }
    let aspect = Aspect::new(COMPLETE, false, REFUSED, error.to_string());
    aspect.enter(&mut status.conditions, run.metadata.generation, now());
    if run.status.as_ref() != Some(&status)
        && let Err(error) = context.write_status(run, &status).await
    {
        tracing::warn!(run = run.name_any(), %error, "a refusal can't be told");
    }
}

/// Does what the status says is to be done.
async fn act(
    run: &mut ChaosRun,
    pipeline: Option<&Pipeline>,
    context: &Context,
) -> Result<(), Error> {
    match (phase(run), pipeline) {
        (Phase::Starting, Some(pipeline)) if !is_late(run, now()) => {
            create_jobs(run, pipeline, context).await
        }
        (Phase::Running, _) => finish_injections(run, context).await,
        _ => Ok(()),
    }
}

/// Does what was decided before. Whoever did it already, perhaps this operator before it was
/// killed, left no pod with that uid.
async fn finish_injections(run: &mut ChaosRun, context: &Context) -> Result<(), Error> {
    let reference = run.object_ref(&());
    let Some(status) = &mut run.status else {
        return Ok(());
    };
    for injection in status.injected.iter_mut().filter(|one| !one.done) {
        let has_hit = inject(injection, context).await?;
        injection.done = true;
        if !has_hit {
            continue;
        }
        let Injection {
            target,
            action,
            pod,
            ..
        } = &injection;
        let (target, action) = (word(target), word(action));
        context
            .metrics
            .faults
            .with_label_values(&[&target, &action])
            .inc();
        let note = format!("{action} of the {target} {pod}");
        tracing::info!(run = reference.name, note, "injected a fault");
        context
            .tell(&reference, true, "Inject", "FaultInjected", note)
            .await;
    }
    Ok(())
}

/// Says whether this deleted the pod.
async fn inject(injection: &Injection, context: &Context) -> Result<bool, Error> {
    let grace = match (injection.action, injection.target) {
        (FaultAction::Terminate, _) => None,
        (FaultAction::Kill, Target::Aggregator | Target::Worker) => Some(0),
        (FaultAction::Kill, Target::Redis | Target::Postgres) => Some(STATEFUL_GRACE),
    };
    let parameters = DeleteParams {
        grace_period_seconds: grace,
        preconditions: Some(Preconditions {
            uid: Some(injection.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    context.metrics.write("pod");
    match context
        .api::<Pod>()
        .delete(&injection.pod, &parameters)
        .await
    {
        Ok(_) => Ok(true),
        // It is gone, or another has its name.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(false),
        Err(error) => Err(Error::doing("delete a pod")(error)),
    }
}

async fn create_jobs(run: &ChaosRun, pipeline: &Pipeline, context: &Context) -> Result<(), Error> {
    let jobs: Api<Job> = context.api();
    for job in job::jobs(run, &pipeline.spec.gateway, &context.template) {
        context.metrics.write("job");
        match jobs.create(&PostParams::default(), &job).await {
            Ok(_) => {}
            // Its name holds the run's uid: it is the run's own.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(Error::doing("create a publisher's Job")(error)),
        }
    }
    Ok(())
}

pub(crate) fn is_held(run: &ChaosRun) -> bool {
    run.finalizers().iter().any(|one| one == FINALIZER)
}

/// Puts the finalizer on a run, or takes it away.
async fn hold(run: &ChaosRun, is_held: bool, context: &Context) -> Result<ChaosRun, Error> {
    let finalizers: &[&str] = if is_held { &[FINALIZER] } else { &[] };
    let patch = json!({
        "apiVersion": ChaosRun::api_version(&()),
        "kind": ChaosRun::kind(&()),
        "metadata": {"name": run.name_any(), "uid": run.uid(), "finalizers": finalizers},
    });
    context.metrics.write("finalizer");
    let runs = context.api::<ChaosRun>();
    let patched = runs
        .patch(&run.name_any(), &apply(), &Patch::Apply(&patch))
        .await;
    patched.map_err(Error::doing("change the finalizer"))
}

/// Of a new phase, and of the verdict.
async fn tell(run: &ChaosRun, status: &ChaosRunStatus, context: &Context) {
    let before = run.status.clone().unwrap_or_default();
    let reference = run.object_ref(&());
    let name = run.name_any();
    if before.phase != status.phase {
        let phase = format!("{:?}", status.phase);
        let complete = find(&status.conditions, COMPLETE);
        let message = complete.map(|one| one.message.clone()).unwrap_or_default();
        tracing::info!(run = name, phase, message, "the run goes on");
        context
            .tell(&reference, true, "Proceed", &phase, message)
            .await;
    }
    if before.verdict != status.verdict
        && let (Some(verdict), Some(passed)) = (status.verdict, find(&status.conditions, PASSED))
    {
        let is_good = verdict == Verdict::Passed;
        context
            .metrics
            .chaos_runs
            .with_label_values(&[&word(&verdict)])
            .inc();
        tracing::info!(
            run = name,
            ?verdict,
            reason = passed.reason,
            "the run has a verdict"
        );
        context
            .tell(
                &reference,
                is_good,
                "Judge",
                &passed.reason,
                passed.message.clone(),
            )
            .await;
    }
}

/// As it stands in the resource.
fn word(of: &impl std::fmt::Debug) -> String {
    format!("{of:?}").to_lowercase()
}

#[cfg(test)]
mod tests;
