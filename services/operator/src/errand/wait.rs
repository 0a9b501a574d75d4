//! Waits for a run's verdict.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use kube::Api;
use lifecycle::{Process, Ticks};

use crate::args::Await;
use crate::conditions::find;
use crate::context::{ANSWER, connect, in_time};
use crate::resources::{ChaosRun, ChaosRunStatus, Phase, Verdict};

/// How often to look whether it is over.
const PERIOD: Duration = Duration::from_secs(2);

/// How soon a run has to be there: whoever made it may have done so a moment ago, and whoever
/// mistyped its name need not wait for the time-out.
const APPEARS: Duration = Duration::from_secs(10);

/// Says with its status whether the run passed.
pub(crate) async fn wait(process: &Process, args: Await) -> anyhow::Result<ExitCode> {
    let Await {
        run,
        namespace,
        timeout_seconds,
    } = args;
    let (client, namespace) = connect(namespace).await?;
    let runs = Api::namespaced(client, &namespace);
    let patience = Duration::from_secs(timeout_seconds);
    let ticks = Ticks::every(PERIOD, &process.shutdown);
    let status = over(&runs, &run, patience, ticks).await?;
    tell(&status)
}

/// The status of a run once it is over. What the API server can't say it is asked again.
async fn over(
    runs: &Api<ChaosRun>,
    name: &str,
    patience: Duration,
    mut ticks: Ticks,
) -> anyhow::Result<ChaosRunStatus> {
    let begun = Instant::now();
    loop {
        ensure!(ticks.next().await, "stopped before the run was over");
        let waited = begun.elapsed();
        match in_time(ANSWER.min(patience), runs.get_opt(name)).await {
            Ok(Some(run)) => {
                let is_over = |status: &ChaosRunStatus| status.phase == Phase::Complete;
                if let Some(status) = run.status.filter(is_over) {
                    return Ok(status);
                }
            }
            Ok(None) if waited >= patience.min(APPEARS) => {
                let namespace = runs.namespace().unwrap_or_default();
                bail!("there is no ChaosRun {name} in {namespace}");
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, run = name, "the run can't be read"),
        }
        if waited >= patience {
            bail!("the run {name} is not over after {} s", patience.as_secs());
        }
    }
}

fn tell(status: &ChaosRunStatus) -> anyhow::Result<ExitCode> {
    let passed = find(&status.conditions, "Passed");
    let message = passed.map_or("", |passed| &passed.message);
    let verdict = status.verdict.unwrap_or(Verdict::Failed);
    writeln!(std::io::stdout(), "{verdict:?}: {message}")?;
    Ok(if verdict == Verdict::Passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lifecycle::CancellationToken;
    use serde_json::{Value, json};

    use super::*;
    use crate::context::Context;
    use crate::fixtures::{Cluster, NAMESPACE};

    const RUN: &str = "sekali.dev/v1alpha1/chaosruns/smoke";

    fn cluster(status: &Value) -> Cluster {
        let run = json!({
            "apiVersion": "sekali.dev/v1alpha1", "kind": "ChaosRun",
            "metadata": {"name": "smoke", "namespace": NAMESPACE}, "spec": {}, "status": status,
        });
        Cluster::default().with(RUN, &run)
    }

    /// As `main` ends it: what is no verdict is status 1, with the reason.
    async fn exit(cluster: Cluster) -> Result<ExitCode, String> {
        let wait = async |context: Arc<Context>| {
            let ticks = Ticks::every(Duration::from_millis(1), &CancellationToken::new());
            let patience = Duration::from_millis(100);
            tell(&over(&context.api(), "smoke", patience, ticks).await?)
        };
        let (ended, writes) = cluster.run(wait).await;
        assert_eq!(writes, []);
        ended.map_err(|error: anyhow::Error| error.to_string())
    }

    #[tokio::test]
    async fn a_run_that_is_over_ends_it_with_its_verdict() {
        for (verdict, status) in [("Passed", ExitCode::SUCCESS), ("Failed", ExitCode::FAILURE)] {
            let over = json!({"phase": "Complete", "verdict": verdict});
            assert_eq!(exit(cluster(&over)).await, Ok(status), "{verdict}");
        }
    }

    #[tokio::test]
    async fn a_run_that_goes_on_is_waited_for_no_longer_than_was_said() {
        let running = cluster(&json!({"phase": "Running"}));
        let error = exit(running).await.unwrap_err();
        assert_eq!(error, "the run smoke is not over after 0 s");
    }

    #[tokio::test]
    async fn a_run_that_is_not_there_is_no_run_that_goes_on() {
        let error = exit(Cluster::default()).await.unwrap_err();
        assert_eq!(error, "there is no ChaosRun smoke in test");
    }

    #[tokio::test]
    async fn an_api_server_that_says_nothing_is_waited_for_no_longer_either() {
        let silent = cluster(&json!({"phase": "Complete"})).unanswering(usize::MAX);
        let error = exit(silent).await.unwrap_err();
        assert_eq!(error, "the run smoke is not over after 0 s");
    }

    #[tokio::test]
    async fn an_api_server_that_fails_is_asked_again() {
        let failing = cluster(&Value::Null).refusing_reads(RUN, 500);
        let error = exit(failing).await.unwrap_err();
        assert_eq!(error, "the run smoke is not over after 0 s");
    }
}
