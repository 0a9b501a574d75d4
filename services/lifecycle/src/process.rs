//! From `main` to the exit status, with the drain between them.
//!
//! A process ends with 0 when it did what it was asked to, a drain after a signal
//! included; with 1 when something failed, or the drain took too long; with 64 when it
//! can't mean what it was told ([`crate::args`]); with 130 when a second signal cut the
//! drain short.
//!
//! The drain, in order: readiness goes off, and connections close with their next answer;
//! a pause, so that whoever routes to this process notices; the shutdown token is
//! cancelled, upon which intake stops and tasks finish what is in flight; tasks are
//! joined; last of all the admin port closes, and what is left of traces is sent. One deadline
//! is over all of it.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;

use opentelemetry_sdk::trace::SdkTracer;
use prometheus::Registry;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::args::{self, Args, ConfigError, Drain, EX_CONFIG};
use crate::http::Closing;
use crate::signals::Signals;
use crate::trace::export;
use crate::{Readiness, Tasks, admin, metrics, telemetry};

/// The release, which is the same for all processes.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The exit status after a second signal: what a shell reports of an interrupted program.
const EX_FORCED: u8 = 130;

/// What a process is given to build itself with. Clones are the same process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Cancelled when intake is to stop. A task that others hand their work to ends when
    /// they are gone (its channel closes), not upon this.
    pub shutdown: CancellationToken,
    /// Cancelled before that, when the drain begins.
    draining: CancellationToken,
    /// Owns whatever is started.
    pub tasks: Tasks,
    /// What `/readyz` says; each owner of a dependency sets its check.
    pub readiness: Readiness,
    /// What `/metrics` says; each service registers its own.
    pub metrics: Registry,
    /// The admin port's, which outlives the others by design.
    admin_shutdown: CancellationToken,
    admin_tasks: Tasks,
    /// Where the admin port is served.
    admin_runtime: Handle,
}

impl Process {
    /// A process that nobody supervises: for tests of what is built from one. Must be called
    /// within a runtime, which then serves the admin port too.
    pub fn new(name: &str) -> prometheus::Result<Self> {
        let shutdown = CancellationToken::new();
        let admin_shutdown = CancellationToken::new();
        let (readiness, draining) = (Readiness::default(), CancellationToken::new());
        let metrics = metrics::registry(name)?;
        metrics::register_phase(&metrics, &readiness, &draining)?;
        Ok(Self {
            tasks: Tasks::new(shutdown.clone()),
            readiness,
            metrics,
            admin_tasks: Tasks::new(admin_shutdown.clone()),
            admin_runtime: Handle::current(),
            draining,
            shutdown,
            admin_shutdown,
        })
    }

    /// How the connections of a listener end when the process does.
    pub fn closing(&self) -> Closing {
        Closing {
            announced: self.draining.clone(),
            begun: self.shutdown.clone(),
        }
    }

    /// Spawns a task that the shutdown cuts off wherever it is: for what need not be finished,
    /// of which a server that does not answer must not hold up the drain.
    pub fn spawn_until_shutdown(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(name, async move {
            shutdown.run_until_cancelled(work).await;
            Ok(())
        });
    }

    /// Serves the admin port. Do it first, so that a start that waits can be watched.
    pub fn serve_admin(&self, addr: SocketAddr) -> anyhow::Result<SocketAddr> {
        // Made here, where the work runs: it is this runtime that /livez asks.
        let routes = admin::routes(&self.readiness, self.metrics.clone());
        // Served there: no probe and no scrape waits behind the work.
        let _there = self.admin_runtime.enter();
        admin::serve(addr, routes, &self.admin_tasks, self.admin_shutdown.clone())
    }
}

/// A program, by its name and whether it can tell of itself in traces.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    name: &'static str,
    /// Whose spans are exported.
    traced: &'static [&'static str],
    tracer: fn(&'static str) -> Result<Option<SdkTracer>, ConfigError>,
}

impl Program {
    /// One that makes spans, and exports those of these crates if the environment says where
    /// to. They are the program's own, not libraries, of which the exporter's would beget others.
    pub const fn traced(name: &'static str, crates: &'static [&'static str]) -> Self {
        Self {
            name,
            traced: crates,
            tracer: export::tracer,
        }
    }

    /// One that makes none. What would export them is then no part of it: some 2 MB.
    pub const fn untraced(name: &'static str) -> Self {
        Self {
            name,
            traced: &[],
            tracer: |_| Ok(None),
        }
    }
}

/// Runs a service: `start` builds it, binds its ports, spawns its tasks and returns; the
/// process is ready from then on and serves until a signal or a failure.
pub fn service(
    program: Program,
    args: &Args,
    start: impl AsyncFnOnce(Process) -> anyhow::Result<()>,
) -> ExitCode {
    run(program, args, |process| serve(process, start))
}

/// Runs a job: the process ends with the status that `work` returns, once its tasks have
/// ended too. After a signal `work` has until the drain's deadline to return.
pub fn job(
    program: Program,
    args: &Args,
    work: impl AsyncFnOnce(Process) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    run(program, args, async |process: Process| {
        process.readiness.started();
        work(process).await
    })
}

async fn serve(
    process: Process,
    start: impl AsyncFnOnce(Process) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let started = process
        .shutdown
        .run_until_cancelled(start(process.clone()))
        .await;
    if let Some(result) = started {
        result?;
        process.readiness.started();
        process.shutdown.cancelled().await;
    }
    Ok(ExitCode::SUCCESS)
}

fn run(
    program: Program,
    args: &Args,
    work: impl AsyncFnOnce(Process) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    match try_run(program, args, work) {
        Ok(status) => status,
        Err(error) if error.chain().any(<dyn Error>::is::<ConfigError>) => {
            args::complain(&format_args!("{error:#}"));
            EX_CONFIG.into()
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "failed");
            ExitCode::FAILURE
        }
    }
}

fn try_run(
    program: Program,
    args: &Args,
    work: impl AsyncFnOnce(Process) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let drain = args.drain()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name(program.name)
        .build()?;
    let admin = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .thread_name("admin")
        .build()?;
    {
        let _within = runtime.enter();
        let tracer = (program.tracer)(program.name)?;
        telemetry::init(tracer, program.traced, args.log_format)?;
    }
    let result = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let mut process = Process::new(program.name)?;
        process.admin_runtime = admin.handle().clone();
        tracing::info!(name = program.name, version = VERSION, "starting");
        let work = work(process.clone());
        supervise(&process, drain, async || signals.next().await, work).await
    });
    // Work on a blocking thread can't be interrupted; if the deadline has passed, its
    // end is not waited for either.
    runtime.shutdown_background();
    admin.shutdown_background();
    result
}

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

async fn supervise<W>(
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
fn running(process: &Process) -> String {
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

#[cfg(test)]
mod tests;
