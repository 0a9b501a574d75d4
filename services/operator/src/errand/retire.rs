//! Deletes an installation's resources while its operator can still clean up after them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use lifecycle::{Process, Ticks};
use serde_json::json;

use crate::args::Retire;
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
    let client = Client::try_default().await.context("find the API server")?;
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().into());
    let pipelines: Api<Pipeline> = Api::namespaced(client.clone(), &namespace);
    let runs: Api<ChaosRun> = Api::namespaced(client, &namespace);
    let all = pipelines.list(&ListParams::default()).await;
    let all = all.context("list the Pipelines")?;
    let own = |one: &&Pipeline| one.spec.instance == instance;
    let names: Vec<_> = all.iter().filter(own).map(ResourceExt::name_any).collect();

    // The runs first: to clean up after them the operator asks their Pipeline.
    let begun = Instant::now();
    let mut ticks = Ticks::every(PERIOD, &process.shutdown);
    while ticks.next().await {
        let left = of(&runs, &names).await?;
        if left.is_empty() {
            break;
        }
        for run in &left {
            if run.metadata.deletion_timestamp.is_none() {
                gone(runs.delete(&run.name_any(), &DeleteParams::default()).await)?;
            } else if begun.elapsed() > patience {
                tracing::warn!(run = run.name_any(), "the run is let go without a clean-up");
                let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                gone(
                    runs.patch(&run.name_any(), &PatchParams::default(), &patch)
                        .await,
                )?;
            }
        }
    }
    for name in &names {
        gone(pipelines.delete(name, &DeleteParams::default()).await)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The runs of some Pipelines.
async fn of(runs: &Api<ChaosRun>, pipelines: &[String]) -> anyhow::Result<Vec<ChaosRun>> {
    let all = runs.list(&ListParams::default()).await;
    let mut all = all.context("list the ChaosRuns")?.items;
    all.retain(|run| pipelines.contains(&run.spec.pipeline));
    Ok(all)
}

/// What is not there any more need not be deleted.
fn gone<T>(result: kube::Result<T>) -> anyhow::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).context("delete a resource"),
    }
}
