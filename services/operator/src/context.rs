//! What both controllers share: the way to the API server, and how they write.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt as _};
use lifecycle::seldom::Seldom;
use lifecycle::{Backoff, backoff};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::chaos::Template;
use crate::error::Error;
use crate::gateway::Gateways;
use crate::metrics::Metrics;

/// Whose the fields are that the operator writes.
pub(crate) const MANAGER: &str = "sekali-operator";

/// With this annotation set to `disabled` a resource is left alone.
const RECONCILE: &str = "sekali.dev/reconcile";

/// The first and the longest pause before a resource is looked at again after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// The way to the API server, and the namespace: the one that was told, or that of the
/// kubeconfig or of the pod.
pub(crate) async fn connect(namespace: Option<String>) -> anyhow::Result<(Client, String)> {
    let client = Client::try_default().await.context("find the API server")?;
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().into());
    Ok((client, namespace))
}

/// How long one answer of the API server may take where nothing else bounds it.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// The client itself waits for as long as the connection seems to live, and tries again and
/// again what a busy API server refuses.
pub(crate) async fn in_time<T>(
    patience: Duration,
    answer: impl Future<Output = kube::Result<T>>,
) -> kube::Result<T> {
    let answer = tokio::time::timeout(patience, answer).await;
    answer.unwrap_or_else(|_| {
        let why = "the API server does not answer in time";
        Err(kube::Error::Service(why.into()))
    })
}

/// What a reconciliation works with.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// The installation that this operator belongs to.
    pub(crate) instance: String,
    pub(crate) gateways: Gateways,
    pub(crate) template: Template,
    pub(crate) metrics: Metrics,
    recorder: Recorder,
    troubles: Mutex<Troubles>,
}

/// By kind and name, of what failed when it was last looked at.
type Troubles = HashMap<(String, String), Trouble>;

struct Trouble {
    backoff: Backoff,
    said: Seldom,
}

/// What a context is made from.
pub(crate) struct Parts {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) instance: String,
    pub(crate) identity: String,
    pub(crate) gateways: Gateways,
    pub(crate) template: Template,
    pub(crate) metrics: Metrics,
}

impl Context {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            client,
            namespace,
            instance,
            identity,
            gateways,
            template,
            metrics,
        } = parts;
        let reporter = Reporter {
            controller: MANAGER.into(),
            instance: Some(identity),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            namespace,
            instance,
            gateways,
            template,
            metrics,
            troubles: Mutex::default(),
        }
    }

    /// The objects of a kind in the operator's namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Writes a status as a whole. The resource must be as it was when it was read: what was
    /// decided on was that.
    pub(crate) async fn write_status<K>(
        &self,
        object: &K,
        status: &impl Serialize,
    ) -> Result<K, Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + DeserializeOwned + Debug,
    {
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {
                "name": object.name_any(),
                "resourceVersion": object.resource_version(),
            },
            "status": status,
        });
        self.metrics.write("status");
        self.api::<K>()
            .patch_status(&object.name_any(), &apply(), &Patch::Apply(&patch))
            .await
            .map_err(Error::doing("write the status"))
    }

    /// Tells of a transition. That nobody hears of it changes nothing. Events of the same
    /// action and reason are counted as one.
    pub(crate) async fn tell(
        &self,
        of: &ObjectReference,
        is_good: bool,
        action: &str,
        reason: &str,
        note: String,
    ) {
        let event = Event {
            type_: if is_good {
                EventType::Normal
            } else {
                EventType::Warning
            },
            reason: reason.into(),
            note: Some(note.chars().take(1_000).collect()),
            action: action.into(),
            secondary: None,
        };
        self.metrics.write("event");
        if let Err(error) = self.recorder.publish(&event, of).await {
            tracing::warn!(%error, reason, "an event can't be published");
        }
    }

    /// How long to wait after a failure, longer each time.
    pub(crate) fn pause(&self, kind: &str, name: &str) -> Duration {
        self.trouble(kind, name, |trouble| trouble.backoff.next_wait())
    }

    /// Whether a failure is to be told of, and how many were not since the last that was: what
    /// lasts is told of now and then, not at each attempt.
    pub(crate) fn complains(&self, kind: &str, name: &str) -> Option<u64> {
        self.trouble(kind, name, |trouble| trouble.said.now())
    }

    fn trouble<T>(&self, kind: &str, name: &str, meet: impl FnOnce(&mut Trouble) -> T) -> T {
        let mut troubles = self.troubles();
        let new = || Trouble {
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, backoff::seed()),
            said: Seldom::new(),
        };
        let key = (kind.to_owned(), name.to_owned());
        let result = meet(troubles.entry(key).or_insert_with(new));
        self.count_troubles(kind, &troubles);
        result
    }

    /// After a success.
    pub(crate) fn recovered(&self, kind: &str, name: &str) {
        let mut troubles = self.troubles();
        if troubles
            .remove(&(kind.to_owned(), name.to_owned()))
            .is_some()
        {
            self.count_troubles(kind, &troubles);
        }
    }

    fn count_troubles(&self, kind: &str, troubles: &Troubles) {
        let count = troubles.keys().filter(|(of, _)| of == kind).count();
        let gauge = self.metrics.backing_off.with_label_values(&[kind]);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Nothing here panics while it holds the lock, so a poisoned one is as good as any.
    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Server-side apply, as the one owner of the fields that are named.
pub(crate) fn apply() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

/// Whether a resource is to be left alone.
pub(crate) fn is_disabled(object: &impl Resource) -> bool {
    let annotations = object.meta().annotations.as_ref();
    annotations
        .and_then(|all| all.get(RECONCILE))
        .is_some_and(|value| value == "disabled")
}

/// All of a kind in a namespace but those that can't be read: one of them hides no other.
pub(crate) async fn list<K>(api: &Api<K>) -> kube::Result<Vec<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Debug + DeserializeOwned,
{
    let (client, namespace) = (api.clone().into_client(), api.namespace());
    let guarded: Api<DeserializeGuard<K>> = Api::namespaced(client, namespace.unwrap_or_default());
    let all = guarded.list(&ListParams::default()).await?;
    let readable = |one: DeserializeGuard<K>| {
        let (kind, name) = (K::kind(&()), one.name_any());
        let unreadable = |error: &InvalidObject| {
            lifecycle::seldom!(warn, %kind, name, %error, "the resource can't be read");
        };
        one.0.inspect_err(unreadable).ok()
    };
    Ok(all.items.into_iter().filter_map(readable).collect())
}
