//! What a gateway does besides answering: migrations, checks, housekeeping.

use std::time::Duration;

use broker::Broker;
use lifecycle::{Backoff, CancellationToken, Process, Readiness, Ticks, backoff};
use store::Store;

use crate::intake::now;
use crate::keys::Keys;
use crate::tail::Tail;

/// How often the queue and the store are asked whether they are well, so how long a
/// gateway may be ready without being able to take anything.
const CHECK: Duration = Duration::from_secs(2);

/// How often old identities and deleted topics are looked for.
const HOUSEKEEPING: Duration = Duration::from_mins(1);

/// How old the knowledge of which topics exist may be.
const TOPICS: Duration = Duration::from_secs(5);

/// How long the store has to close its connections.
const CLOSE: Duration = Duration::from_secs(5);

/// Starts the tasks. With a queue, the store's housekeeping is the workers' work.
pub(crate) fn start(
    process: &Process,
    store: &Store,
    broker: Option<&Broker>,
    tail: &Tail,
    keys: Option<Keys>,
) {
    let shutdown = || process.shutdown.clone();
    let migrated = CancellationToken::new();
    process.tasks.spawn(
        "migrate",
        migrate(store.clone(), migrated.clone(), shutdown()),
    );
    let readiness = process.readiness.clone();
    if let Some(broker) = broker {
        let check = check_broker(broker.clone(), readiness, shutdown());
        process.tasks.spawn("check", check);
        let relay = tail.clone().relay(broker.clone(), shutdown());
        process.tasks.spawn("tail", relay);
    } else {
        let check = check_store(store.clone(), readiness, migrated.clone(), shutdown());
        process.tasks.spawn("check", check);
        let housekeep = housekeep(store.clone(), migrated.clone(), shutdown());
        process.tasks.spawn("housekeep", housekeep);
    }
    let topics = refresh_topics(store.clone(), migrated, shutdown());
    process.tasks.spawn("topics", topics);
    if let Some(keys) = keys {
        process.tasks.spawn("keys", keys.watch(shutdown()));
    }
}

/// Closes the store in the drain, once what it returns is cancelled: an SQLite file is then
/// without a log beside it, and can be copied as it is.
pub(crate) fn close_when_unused(process: &Process, store: &Store) -> CancellationToken {
    let unused = CancellationToken::new();
    let (store, is_unused) = (store.clone(), unused.clone());
    let shutdown = process.shutdown.clone();
    process.tasks.spawn("close", async move {
        is_unused.cancelled().await;
        shutdown.cancelled().await;
        store.close(CLOSE).await;
        Ok(())
    });
    unused
}

/// Migrates, trying on until it succeeds.
async fn migrate(
    store: Store,
    migrated: CancellationToken,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(CHECK / 10, CHECK, backoff::seed());
    while let Err(error) = store.migrate().await {
        tracing::warn!(%error, "can't migrate the store yet");
        if !backoff.pause(&shutdown).await {
            return Ok(());
        }
    }
    tracing::info!("the schema is up to date");
    migrated.cancel();
    shutdown.cancelled().await;
    Ok(())
}

async fn check_broker(
    broker: Broker,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut ticks = Ticks::every(CHECK, &shutdown);
    while ticks.next().await {
        let checked = broker.check().await;
        readiness.set("queue", checked.map_err(|error| error.to_string()));
    }
    Ok(())
}

async fn check_store(
    store: Store,
    readiness: Readiness,
    migrated: CancellationToken,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    readiness.set("store", Err("the schema is not up to date yet".into()));
    shutdown.run_until_cancelled(migrated.cancelled()).await;
    let mut ticks = Ticks::every(CHECK, &shutdown);
    while ticks.next().await {
        let checked = store.check().await;
        readiness.set("store", checked.map_err(|error| error.to_string()));
    }
    Ok(())
}

async fn housekeep(
    store: Store,
    migrated: CancellationToken,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    shutdown.run_until_cancelled(migrated.cancelled()).await;
    let mut ticks = Ticks::every(HOUSEKEEPING, &shutdown);
    while ticks.next().await {
        keep_house(&store, &shutdown).await;
    }
    Ok(())
}

/// A step after another, until there is no more to do.
async fn keep_house(store: &Store, shutdown: &CancellationToken) {
    loop {
        match store.housekeep(now()).await {
            Ok(true) if !shutdown.is_cancelled() => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "can't keep house in the store");
                return;
            }
        }
    }
}

async fn refresh_topics(
    store: Store,
    migrated: CancellationToken,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    shutdown.run_until_cancelled(migrated.cancelled()).await;
    let mut ticks = Ticks::every(TOPICS, &shutdown);
    while ticks.next().await {
        if let Err(error) = store.refresh_topics().await {
            tracing::debug!(%error, "can't read the topics");
        }
    }
    Ok(())
}
