//! The HTTP gateway of Sekali.
//!
//! It guarantees that a positive answer to `POST /publish` means that every event of the
//! request is on disk, that what it can't know it says (504), and that everything it holds
//! is bounded. It never sends anything to the queue or the store a second time, and keeps
//! no count of its own: what it tells of events comes from the books and the queue.
//!
//! The path of an event through here, which is the order to read in:
//!
//! 1. [`args`], and [`start`] below: what a gateway is made of.
//! 2. `gateway`: which path is whose; `keys`: who may take it.
//! 3. `body`: bytes within a budget; `publish`: events or the reasons why not.
//! 4. `intake` and `group`: many requests become one round trip to the queue or the store.
//! 5. `query`: what a question may say; `events` (a page ends with a `cursor`), `stats`,
//!    `letters`, `tail`: what can be asked afterwards.
//! 6. `error`: every answer that is not what was asked for.
//! 7. `index` and `openapi`: what a gateway says of its own interface.
//! 8. `besides`: what it does besides answering; `metrics`, `gauges` and `spans`: how it is
//!    watched.

pub mod args;
mod besides;
mod body;
mod cursor;
mod error;
mod events;
mod gateway;
mod gauges;
mod group;
mod index;
mod intake;
mod keys;
mod letters;
mod metrics;
mod openapi;
mod publish;
mod query;
mod spans;
mod stats;
mod tail;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use broker::Broker;
use lifecycle::{CancellationToken, ConfigError, Process, Program, http};
use store::{DatabaseUrl, Store};

pub use args::Args;
use gateway::{Gateway, Parts};
use gauges::Gauges;
use intake::Intake;
use keys::Keys;
use metrics::Metrics;
use tail::Tail;

/// The program: reads its arguments and serves until it is told to end.
pub fn main() -> ExitCode {
    let args: Args = lifecycle::parse();
    if args.print_openapi {
        return openapi::print();
    }
    let process = args.process.clone();
    let program = Program::traced("sekali-aggregator", &["aggregator", "broker", "store"]);
    lifecycle::service(program, &process, async |process| start(&process, args))
}

/// Builds a gateway, binds its ports and starts its tasks.
pub fn start(process: &Process, args: Args) -> anyhow::Result<()> {
    let Args {
        http_addr,
        database_url,
        broker_url,
        api_keys_file,
        limits,
        broker: broker_args,
        store: store_args,
        admin,
        process: _,
        print_openapi: _,
    } = args;
    let database = upkeep::database(&database_url, &store_args)?;
    let broker_url = broker_url
        .map(|url| upkeep::queue(&url, &broker_args))
        .transpose()?;
    check(&limits, &database, broker_url.is_some())?;
    let keys = read_keys(api_keys_file.as_deref(), &process.shutdown)?;
    raise_open_files();

    let store = Store::new(&database, &store_args)?;
    let broker = broker_url.map(|url| Broker::new(&url, &broker_args));
    let metrics = Arc::new(Metrics::register(&process.metrics)?);
    store.register(&process.metrics)?;
    if let Some(broker) = &broker {
        broker.register(&process.metrics)?;
    }
    let bodies = body::Reader::new(&limits);
    bodies.register(&process.metrics)?;
    let gauges = Gauges::register(&process.metrics, broker.is_some(), limits.metrics_topics)?;
    process.serve_admin(admin.admin_addr)?;
    let tail = Tail::new(broker.clone());
    let intake = Intake::start(
        broker.clone(),
        store.clone(),
        tail.clone(),
        &metrics,
        &process.tasks,
    );
    besides::start(process, &store, broker.as_ref(), &tail, keys.clone());
    gauges.start(process, &store, broker.as_ref());
    let unused = besides::close_when_unused(process, &store);
    let gateway = Gateway::new(Parts {
        store,
        broker,
        intake,
        bodies,
        tail,
        metrics,
        started: Instant::now(),
        shutdown: process.shutdown.clone(),
        _unused: unused.drop_guard(),
    });
    let router = gateway.router(keys.as_ref(), &process.readiness, process.metrics.clone());
    http::serve(
        "http",
        http::bind(http_addr)?,
        router,
        http::Limits::default(),
        &process.tasks,
        process.closing(),
    )?;
    Ok(())
}

/// Relations between settings.
fn check(
    limits: &args::Limits,
    database: &DatabaseUrl,
    has_broker: bool,
) -> Result<(), ConfigError> {
    if limits.body_budget_bytes < limits.max_body_bytes {
        return Err(ConfigError::new(
            "--body-budget-bytes must not be less than --max-body-bytes, or the largest bodies \
             are never let in",
        ));
    }
    if has_broker && matches!(database, DatabaseUrl::Sqlite(_)) {
        return Err(ConfigError::new(
            "--broker-url needs --database-url=postgres://..., which workers can reach: an \
             SQLite file belongs to one process",
        ));
    }
    Ok(())
}

fn read_keys(
    path: Option<&std::path::Path>,
    shutdown: &CancellationToken,
) -> Result<Option<Keys>, ConfigError> {
    let Some(path) = path else {
        tracing::warn!("without --api-keys-file, whoever reaches the port may do everything");
        return Ok(None);
    };
    let keys = Keys::read(path, shutdown);
    let keys = keys.map_err(|error| ConfigError::new(format!("--api-keys-file: {error:#}")))?;
    Ok(Some(keys))
}

/// Every connection needs a file; the limit that shells and service managers start with is
/// often 1024.
fn raise_open_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::info!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "can't raise the limit of open files"),
    }
}
