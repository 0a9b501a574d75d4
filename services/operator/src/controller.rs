//! The loop around a reconciler.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, Config, Controller};
use kube::runtime::{Predicate as _, WatchStreamExt as _, predicates, reflector, watcher};
use kube::{Resource, ResourceExt as _};
use lifecycle::CancellationToken;
use serde::de::DeserializeOwned;

use crate::context::{Context, is_disabled};
use crate::error::Error;

/// How many resources of a kind are looked at at once.
const CONCURRENCY: u16 = 4;

/// Changes that follow each other faster are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// How long a look may take: less than a drain has, which waits for it and leaves the Lease to
/// others then. What is cut off is made again, from where it was. An API server that does not
/// answer would hold it for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at each resource of a kind when its spec changes and when the reconciler asks for
/// it, until the shutdown; what is under way then is finished.
pub(crate) async fn run<K, R, F>(context: Arc<Context>, shutdown: CancellationToken, reconcile: R)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    R: Fn(K, Arc<Context>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let api = context.api::<DeserializeGuard<K>>();
    let (reader, writer) = reflector::store();
    // The operator's own writes to a status are no change.
    let changes = predicates::generation
        .combine(predicates::annotations)
        .combine(predicates::finalizers);
    let stream = watcher(api, watcher::Config::default().any_semantic())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(changes, kube::runtime::PredicateConfig::default());
    let look = move |object: Arc<DeserializeGuard<K>>, context: Arc<Context>| {
        look(object, context, reconcile.clone())
    };
    let retry = |object: Arc<DeserializeGuard<K>>, _: &Error, context: Arc<Context>| {
        Action::requeue(context.pause(&K::kind(&()), &object.name_any()))
    };
    let kind = K::kind(&());
    let of_all = Arc::clone(&context);
    Controller::for_stream(stream, reader)
        .with_config(
            Config::default()
                .concurrency(CONCURRENCY)
                .debounce(DEBOUNCE),
        )
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(look, retry, context)
        .for_each(async |result| {
            if let Err(error) = result {
                heed(&error, &kind, &of_all);
            }
        })
        .await;
}

/// What fails around a look; one that itself fails is logged where it is made.
fn heed(error: &controller::Error<Error, watcher::Error>, kind: &str, context: &Context) {
    match error {
        controller::Error::QueueError(error) => {
            let failures = &context.metrics.failures;
            failures.with_label_values(&[kind, "watch"]).inc();
            lifecycle::seldom!(warn, kind, %error, "the watch failed and begins anew");
        }
        // It was to be looked at again, and was deleted meanwhile.
        controller::Error::ObjectNotFound(gone) => context.recovered(kind, &gone.name),
        _ => {}
    }
}

async fn look<K, R, F>(
    object: Arc<DeserializeGuard<K>>,
    context: Arc<Context>,
    reconcile: R,
) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()> + Clone,
    R: Fn(K, Arc<Context>) -> F,
    F: Future<Output = Result<Action, Error>>,
{
    let kind = K::kind(&());
    let name = object.name_any();
    let object = match &object.0 {
        Ok(object) => object.clone(),
        Err(error) => {
            tracing::warn!(%kind, name, %error, "the resource can't be read");
            context.recovered(&kind, &name);
            return Ok(Action::await_change());
        }
    };
    if is_disabled(&object) {
        tracing::info!(%kind, name, "the resource is to be left alone");
        context.recovered(&kind, &name);
        return Ok(Action::await_change());
    }
    let metrics = &context.metrics;
    metrics.reconciles.with_label_values(&[&*kind]).inc();
    let active = metrics.active.with_label_values(&[&*kind]);
    active.inc();
    let begun = Instant::now();
    let looked = tokio::time::timeout(PATIENCE, reconcile(object, Arc::clone(&context)));
    let result = looked.await.unwrap_or_else(|late| {
        let late = kube::Error::Service(late.into());
        Err(Error::doing("end the look in time")(late))
    });
    let seconds = metrics.seconds.with_label_values(&[&*kind]);
    seconds.observe(begun.elapsed().as_secs_f64());
    active.dec();
    match &result {
        Ok(_) => context.recovered(&kind, &name),
        Err(error) => {
            let failures = &metrics.failures;
            failures.with_label_values(&[&*kind, error.class()]).inc();
            if error.is_conflict() {
                tracing::debug!(%kind, name, %error, "somebody else was faster");
            } else if let Some(unsaid) = context.complains(&kind, &name) {
                tracing::warn!(unsaid, %kind, name, %error, "the look failed");
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::ObjectRef;
    use serde_json::json;

    use super::*;
    use crate::fixtures::Cluster;
    use crate::lease;
    use crate::resources::ChaosRun;

    #[test]
    fn a_drain_by_the_chart_has_time_for_a_look_and_for_the_lease() {
        let values = include_str!("../../../charts/sekali/values.yaml");
        let values: serde_json::Value = serde_yaml::from_str(values).unwrap();
        let drain = &values["operator"]["drain"];
        let seconds = |name: &str| drain[name].as_u64().unwrap();
        let deadline = Duration::from_secs(seconds("deadlineSeconds") - seconds("delaySeconds"));
        assert!(PATIENCE + lease::RELEASE < deadline, "{deadline:?}");
    }

    #[tokio::test]
    async fn what_fails_again_and_again_is_not_told_each_time() {
        let look = async |context: Arc<Context>| {
            let mut told = Vec::new();
            for name in ["a", "a", "b"] {
                told.push(context.complains("ChaosRun", name));
            }
            context.recovered("ChaosRun", "a");
            told.push(context.complains("ChaosRun", "a"));
            told
        };
        let (told, _) = Cluster::default().run(look).await;
        assert_eq!(told, [Some(0), None, Some(0), Some(0)]);
    }

    #[tokio::test]
    async fn what_is_deleted_while_it_backs_off_is_no_longer_counted() {
        let look = async |context: Arc<Context>| {
            let kind = ChaosRun::kind(&());
            let gauge = context.metrics.backing_off.with_label_values(&[&*kind]);
            context.pause(&kind, "smoke");
            let before = gauge.get();
            let gone = ObjectRef::<ChaosRun>::new("smoke").erase();
            let error = controller::Error::ObjectNotFound(Box::new(gone));
            heed(&error, &kind, &context);
            (before, gauge.get())
        };
        let (counted, _) = Cluster::default().run(look).await;
        assert_eq!(counted, (1, 0));
    }

    #[tokio::test]
    async fn what_nobody_looks_at_any_more_does_not_back_off_either() {
        let disabled = json!({
            "metadata": {"name": "smoke", "annotations": {"sekali.dev/reconcile": "disabled"}},
            "spec": {},
        });
        let unreadable = json!({"metadata": {"name": "smoke"}, "spec": 3});
        for object in [disabled, unreadable] {
            let object: DeserializeGuard<ChaosRun> = serde_json::from_value(object).unwrap();
            let looked = async |context: Arc<Context>| {
                let kind = ChaosRun::kind(&());
                let gauge = context.metrics.backing_off.with_label_values(&[&*kind]);
                context.pause(&kind, "smoke");
                let never = |_: ChaosRun, _: Arc<Context>| async { panic!("it is looked at") };
                look(Arc::new(object), context, never).await.unwrap();
                gauge.get()
            };
            assert_eq!(Cluster::default().run(looked).await.0, 0);
        }
    }
}
