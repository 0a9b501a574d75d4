//! What a gateway does besides answering.

use std::time::Duration;

use broker::Broker;
use lifecycle::{CancellationToken, Process, Ticks};
use store::Store;

use crate::keys::Keys;
use crate::tail::Tail;

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
    let migrated = upkeep::migrate(process, store);
    if let Some(broker) = broker {
        upkeep::check_queue(process, broker);
        let relay = tail.clone().relay(broker.clone(), process.shutdown.clone());
        process.tasks.spawn("tail", relay);
    } else {
        upkeep::check_store(process, store, &migrated);
        upkeep::housekeep(process, store, &migrated);
    }
    refresh_topics(process, store.clone(), migrated);
    if let Some(keys) = keys {
        process.tasks.spawn("keys", keys.watch());
    }
}

fn refresh_topics(process: &Process, store: Store, migrated: CancellationToken) {
    let shutdown = process.shutdown.clone();
    process.spawn_until_shutdown("topics", async move {
        migrated.cancelled().await;
        let mut ticks = Ticks::every(TOPICS, &shutdown);
        while ticks.next().await {
            if let Err(error) = store.refresh_topics().await {
                tracing::debug!(%error, "can't read the topics");
            }
        }
    });
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
