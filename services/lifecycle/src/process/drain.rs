//! The drain, in order: readiness goes off, and connections close with their next answer;
//! a pause, so that whoever routes to this process notices; the shutdown token is
//! cancelled, upon which intake stops and tasks finish what is in flight; tasks are
//! joined; last of all the admin port closes, and what is left of traces is sent. One deadline
//! is over all of it.

use std::pin::pin;
use std::process::ExitCode;

use super::Process;
use crate::args::Drain;
use crate::trace::export;

/// The exit status after a second signal: what a shell reports of an interrupted program.
pub(super) const EX_FORCED: u8 = 130;

/// Why the work is over, or to be.
enum End {
    Done(anyhow::Result<ExitCode>),
    Signal,
    Failure,
}

/// Why a drain ended before all had.
enum Cut {
    Late,
    Forced,
}

/// Runs `work` to its end, or until a signal or a task that fails begins the drain.
pub(super) async fn supervise<W>(
    process: &Process,
    drain: Drain,
    mut signal: impl AsyncFnMut() -> &'static str,
    work: W,
) -> anyhow::Result<ExitCode>
where
    W: Future<Output = anyhow::Result<ExitCode>>,
{
    let mut work = pin!(work);
    let end = tokio::select! {
        biased;
        result = work.as_mut() => End::Done(result),
        name = signal() => {
            tracing::info!(signal = name, "draining");
            crash::point!("drain");
            End::Signal
        }
        () = process.tasks.failed() => End::Failure,
        () = process.admin_tasks.failed() => End::Failure,
    };
    let served = process.readiness.drain();
    process.draining.cancel();
    // Only a signal comes with time to spare, and only who served has callers.
    let has_delay = served && matches!(end, End::Signal);
    // Outside of what may be cut short: why the process ends is told however the drain goes.
    let mut result = match end {
        End::Done(result) => Some(result),
        End::Signal | End::Failure => None,
    };
    let finish = async {
        if has_delay {
            tokio::time::sleep(drain.delay).await;
        }
        process.shutdown.cancel();
        if result.is_none() {
            result = Some(work.await);
        }
        process.tasks.join().await;
        process.admin_shutdown.cancel();
        process.admin_tasks.join().await;
        export::flush().await;
    };
    let cut = tokio::select! {
        biased;
        () = finish => None,
        () = tokio::time::sleep(drain.deadline) => {
            let running = running(process);
            tracing::error!(%running, "the drain's deadline has passed");
            Some(Cut::Late)
        }
        name = signal() => {
            let running = running(process);
            tracing::warn!(signal = name, %running, "forced to end by a second signal");
            Some(Cut::Forced)
        }
    };
    let told = outcome(process, result.unwrap_or(Ok(ExitCode::SUCCESS)));
    conclude(told, cut)
}

/// Being cut short is a failure, which hides no other.
fn conclude(told: anyhow::Result<ExitCode>, cut: Option<Cut>) -> anyhow::Result<ExitCode> {
    match (told, cut) {
        (told, None) => told,
        (Ok(_), Some(Cut::Late)) => Ok(ExitCode::FAILURE),
        (Err(error), Some(Cut::Late)) => Err(error),
        (told, Some(Cut::Forced)) => {
            if let Err(error) = told {
                tracing::error!(error = format!("{error:#}"), "failed");
            }
            Ok(EX_FORCED.into())
        }
    }
}

/// If the work itself failed, that is the end that is reported, and the status that follows
/// from it: tasks end early because a start that fails drops what they listen to. Which of
/// the two is the cause can't be told from here, so the other one is logged.
fn outcome(process: &Process, result: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    let failure = process.tasks.take_failure();
    let failure = failure.or_else(|| process.admin_tasks.take_failure());
    match (failure, result) {
        (Some(failure), Err(error)) => {
            tracing::error!(error = format!("{failure:#}"), "a task failed too");
            Err(error)
        }
        (Some(failure), Ok(_)) => Err(failure),
        (None, result) => result,
    }
}

/// What holds the drain up. The admin port does only once it is its turn to end.
pub(super) fn running(process: &Process) -> String {
    let (tasks, otherwise) = if process.admin_shutdown.is_cancelled() {
        (&process.admin_tasks, "the export of traces")
    } else {
        (&process.tasks, "the main task")
    };
    match tasks.running() {
        none if none.is_empty() => otherwise.into(),
        running => running,
    }
}
