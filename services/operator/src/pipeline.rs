//! The controller of Pipelines: look, decide, scale, say; but before it scales, what bounds how
//! soon it does so again.
//!
//! It looks every few seconds, since the queue tells nobody that it grows.

mod decide;
mod desired;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch};
use kube::core::GroupVersionKind;
use kube::runtime::controller::Action;
use kube::{Api, Resource as _, ResourceExt};
use serde_json::json;

use crate::conditions::{Aspect, REFUSED, Truth, find};
use crate::context::{Context, apply, list};
use crate::error::Error;
use crate::resources::{Pipeline, PipelineStatus};
use crate::time::now;
use decide::{BALANCED, Decision, READY, Replicas, SCALING, Seen, decide};

/// How often to look: half of what a grown queue may wait for more workers.
const PERIOD: Duration = Duration::from_secs(5);

/// Looks at a Pipeline, and does what follows from it.
pub(crate) async fn reconcile(pipeline: Pipeline, context: Arc<Context>) -> Result<Action, Error> {
    let pipelines = context.api::<Pipeline>();
    let name = pipeline.name_any();
    // What the watch holds may be older than what was written last.
    let read = pipelines.get_opt(&name).await;
    let Some(mut pipeline) = read.map_err(Error::doing("read the Pipeline"))? else {
        return Ok(Action::await_change());
    };
    if pipeline.spec.instance != context.instance || pipeline.metadata.deletion_timestamp.is_some()
    {
        return Ok(Action::await_change());
    }
    let looked = look(&mut pipeline, &context).await;
    if let Err(error) = &looked
        && error.is_refusal()
    {
        say_refused(&mut pipeline, error, &context).await;
    }
    looked
}

/// Leaves the Pipeline as it then is.
async fn look(pipeline: &mut Pipeline, context: &Context) -> Result<Action, Error> {
    let seen = observe(pipeline, context).await?;
    let Decision { scale, status } = decide(pipeline, &seen, now());
    if let Some(workers) = scale {
        spend_quiet(pipeline, &status, context).await?;
        rescale(pipeline, &seen, &status, workers, context).await?;
    }
    say(pipeline, &status, context).await?;
    Ok(Action::requeue(PERIOD))
}

/// A quiet period that is over stands in the status no more by the time that workers go: who
/// is killed between the two, or may not write, would let half of them go at each look.
async fn spend_quiet(
    pipeline: &mut Pipeline,
    decided: &PipelineStatus,
    context: &Context,
) -> Result<(), Error> {
    let Some(status) = pipeline.status.clone() else {
        return Ok(());
    };
    let status = PipelineStatus {
        quiet_since: decided.quiet_since.clone(),
        ..status
    };
    say(pipeline, &status, context).await
}

/// Writes a status that differs from the one that stands there.
async fn say(
    pipeline: &mut Pipeline,
    status: &PipelineStatus,
    context: &Context,
) -> Result<(), Error> {
    if pipeline.status.as_ref() != Some(status) {
        let written = context.write_status(pipeline, status).await?;
        tell(pipeline, status, context).await;
        *pipeline = written;
    }
    Ok(())
}

/// Whether it is ready is not known any more, and what stands there would go on saying so.
async fn say_refused(pipeline: &mut Pipeline, error: &Error, context: &Context) {
    let mut status = pipeline.status.clone().unwrap_or_default();
    let aspect = Aspect::new(READY, Truth::Unknown, REFUSED, error.to_string());
    aspect.enter(&mut status.conditions, pipeline.metadata.generation, now());
    if let Err(error) = say(pipeline, &status, context).await {
        tracing::warn!(pipeline = pipeline.name_any(), %error, "a refusal can't be told");
    }
}

async fn observe(pipeline: &Pipeline, context: &Context) -> Result<Seen, Error> {
    let deployment = &pipeline.spec.workers.deployment;
    let gateway = context
        .gateways
        .of(&context.namespace, &pipeline.spec.gateway);
    let workers = async {
        let found = context.api::<Deployment>().get_opt(deployment).await;
        let found = found.map_err(Error::doing("read the workers' Deployment"))?;
        Ok::<_, Error>(found.map(|found| replicas(&found)))
    };
    let (workers, owner, older, books) = tokio::join!(
        workers,
        owner(deployment, context),
        older(pipeline, context),
        gateway.books(),
    );
    Ok(Seen {
        workers: workers?,
        owner: owner?,
        older: older?,
        books: books.map_err(|error| error.to_string()),
    })
}

