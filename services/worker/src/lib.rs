//! Moves events from the queue into the store.
//!
//! It guarantees that an entry is acknowledged only after the commit of its events, so that
//! a worker may die at any instant; what it had not acknowledged is delivered again, and
//! the store recognises what it had recorded. It never drops or buries anything because of
//! an outage: it waits. Its liveness depends on neither server.
//!
//! Read it in this order: [`start`], `step` (take, record, acknowledge), `record` and
//! `trouble` (what becomes of errors), `audit` (what a worker does besides).

pub mod args;
mod audit;
mod metrics;
mod record;
mod spans;
mod step;
mod trouble;

use std::process::ExitCode;
use std::time::Duration;

use broker::Broker;
use lifecycle::{ConfigError, Process, Program};
use store::{DatabaseUrl, Store};

pub use args::Args;
use metrics::Metrics;
use step::Step;

/// The program: reads its arguments and works until it is told to end.
pub fn main() -> ExitCode {
    let args: Args = lifecycle::parse();
    let process = args.process.clone();
    let program = Program::traced("sekali-worker", &["broker", "store", "worker"]);
    lifecycle::service(program, &process, async |process| start(&process, args))
}

/// Builds a worker, binds its port and starts its tasks.
pub fn start(process: &Process, args: Args) -> anyhow::Result<()> {
    let Args {
        database_url,
        broker_url,
        name,
        claim_idle_ms,
        batch_events,
        broker: broker_args,
        store: store_args,
        admin,
        process: _,
    } = args;
    let database = upkeep::database(&database_url, &store_args)?;
    let broker_url = upkeep::queue(&broker_url, &broker_args)?;
    if matches!(database, DatabaseUrl::Sqlite(_)) {
        let message = "--database-url must be postgres://...: an SQLite file belongs to one \
                       sekali-aggregator, which writes to it without a worker";
        return Err(ConfigError::new(message).into());
    }
    let name = name.map_or_else(host_name, Ok)?;
    let store = Store::new(&database, &store_args)?;
    let broker = Broker::new(&broker_url, &broker_args);
    let metrics = Metrics::register(&process.metrics)?;
    store.register(&process.metrics)?;
    broker.register(&process.metrics)?;
    process.serve_admin(admin.admin_addr)?;
    tracing::info!(%name, "takes from the queue");

    let migrated = upkeep::migrate(process, &store);
    upkeep::check_queue(process, &broker);
    upkeep::check_store(process, &store, &migrated);
    upkeep::housekeep(process, &store, &migrated);
    audit::start(process, &broker);
    let step = Step::new(
        broker.consumer(&name, Duration::from_millis(claim_idle_ms)),
        broker,
        store,
        batch_events as usize,
        metrics,
        process.shutdown.clone(),
    );
    process.tasks.spawn("consumer", step.run(migrated));
    Ok(())
}

fn host_name() -> Result<String, ConfigError> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_default();
    match name.trim() {
        "" => Err(ConfigError::new("--name is needed where the host has none")),
        name => Ok(name.to_owned()),
    }
}
