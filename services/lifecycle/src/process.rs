//! From `main` to the exit status, with the drain (`process/drain.rs`) between them.
//!
//! A process ends with 0 when it did what it was asked to, a drain after a signal
//! included; with 1 when something failed, or the drain took too long; with 64 when it
//! can't mean what it was told ([`crate::args`]); with 130 when a second signal cut the
//! drain short.

mod drain;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use opentelemetry_sdk::trace::SdkTracer;
use prometheus::Registry;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::args::{self, Args, ConfigError, EX_CONFIG};
use crate::http::Closing;
use crate::signals::Signals;
use crate::trace::export;
use crate::{Readiness, Tasks, admin, metrics, telemetry};

/// The release, which is the same for all processes.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

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
        drain::supervise(&process, drain, async || signals.next().await, work).await
    });
    // Work on a blocking thread can't be interrupted; if the deadline has passed, its
    // end is not waited for either.
    runtime.shutdown_background();
    admin.shutdown_background();
    result
}

#[cfg(test)]
mod tests;
