//! The operator's start, and how one of several leads.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use kube::api::{ListParams, Patch};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt as _};
use lifecycle::{CancellationToken, ConfigError, Process};
use serde::de::DeserializeOwned;

use crate::args::Serve;
use crate::chaos::{self, Template};
use crate::context::{ANSWER, Context, Parts, apply, connect, in_time};
use crate::controller;
use crate::gateway::Gateways;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::pipeline;
use crate::resources::{ChaosRun, Pipeline};

/// Builds an operator, binds its port and starts its task.
pub(crate) async fn start(process: &Process, args: Serve) -> anyhow::Result<()> {
    let Serve {
        instance,
        namespace,
        publisher_template,
        pipeline_file,
        api_key_file,
        identity,
        lease_seconds,
        admin,
    } = args;
    let template = Template::read(&publisher_template)
        .map_err(|error| refuse("--publisher-template", &publisher_template, &error))?;
    let own = pipeline_file
        .map(|path| own_pipeline(&path).map_err(|error| refuse("--pipeline-file", &path, &error)))
        .transpose()?;
    let identity = identity.map_or_else(host_name, Ok)?;
    let gateways = Gateways::new(api_key_file)?;
    let metrics = Metrics::register(&process.metrics)?;
    process.serve_admin(admin.admin_addr)?;

    let (client, namespace) = connect(namespace).await?;
    preflight::<Pipeline>(&client, &namespace, ANSWER).await?;
    preflight::<ChaosRun>(&client, &namespace, ANSWER).await?;
    let lease = Lease::new(
        Api::namespaced(client.clone(), &namespace),
        format!("{instance}-operator"),
        identity.clone(),
        Duration::from_secs(lease_seconds.into()),
        metrics.clone(),
    );
    tracing::info!(namespace, instance, identity, "looks after an installation");
    let context = Context::new(Parts {
        client,
        namespace,
        instance,
        identity,
        gateways,
        template,
        metrics,
    });
    let lead = lead(lease, Arc::new(context), own, process.shutdown.clone());
    process.tasks.spawn("leader", lead);
    Ok(())
}

/// Waits for the lease, and works for as long as it is held. Who loses it ends: what was
/// under way could cross what the next one does.
async fn lead(
    mut lease: Lease,
    context: Arc<Context>,
    own: Option<Pipeline>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Some(asked) = lease.acquire(&shutdown).await else {
        return Ok(());
    };
    let work = async {
        if let Some(own) = own {
            install(&own, &context).await?;
        }
        tokio::join!(
            controller::run(Arc::clone(&context), shutdown.clone(), pipeline::reconcile),
            controller::run(Arc::clone(&context), shutdown.clone(), chaos::reconcile),
        );
        anyhow::Ok(())
    };
    let worked = work_while(lease.keep(asked), work).await;
    lease.release().await;
    worked
}

/// Ends with the work, or with the lease, which is looked at first: of the two the loss counts.
async fn work_while(
    kept: impl Future<Output = anyhow::Result<()>>,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        lost = kept => lost,
        worked = work => worked,
    }
}

/// Applies the installation's own Pipeline. It belongs to the chart's values: what was
/// changed in the cluster is changed back.
async fn install(own: &Pipeline, context: &Context) -> anyhow::Result<()> {
    context.metrics.write("pipeline");
    let pipelines = context.api::<Pipeline>();
    let patch = serde_json::to_value(own).context("write the Pipeline as JSON")?;
    let (name, patch) = (own.name_any(), Patch::Apply(patch));
    let applied = pipelines.patch(&name, &apply(), &patch).await;
    applied.context("apply the installation's Pipeline")?;
    Ok(())
}

/// A definition that is missing or forbidden is better told in a sentence than by a watch
/// that never begins.
async fn preflight<K>(client: &Client, namespace: &str, patience: Duration) -> anyhow::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = format!("{}.{}", K::plural(&()), K::group(&()));
    let one = ListParams::default().limit(1);
    match in_time(patience, api.list_metadata(&one)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(anyhow!(
            "there is no CustomResourceDefinition {name}: install the chart with crds.install, \
             or apply what `sekali-operator crds` prints"
        )),
        Err(kube::Error::Api(status)) if status.code == 403 => Err(anyhow!(
            "it may not list {name} in {namespace}: {}",
            status.message
        )),
        Err(error) => Err(error).with_context(|| format!("list {name}")),
    }
}

fn own_pipeline(path: &Path) -> anyhow::Result<Pipeline> {
    let text = std::fs::read_to_string(path).context("read it")?;
    let mut pipeline: Pipeline =
        serde_yaml::from_str(&text).map_err(|error| anyhow!("it is no Pipeline: {error}"))?;
    pipeline.status = None;
    Ok(pipeline)
}

fn refuse(flag: &str, path: &Path, error: &anyhow::Error) -> ConfigError {
    ConfigError::new(format!("{flag} {}: {error:#}", path.display()))
}

fn host_name() -> Result<String, ConfigError> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_default();
    match name.trim() {
        "" => Err(ConfigError::new(
            "--identity is needed where the host has no name",
        )),
        name => Ok(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::fixtures::{Cluster, NAMESPACE};

    #[tokio::test]
    async fn an_api_server_that_says_nothing_holds_up_no_start() {
        let start = async |context: Arc<Context>| {
            let patience = Duration::from_millis(20);
            preflight::<Pipeline>(&context.client, NAMESPACE, patience).await
        };
        let (started, _) = Cluster::default().unanswering(usize::MAX).run(start).await;
        let error = format!("{:#}", started.unwrap_err());
        let why = "the API server does not answer in time";
        assert!(
            error.starts_with("list pipelines") && error.contains(why),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_lost_lease_is_told_though_the_work_ended_with_it() {
        for _ in 0..64 {
            let lost = ready(Err(anyhow!("the lease is another's")));
            assert!(work_while(lost, ready(Ok(()))).await.is_err());
        }
        let kept = std::future::pending();
        assert!(work_while(kept, ready(Ok(()))).await.is_ok());
    }
}
