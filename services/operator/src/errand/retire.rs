//! Deletes an installation's resources while its operator can still clean up after them.

use std::fmt::Debug;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use lifecycle::{Process, Ticks};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::args::Retire;
use crate::chaos::is_held;
use crate::context::{self, ANSWER, connect, in_time};
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

/// The runs first: to clean up after them the operator asks their Pipeline. Of a run whose
/// Pipeline is gone nobody can tell whose it was; one that is held would hold up the deletion of
/// the namespace once there is no operator.
async fn delete(
    pipelines: &Api<Pipeline>,
    runs: &Api<ChaosRun>,
    instance: &str,
    patience: Duration,
    ticks: Ticks,
) -> anyhow::Result<()> {
    let answer = ANSWER.min(patience);
    let readable = list(pipelines, answer).await?;
    let own = |one: &&Pipeline| one.spec.instance == instance;
    let own: Vec<_> = readable
        .iter()
        .filter(own)
        .map(ResourceExt::name_any)
        .collect();
    let all = names(pipelines, answer).await?;
    let goes = |run: &ChaosRun| {
        let pipeline = &run.spec.pipeline;
        own.contains(pipeline) || (is_held(run) && !all.contains(pipeline))
    };
    delete_runs(runs, goes, patience, ticks).await?;
    for name in &own {
        gone(pipelines.delete(name, &DeleteParams::default()), answer).await?;
    }
    Ok(())
}

/// Deletes some runs, and waits for them.
async fn delete_runs(
    runs: &Api<ChaosRun>,
    goes: impl Fn(&ChaosRun) -> bool,
    patience: Duration,
    mut ticks: Ticks,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let answer = ANSWER.min(patience);
    loop {
        ensure!(ticks.next().await, "stopped before the runs were gone");
        let mut left = list(runs, answer).await?;
        left.retain(&goes);
        if left.is_empty() {
            return Ok(());
        }
        for run in &left {
            let name = run.name_any();
            if run.metadata.deletion_timestamp.is_none() {
                gone(runs.delete(&name, &DeleteParams::default()), answer).await?;
            } else if begun.elapsed() > patience {
                tracing::warn!(run = name, "the run is let go without a clean-up");
                let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                gone(runs.patch(&name, &PatchParams::default(), &patch), answer).await?;
            }
        }
    }
}

/// All of a kind that can be read; without its definition there are none.
async fn list<K>(api: &Api<K>, patience: Duration) -> anyhow::Result<Vec<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + DeserializeOwned + Debug,
{
    match in_time(patience, context::list(api)).await {
        Ok(all) => Ok(all),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("list the {}", K::plural(&()))),
    }
}

/// Those of the Pipelines that can't be read, too.
async fn names(pipelines: &Api<Pipeline>, patience: Duration) -> anyhow::Result<Vec<String>> {
    match in_time(patience, pipelines.list_metadata(&ListParams::default())).await {
        Ok(all) => Ok(all.iter().map(ResourceExt::name_any).collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).context("list the names of the pipelines"),
    }
}

/// What is not there any more need not be deleted.
async fn gone<T>(
    deletion: impl Future<Output = kube::Result<T>>,
    patience: Duration,
) -> anyhow::Result<()> {
    match in_time(patience, deletion).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).context("delete a resource"),
    }
}

#[cfg(test)]
mod tests {
    use lifecycle::CancellationToken;

    use super::*;
    use crate::chaos::FINALIZER;
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
        retired_within(Duration::from_mins(1), cluster, shutdown).await
    }

    async fn retired_within(
        patience: Duration,
        cluster: Cluster,
        shutdown: &CancellationToken,
    ) -> (anyhow::Result<()>, Vec<Write>) {
        let ticks = Ticks::every(Duration::from_millis(1), shutdown);
        cluster
            .run(async |context| {
                let (pipelines, runs) = (context.api(), context.api());
                delete(&pipelines, &runs, "sekali", patience, ticks).await
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
    async fn a_held_run_whose_pipeline_is_gone_goes_too_and_no_other() {
        let run = |name: &str, pipeline: &str, finalizers: &[&str]| {
            json!({
                "metadata": {"name": name, "finalizers": finalizers},
                "spec": {"pipeline": pipeline},
            })
        };
        let runs = [
            run("of-another", "other", &[FINALIZER]),
            run("of-an-unreadable-one", "odd", &[FINALIZER]),
            // It holds up nothing.
            run("pending", "gone", &[]),
            run("orphan", "gone", &[FINALIZER]),
        ];
        let cluster = cluster(&[]);
        let mut pipelines = cluster.object(PIPELINES).clone();
        let unreadable = json!({"metadata": {"name": "odd"}, "spec": 3});
        pipelines["items"].as_array_mut().unwrap().push(unreadable);
        let orphan = format!("{RUNS}/orphan");
        // It ends there, and not before.
        let cluster = cluster
            .with(PIPELINES, &pipelines)
            .with(RUNS, &json!({"metadata": {}, "items": runs}))
            .refusing(&orphan, 403);
        let (result, writes) = retired(cluster, &CancellationToken::new()).await;
        result.unwrap_err();
        assert_eq!(deleted(&writes), [orphan]);
    }

    #[tokio::test]
    async fn an_api_server_that_says_nothing_holds_up_no_uninstall() {
        let silent = cluster(&[]).unanswering(usize::MAX);
        let (patience, never) = (Duration::from_millis(20), CancellationToken::new());
        let (result, _) = retired_within(patience, silent, &never).await;
        let error = format!("{:#}", result.unwrap_err());
        let why = "the API server does not answer in time";
        assert!(
            error.starts_with("list the pipelines") && error.contains(why),
            "{error}"
        );
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
