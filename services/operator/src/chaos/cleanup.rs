//! What a run leaves behind is nothing: no Job that sends, no topic.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PropagationPolicy};
use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};

use super::decide::CLEANING;
use super::job::topic_prefix;
use super::observe::{has_ended, own, run_pods};
use super::{PERIOD, hold, is_held};
use crate::context::Context;
use crate::error::Error;
use crate::gateway::{Gateway, GatewayError};
use crate::resources::{ChaosRun, Pipeline};
use crate::time::{elapsed, now};

/// How long to wait for the queue to be empty: what is still in it would make a topic anew.
/// Others may fill it without an end, so the topics are deleted then, again and again for as long
/// as the clean-up may take.
const QUEUE: Duration = Duration::from_mins(1);

/// Ends what still sends and deletes the topics. Says what is left to do, and why if that
/// can't be done: who asks has a bound on how long to try. Done twice, it does nothing.
pub(super) async fn clean(
    run: &ChaosRun,
    pipeline: Option<&Pipeline>,
    context: &Context,
) -> Result<(), String> {
    let since = run.metadata.deletion_timestamp.as_ref();
    let since = since.or(run
        .status
        .as_ref()
        .and_then(|status| status.ended_at.as_ref()));
    let since = since.map_or_else(now, |time| time.0);
    let ended = end_publishers(run, context).await;
    ended.unwrap_or_else(|error| Err(failed(run, &error, context)))?;
    if run.spec.keep_events {
        return Ok(());
    }
    let Some(pipeline) = pipeline else {
        let name = &run.spec.pipeline;
        return Err(format!("there is no Pipeline {name} to delete topics of"));
    };
    let gateway = context
        .gateways
        .of(&context.namespace, &pipeline.spec.gateway);
    let deleted = delete_topics(&gateway, &topic_prefix(run), since).await;
    deleted.unwrap_or_else(|error| Err(error.to_string()))
}

/// The look goes on, so this is where the failure is told and counted.
fn failed(run: &ChaosRun, error: &Error, context: &Context) -> String {
    let (kind, class) = (ChaosRun::kind(&()), error.class());
    let failures = &context.metrics.failures;
    failures.with_label_values(&[&*kind, class]).inc();
    lifecycle::seldom!(warn, run = run.name_any(), %error, "a run can't be cleaned up after");
    error.to_string()
}

/// Of a run that is being deleted: cleans up for as long as that may take, and lets it go.
pub(super) async fn retire(
    run: &ChaosRun,
    pipeline: Option<&Pipeline>,
    context: &Context,
) -> Result<Action, Error> {
    if !is_held(run) {
        return Ok(Action::await_change());
    }
    let since = run
        .metadata
        .deletion_timestamp
        .as_ref()
        .map_or_else(now, |time| time.0);
    if let Err(why) = clean(run, pipeline, context).await {
        if elapsed(since, now()) < CLEANING {
            return Ok(Action::requeue(PERIOD));
        }
        tracing::warn!(
            run = run.name_any(),
            why,
            "a deleted run leaves something behind"
        );
    }
    hold(run, false, context).await?;
    Ok(Action::await_change())
}

async fn end_publishers(run: &ChaosRun, context: &Context) -> Result<Result<(), String>, Error> {
    let jobs = context.api::<Job>();
    let all = jobs.list(&own(run)).await;
    let all = all.map_err(Error::doing("list the publishers' Jobs"))?;
    for job in all.iter().filter(|job| !has_ended(job)) {
        if job.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        context.metrics.write("job");
        match jobs.delete(&job.name_any(), &parameters).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(Error::doing("delete a publisher's Job")(error)),
        }
    }
    let pods = run_pods(run, context).await?;
    let is_alive = |phase: Option<&str>| !matches!(phase, Some("Succeeded" | "Failed"));
    let alive = pods.iter().filter(|pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        is_alive(phase)
    });
    Ok(match alive.count() {
        0 => Ok(()),
        count => Err(format!("{count} publishers still end")),
    })
}

async fn delete_topics(
    gateway: &Gateway,
    prefix: &str,
    since: Timestamp,
) -> Result<Result<(), String>, GatewayError> {
    let is_queued = gateway.books().await?.queue_depth > 0;
    if !is_queued || elapsed(since, now()) >= QUEUE {
        for topic in gateway.topics(prefix).await? {
            gateway.delete(&topic).await?;
        }
    }
    Ok(if is_queued {
        // How many would be another status at every look.
        Err("events are still queued, which may make its topics anew".into())
    } else {
        Ok(())
    })
}
