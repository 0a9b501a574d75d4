//! Waits for a run's verdict.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client};
use lifecycle::Process;

use crate::args::Await;
use crate::conditions::find;
use crate::resources::{ChaosRun, Phase, Verdict};

/// Says with its status whether the run passed.
pub(crate) async fn wait(process: &Process, args: Await) -> anyhow::Result<ExitCode> {
    let Await {
        run: name,
        namespace,
        timeout_seconds,
    } = args;
    let patience = Duration::from_secs(timeout_seconds);
    let client = Client::try_default().await.context("find the API server")?;
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().into());
    let runs: Api<ChaosRun> = Api::namespaced(client, &namespace);
    let over = await_condition(runs, &name, is_over());
    let waited = process
        .shutdown
        .run_until_cancelled(tokio::time::timeout(patience, over));
    let Some(run) = waited.await else {
        anyhow::bail!("stopped before the run was over");
    };
    let run = run
        .with_context(|| format!("the run {name} is not over after {} s", patience.as_secs()))?
        .with_context(|| format!("watch the run {name}"))?
        .with_context(|| format!("the run {name} is gone"))?;
    let status = run.status.unwrap_or_default();
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

fn is_over() -> impl Condition<ChaosRun> {
    |run: Option<&ChaosRun>| {
        let status = run.and_then(|run| run.status.as_ref());
        status.is_some_and(|status| status.phase == Phase::Complete)
    }
}