fn replicas(deployment: &Deployment) -> Replicas {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let ready = deployment
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas);
    Replicas {
        // What the API server makes of none.
        wanted: wanted.unwrap_or(1),
        ready: ready.unwrap_or(0),
    }
}

/// What else scales a Deployment.
async fn owner(deployment: &str, context: &Context) -> Result<Option<String>, Error> {
    let all = ListParams::default();
    let autoscalers = context.api::<HorizontalPodAutoscaler>().list(&all).await;
    let autoscalers = autoscalers.map_err(Error::doing("list the HorizontalPodAutoscalers"))?;
    for one in &autoscalers {
        let target = &one.spec.scale_target_ref;
        if target.kind == "Deployment" && target.name == deployment {
            return Ok(Some(format!(
                "the HorizontalPodAutoscaler {}",
                one.name_any()
            )));
        }
    }
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "keda.sh",
        "v1alpha1",
        "ScaledObject",
    ));
    let keda =
        Api::<DynamicObject>::namespaced_with(context.client.clone(), &context.namespace, &kind);
    let objects = match keda.list(&all).await {
        Ok(objects) => objects,
        // There is no KEDA.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(Error::doing("list the ScaledObjects")(error)),
    };
    let is_of = |one: &&DynamicObject| {
        let target = &one.data["spec"]["scaleTargetRef"];
        target["name"] == deployment && matches!(target["kind"].as_str(), None | Some("Deployment"))
    };
    let found = objects.iter().find(is_of);
    Ok(found.map(|one| format!("the ScaledObject {}", one.name_any())))
}

/// A Pipeline that was there before and claims the same workers.
async fn older(pipeline: &Pipeline, context: &Context) -> Result<Option<String>, Error> {
    let all = list(&context.api::<Pipeline>()).await;
    let all = all.map_err(Error::doing("list the Pipelines"))?;
    let age = |one: &Pipeline| (one.creation_timestamp().map(|time| time.0), one.name_any());
    let claims = |one: &&Pipeline| {
        one.spec.workers.deployment == pipeline.spec.workers.deployment && age(one) < age(pipeline)
    };
    Ok(all.iter().find(claims).map(ResourceExt::name_any))
}

async fn rescale(
    pipeline: &Pipeline,
    seen: &Seen,
    status: &PipelineStatus,
    workers: i32,
    context: &Context,
) -> Result<(), Error> {
    let deployment = &pipeline.spec.workers.deployment;
    let before = seen.workers.map_or(0, |workers| workers.wanted);
    let scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": deployment},
        "spec": {"replicas": workers},
    });
    context.metrics.write("scale");
    let deployments = context.api::<Deployment>();
    let patched = deployments
        .patch_scale(deployment, &apply(), &Patch::Apply(&scale))
        .await;
    patched.map_err(Error::doing("scale the workers"))?;
    let direction = if workers > before { "up" } else { "down" };
    context
        .metrics
        .scalings
        .with_label_values(&[direction])
        .inc();
    let queue = status.queue.unwrap_or_default();
    let lag = status.lag.as_deref().unwrap_or("0s");
    let note =
        format!("from {before} to {workers} workers: {queue} events queued, the oldest {lag} ago");
    tracing::info!(pipeline = pipeline.name_any(), note, "scaled");
    context
        .tell(&pipeline.object_ref(&()), true, "Scale", "Scaled", note)
        .await;
    Ok(())
}

/// Of what became true or false.
async fn tell(pipeline: &Pipeline, status: &PipelineStatus, context: &Context) {
    let before = pipeline.status.as_ref();
    for type_ in [READY, BALANCED, SCALING] {
        let then = before.and_then(|before| find(&before.conditions, type_));
        let Some(now) = find(&status.conditions, type_) else {
            continue;
        };
        if then.map(|then| &then.status) == Some(&now.status) {
            continue;
        }
        let is_good = now.status == "True" || now.reason == "Paused";
        let note = format!("{type_} is {}: {}", now.status, now.message);
        context
            .tell(&pipeline.object_ref(&()), is_good, type_, &now.reason, note)
            .await;
    }
}

#[cfg(test)]
mod tests;
