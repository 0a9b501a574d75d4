//! Deletes an installation's resources while its operator can still clean up after them.

use std::fmt::Debug;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use lifecycle::{Process, Ticks};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::args::Retire;
use crate::context::{self, connect};
use crate::resources::{ChaosRun, Pipeline};

/// How often to look whether they are gone.
const PERIOD: Duration = Duration::from_secs(1);

/// Returns when they are gone.
pub(crate) async fn retire(process: &Process, args: Retire) -> anyhow::Result<ExitCode> {
    let Retire {
        instance,
        namespace,
        timeout_seconds,
    } = args;
    let patience = Duration::from_secs(timeout_seconds);
    let (client, namespace) = connect(namespace).await?;
    let pipelines = Api::namespaced(client.clone(), &namespace);
    let runs = Api::namespaced(client, &namespace);
    let ticks = Ticks::every(PERIOD, &process.shutdown);
    delete(&pipelines, &runs, &instance, patience, ticks).await?;
    Ok(ExitCode::SUCCESS)
}

/// The runs first: to clean up after them the operator asks their Pipeline.
async fn delete(
    pipelines: &Api<Pipeline>,
    runs: &Api<ChaosRun>,
    instance: &str,
    patience: Duration,
    ticks: Ticks,
) -> anyhow::Result<()> {
    let all = list(pipelines).await?;
    let own = |one: &&Pipeline| one.spec.instance == instance;
    let names: Vec<_> = all.iter().filter(own).map(ResourceExt::name_any).collect();
    delete_runs(runs, &names, patience, ticks).await?;
    for name in &names {
        gone(pipelines.delete(name, &DeleteParams::default()).await)?;
    }
    Ok(())
}

/// Deletes the runs of some Pipelines, and waits for them.
async fn delete_runs(
    runs: &Api<ChaosRun>,
    pipelines: &[String],
    patience: Duration,
    mut ticks: Ticks,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        ensure!(ticks.next().await, "stopped before the runs were gone");
        let mut left = list(runs).await?;
        left.retain(|run| pipelines.contains(&run.spec.pipeline));
        if left.is_empty() {
            return Ok(());
        }
        for run in &left {
            let name = run.name_any();
            if run.metadata.deletion_timestamp.is_none() {
                gone(runs.delete(&name, &DeleteParams::default()).await)?;
            } else if begun.elapsed() > patience {
                tracing::warn!(run = name, "the run is let go without a clean-up");
                let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                gone(runs.patch(&name, &PatchParams::default(), &patch).await)?;
            }
        }
    }
}

/// All of a kind that can be read; without its definition there are none.
async fn list<K>(api: &Api<K>) -> anyhow::Result<Vec<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + DeserializeOwned + Debug,
{
    match context::list(api).await {
        Ok(all) => Ok(all),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("list the {}", K::plural(&()))),
    }
}

/// What is not there any more need not be deleted.
fn gone<T>(result: kube::Result<T>) -> anyhow::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).context("delete a resource"),
    }
}

#[cfg(test)]
mod tests {
    use lifecycle::CancellationToken;

    use super::*;
    use crate::fixtures::{Cluster, Write};

    const PIPELINES: &str = "sekali.dev/v1alpha1/pipelines";
    const RUNS: &str = "sekali.dev/v1alpha1/chaosruns";

    /// An installation's Pipeline, another's, and the runs of the first.
    fn cluster(runs: &[&str]) -> Cluster {
        let pipeline = |name: &str| {
            json!({
                "metadata": {"name": name},
                "spec": {
                    "instance": name, "gateway": {"service": name},
                    "workers": {"deployment": format!("{name}-worker")},
                },
            })
        };
        let run = |&name: &&str| json!({"metadata": {"name": name}, "spec": {}});
        let all: Vec<_> = runs.iter().map(run).collect();
        let pipelines = [pipeline("sekali"), pipeline("other")];
        let mut cluster = Cluster::default()
            .with(PIPELINES, &json!({"metadata": {}, "items": pipelines}))
            .with(RUNS, &json!({"metadata": {}, "items": all}));
        for name in ["sekali", "other"] {
            cluster = cluster.with(&format!("{PIPELINES}/{name}"), &pipeline(name));
        }
        for name in runs {
            cluster = cluster.with(&format!("{RUNS}/{name}"), &run(name));
        }
        cluster
    }

    async fn retired(
        cluster: Cluster,
        shutdown: &CancellationToken,
    ) -> (anyhow::Result<()>, Vec<Write>) {
        let ticks = Ticks::every(Duration::from_millis(1), shutdown);
        cluster
            .run(async |context| {
                let (pipelines, runs) = (context.api(), context.api());
                delete(&pipelines, &runs, "sekali", Duration::from_mins(1), ticks).await
            })
            .await
    }

    fn deleted(writes: &[Write]) -> Vec<&str> {
        assert!(writes.iter().all(|write| write.method == "DELETE"));
        writes.iter().map(|write| write.path.as_str()).collect()
    }

    #[tokio::test]
    async fn what_belongs_to_the_installation_is_deleted_and_nothing_else() {
        let (result, writes) = retired(cluster(&[]), &CancellationToken::new()).await;
        result.unwrap();
        assert_eq!(deleted(&writes), [format!("{PIPELINES}/sekali")]);
    }

    #[tokio::test]
    async fn who_is_stopped_has_not_deleted_the_pipeline_of_a_run_that_is_left() {
        let shutdown = CancellationToken::new();
        let later = shutdown.clone();
        let stop = async {
            tokio::task::yield_now().await;
            later.cancel();
        };
        let (left, ()) = tokio::join!(retired(cluster(&["smoke"]), &shutdown), stop);
        let (result, writes) = left;
        let error = result.unwrap_err().to_string();
        assert_eq!(error, "stopped before the runs were gone");
        let pipeline = format!("{PIPELINES}/sekali");
        assert!(!deleted(&writes).contains(&&*pipeline), "{writes:?}");
    }

    #[tokio::test]
    async fn what_can_not_be_read_holds_up_no_uninstall() {
        let unreadable = json!({"metadata": {"name": "odd"}, "spec": 3});
        let mut cluster = cluster(&[]);
        for path in [PIPELINES, RUNS] {
            let mut list = cluster.object(path).clone();
            list["items"]
                .as_array_mut()
                .unwrap()
                .insert(0, unreadable.clone());
            cluster = cluster.with(path, &list);
        }
        let (result, writes) = retired(cluster, &CancellationToken::new()).await;
        result.unwrap();
        assert_eq!(deleted(&writes), [format!("{PIPELINES}/sekali")]);
    }

    #[tokio::test]
    async fn without_the_definitions_there_is_nothing_to_retire() {
        let cluster = Cluster::default()
            .refusing_reads(PIPELINES, 404)
            .refusing_reads(RUNS, 404);
        let (result, writes) = retired(cluster, &CancellationToken::new()).await;
        result.unwrap();
        assert_eq!(writes, []);
    }
}
