//! What a worker does besides: migrations, checks, housekeeping, alarms.

use std::time::Duration;

use broker::{Broker, Depth};
use lifecycle::{CancellationToken, Process, Readiness, Ticks};
use store::Store;

use crate::metrics::Metrics;
use crate::now;
use crate::trouble::Trouble;

/// How often the queue and the store are asked whether they are well.
const CHECK: Duration = Duration::from_secs(2);

/// How often old identities and deleted topics are looked for.
const HOUSEKEEPING: Duration = Duration::from_mins(1);

/// How often the queue's counters are compared with what it holds.
const AUDIT: Duration = Duration::from_secs(10);

/// Starts the tasks; `migrated` is cancelled once the schema is up to date.
pub(crate) fn start(
    process: &Process,
    store: &Store,
    broker: &Broker,
    metrics: &Metrics,
    migrated: &CancellationToken,
) {
    let readiness = &process.readiness;
    readiness.set("store", Err("the schema is not up to date yet".into()));
    let trouble = Trouble::new("store", metrics.retries("store"));
    let migrate = migrate(
        store.clone(),
        trouble,
        migrated.clone(),
        process.shutdown.clone(),
    );
    spawn(process, "migrate", migrate);
    let shutdown = || process.shutdown.clone();
    let check = check_queue(broker.clone(), readiness.clone(), shutdown());
    spawn(process, "check queue", check);
    let check = check_store(
        store.clone(),
        readiness.clone(),
        migrated.clone(),
        shutdown(),
    );
    spawn(process, "check store", check);
    let housekeep = housekeep(store.clone(), migrated.clone(), shutdown());
    spawn(process, "housekeep", housekeep);
    let audit = audit(broker.clone(), shutdown());
    spawn(process, "audit", audit);
}

/// Spawns a task that is cut off by the shutdown wherever it is: nothing here has to be
/// finished, and a server that does not answer must not hold up the drain.
fn spawn(
    process: &Process,
    name: &'static str,
    work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    let shutdown = process.shutdown.clone();
    process.tasks.spawn(name, async move {
        let done = shutdown.run_until_cancelled(work).await;
        done.unwrap_or(Ok(()))
    });
}

/// Migrates, trying on until it succeeds.
async fn migrate(
    store: Store,
    mut trouble: Trouble,
    migrated: CancellationToken,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    while let Err(error) = store.migrate().await {
        if trouble.is_news() {
            tracing::warn!(%error, "can't migrate the store yet, trying on");
        }
        trouble.pause(&shutdown).await;
    }
    tracing::info!("the schema is up to date");
    migrated.cancel();
    shutdown.cancelled().await;
    Ok(())
}

async fn check_queue(
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
    migrated.cancelled().await;
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
    migrated.cancelled().await;
    let mut ticks = Ticks::every(HOUSEKEEPING, &shutdown);
    while ticks.next().await {
        keep_house(&store).await;
    }
    Ok(())
}

/// A step after another, until there is no more to do.
async fn keep_house(store: &Store) {
    loop {
        match store.housekeep(now()).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "can't keep house in the store");
                return;
            }
        }
    }
}

async fn audit(broker: Broker, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = Ticks::every(AUDIT, &shutdown);
    while ticks.next().await {
        // A queue that can't be asked is the check's to report.
        let Ok(depth) = broker.depth().await else {
            continue;
        };
        for alarm in alarms(&depth) {
            tracing::error!(?depth, "{alarm}");
        }
    }
    Ok(())
}

/// What the counters say that must not be.
fn alarms(depth: &Depth) -> Vec<&'static str> {
    let mut alarms = Vec::new();
    if depth.lost() != 0 {
        alarms.push("the queue is empty, but not all that was counted in was counted out");
    }
    if depth.hidden().is_some_and(|entries| entries > 0) {
        alarms.push("the queue holds entries that no worker will be given");
    }
    alarms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_and_hidden_entries_are_alarms_and_a_backlog_is_none() {
        let healthy = Depth {
            entries: 5,
            events_in: 100,
            events_out: 50,
            pending: 2,
            lag: Some(3),
            ..Depth::default()
        };
        assert_eq!(alarms(&healthy), Vec::<&str>::new());
        let unknown = Depth {
            lag: None,
            ..healthy
        };
        assert_eq!(alarms(&unknown), Vec::<&str>::new());
        let hidden = Depth {
            lag: Some(2),
            ..healthy
        };
        assert_eq!(alarms(&hidden).len(), 1);
        let lost = Depth {
            entries: 0,
            pending: 0,
            lag: Some(0),
            ..healthy
        };
        assert_eq!((alarms(&lost).len(), lost.lost()), (1, 50));
    }
}
