//! What gateways and workers alike do for their servers besides their work: find them, bring
//! the schema up to date, look whether they are well, keep house, tell of what was stored.
//!
//! It guarantees that no process waits for a server to start, that readiness says what was
//! last seen, and that nothing here holds up a drain: every task is cut off by the shutdown
//! wherever it is.

mod tell;

use std::time::Duration;

use broker::{Broker, BrokerUrl};
use event::Timestamp;
use lifecycle::{
    Backoff, CancellationToken, ConfigError, Process, Secret, Ticks, backoff, clock, seldom,
    with_password,
};
use store::{DatabaseUrl, Store};

pub use tell::{tell, told};

/// How often the queue and the store are asked whether they are well. A process may be ready
/// for so long, and for as long as an answer may take, without being able to do anything.
const CHECK: Duration = Duration::from_secs(2);

/// How often old identities and deleted topics are looked for.
const HOUSEKEEPING: Duration = Duration::from_mins(1);

/// The address that `--database-url` gives, with the password of the file, if there is one.
pub fn database(url: &Secret, args: &store::Args) -> Result<DatabaseUrl, ConfigError> {
    let file = args.database_password_file.as_deref();
    let file = ("--database-password-file", file);
    let url = url.parse("--database-url")?;
    with_password(url, file, DatabaseUrl::with_password)
}

/// The same of `--broker-url`.
pub fn queue(url: &Secret, args: &broker::Args) -> Result<BrokerUrl, ConfigError> {
    let file = args.broker_password_file.as_deref();
    let file = ("--broker-password-file", file);
    let url = url.parse("--broker-url")?;
    with_password(url, file, BrokerUrl::with_password)
}

/// Brings the schema up to date, trying on until that succeeds; what it returns is cancelled
/// then.
pub fn migrate(process: &Process, store: &Store) -> CancellationToken {
    let (store, migrated) = (store.clone(), CancellationToken::new());
    let (shutdown, done) = (process.shutdown.clone(), migrated.clone());
    process.spawn_until_shutdown("migrate", async move {
        let mut backoff = Backoff::new(CHECK / 10, CHECK, backoff::seed());
        while let Err(error) = store.migrate().await {
            seldom!(warn, %error, "can't migrate the store yet, trying on");
            backoff.pause(&shutdown).await;
        }
        tracing::info!("the schema is up to date");
        done.cancel();
        // A task that ends before the process is a failure.
        shutdown.cancelled().await;
    });
    migrated
}

/// Has the readiness say whether the queue is well.
pub fn check_queue(process: &Process, broker: &Broker) {
    let (broker, readiness) = (broker.clone(), process.readiness.clone());
    readiness.set("queue", Err("it has not been asked yet".into()));
    let mut ticks = Ticks::every(CHECK, &process.shutdown);
    process.spawn_until_shutdown("check queue", async move {
        while ticks.next().await {
            let checked = broker.check().await;
            readiness.set("queue", checked.map_err(|error| error.to_string()));
        }
    });
}

/// Has the readiness say whether the store is well.
pub fn check_store(process: &Process, store: &Store, migrated: &CancellationToken) {
    let (store, readiness) = (store.clone(), process.readiness.clone());
    let (migrated, shutdown) = (migrated.clone(), process.shutdown.clone());
    readiness.set("store", Err("the schema is not up to date yet".into()));
    process.spawn_until_shutdown("check store", async move {
        migrated.cancelled().await;
        let mut ticks = Ticks::every(CHECK, &shutdown);
        while ticks.next().await {
            let checked = store.check().await;
            readiness.set("store", checked.map_err(|error| error.to_string()));
        }
    });
}

/// Keeps house in the store, which one process of an installation has to do; with several, one
/// finds that the other has.
pub fn housekeep(process: &Process, store: &Store, migrated: &CancellationToken) {
    let (store, migrated) = (store.clone(), migrated.clone());
    let shutdown = process.shutdown.clone();
    process.spawn_until_shutdown("housekeep", async move {
        migrated.cancelled().await;
        let mut ticks = Ticks::every(HOUSEKEEPING, &shutdown);
        while ticks.next().await {
            keep_house(&store).await;
        }
    });
}

/// A step after another, until there is no more to do.
async fn keep_house(store: &Store) {
    loop {
        match store.housekeep(now()).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "can't keep house in the store; it is tried again");
                return;
            }
        }
    }
}

/// The time, as events have it.
pub fn now() -> Timestamp {
    // A clock outside the years 1 to 9999 is wrong by more than can be told from here.
    Timestamp::from_jiff(clock::now()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_not_ready_before_its_queue_has_answered() {
        // Connections wait in the backlog, and nobody ever answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let args = broker::Args {
            broker_password_file: None,
            broker_prefix: "test".into(),
        };
        let url = format!("redis://{}", silent.local_addr().unwrap());
        let broker = Broker::new(&url.parse().unwrap(), &args);
        let process = Process::new("test").unwrap();
        check_queue(&process, &broker);
        process.readiness.started();
        assert!(!process.readiness.is_ready());
        process.shutdown.cancel();
        process.tasks.join().await;
    }
}
