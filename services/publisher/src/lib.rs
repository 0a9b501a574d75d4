//! Load with a known right answer, and a verdict: the sender's side of Sekali's promise.
//!
//! It guarantees that what it sends is a pure function of the seed, that the same bytes are
//! sent until they are acknowledged or refused, and that its verdict rests on nothing but
//! the seed and what `GET` tells: it reads back every event. It never looks behind the
//! gateway, and it never calls good what it could not read.
//!
//! The path of a run, which is the order to read in:
//!
//! 1. [`args`], and [`run`](fn@run) below: what a publisher is told.
//! 2. `draw`, `plan`, `make`: pure, from the seed and a position to the bytes of an event.
//! 3. `client`, `retry`, `courier`: one connection; what an answer means; one request until
//!    it is decided.
//! 4. `load`: many connections at once; `file`: real events instead.
//! 5. `gateway`, `verify`: what is asked afterwards, and the verdict.
//! 6. `tally`, `report`, `progress`, `metrics`: what is told of it all.

pub mod args;
mod client;
mod courier;
mod draw;
mod file;
mod gateway;
mod load;
mod make;
mod metrics;
mod plan;
mod progress;
mod report;
mod retry;
mod run;
mod spans;
mod tally;
mod target;
#[cfg(test)]
mod tests;
mod verify;

use std::fs::OpenOptions;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::secret::read_key;
use lifecycle::{ConfigError, Process};

pub use args::Args;
use args::{Ack, Sending};
use client::Client;
use metrics::Metrics;
use report::Report;

/// Does what it is told, reports it, and says whether all went as it should.
pub async fn run(process: Process, args: Args) -> anyhow::Result<ExitCode> {
    let path = args.outcome.report.clone();
    let report = report(&process, args).await?;
    report.print();
    if let Some(path) = path {
        report.save(&path)?;
    }
    Ok(if report.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The same, without telling anyone.
async fn report(process: &Process, args: Args) -> anyhow::Result<Report> {
    args.check()?;
    let batch = args.batch();
    let Args {
        load,
        sending,
        outcome,
        admin_addr,
        process: process_args,
    } = args;
    if let Some(path) = &outcome.report {
        check_writable(path)?;
    }
    let metrics = Arc::new(Metrics::register(&process.metrics)?);
    let session = Session::new(sending, batch, metrics, grace(&process_args))?;
    // Each connection needs a file; shells often start programs with room for 1024.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "can't raise the limit of open files");
    }
    if let Some(addr) = admin_addr {
        process.serve_admin(addr)?;
    }
    let mut report = match load.file.clone() {
        Some(path) => file::run(process, &session, &path).await?,
        None => run::run(process, &session, load, outcome).await?,
    };
    report.conclude();
    Ok(report)
}

/// What both ways to send have in common.
struct Session {
    client: Client,
    ack: Ack,
    batch: u16,
    connections: usize,
    rate: f64,
    patience: Duration,
    /// How long the rest may take after a signal.
    grace: Duration,
    metrics: Arc<Metrics>,
}

impl Session {
    fn new(
        sending: Sending,
        batch: u16,
        metrics: Arc<Metrics>,
        grace: Duration,
    ) -> anyhow::Result<Self> {
        let (timeout, patience) = (sending.timeout(), sending.patience());
        let Sending {
            target_url,
            api_key_file,
            ack,
            concurrency,
            rate,
            timeout_ms: _,
            max_retry_seconds: _,
        } = sending;
        let key = api_key_file.map(|path| read_key("--api-key-file", &path));
        let key = key.transpose()?;
        let target = target_url.parse("--target-url")?;
        Ok(Self {
            client: Client::new(target, key.as_deref(), timeout)?,
            ack,
            batch,
            connections: concurrency.into(),
            rate,
            patience,
            grace,
            metrics,
        })
    }
}

/// What is left of the drain for a report, and a little less.
fn grace(args: &lifecycle::Args) -> Duration {
    const MARGIN_MS: u64 = 2_000;
    let drain = args.drain_deadline_ms.saturating_sub(args.drain_delay_ms);
    Duration::from_millis(drain.saturating_sub(MARGIN_MS).max(drain / 2))
}

/// A report that can't be written is better known before an hour of load than after it.
fn check_writable(path: &Path) -> Result<(), ConfigError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    let refuse = |error| ConfigError::new(format!("--report {}: {error}", path.display()));
    opened.map(drop).map_err(refuse)
}
