//! Take, record, acknowledge.

use std::time::Duration;

use broker::{Broker, Consumer, Delivery, EntryId, Told};
use event::Batch;
use lifecycle::{Backoff, CancellationToken, backoff};
use store::{Outcome, Recorded, Store, StoreError};

use crate::metrics::Metrics;
use crate::now;

/// How long one read waits for entries.
const WAIT: Duration = Duration::from_secs(1);

/// Waits between attempts: short, since what waits is all that was sent meanwhile.
const BACKOFF_BASE: Duration = Duration::from_millis(20);
const BACKOFF_CAP: Duration = Duration::from_millis(500);

/// What moves events, one delivery after another.
pub(crate) struct Step {
    consumer: Consumer,
    broker: Broker,
    store: Store,
    batch_events: usize,
    metrics: Metrics,
    shutdown: CancellationToken,
    backoff: Backoff,
}

impl Step {
    pub(crate) fn new(
        consumer: Consumer,
        broker: Broker,
        store: Store,
        batch_events: usize,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            consumer,
            broker,
            store,
            batch_events,
            metrics,
            shutdown,
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP, backoff::seed()),
        }
    }

    /// Steps until the shutdown, beginning once there is a schema.
    pub(crate) async fn run(mut self, migrated: CancellationToken) -> anyhow::Result<()> {
        let shutdown = self.shutdown.clone();
        shutdown.run_until_cancelled(migrated.cancelled()).await;
        while !shutdown.is_cancelled() {
            self.step().await;
        }
        Ok(())
    }

    /// Moves one delivery. An error ends nothing: the same is tried again.
    async fn step(&mut self) {
        // Dropped at a shutdown, a read leaves what it was given to the next of this name.
        let next = self.consumer.next(self.batch_events, WAIT);
        let deliveries = match self.shutdown.run_until_cancelled(next).await {
            None => return,
            Some(Ok(deliveries)) => deliveries,
            Some(Err(error)) => {
                tracing::warn!(%error, "can't take from the queue");
                return self.retry("queue").await;
            }
        };
        if deliveries.is_empty() {
            return;
        }
        let (entries, batches) = split(deliveries);
        let Some(recorded) = self.record(&batches).await else {
            return;
        };
        // Only now, after the commit: killed before this line, the entries are delivered
        // again, and the store knows the batches by their identities and counts nothing;
        // killed after it, nothing is left to do.
        self.acknowledge(&entries).await;
        self.tell(&batches, &recorded).await;
    }

    /// Records until it succeeds; none if the process is to end before that.
    async fn record(&mut self, batches: &[Batch]) -> Option<Vec<Recorded>> {
        loop {
            let timer = self.metrics.record_seconds.start_timer();
            match self.store.record(batches, now()).await {
                Ok(recorded) => {
                    timer.observe_duration();
                    self.consumer.committed(true);
                    self.backoff.reset();
                    self.metrics.recorded(batches, &recorded, now());
                    return Some(recorded);
                }
                Err(error) => {
                    timer.stop_and_discard();
                    // What is claimed from others would wait here instead of there.
                    self.consumer.committed(false);
                    if matches!(error, StoreError::Unbalanced(_)) {
                        tracing::error!(%error, "a batch can't be recorded");
                    } else {
                        tracing::warn!(%error, "can't record yet, trying on");
                    }
                    self.retry("store").await;
                }
            }
            if self.shutdown.is_cancelled() {
                return None;
            }
        }
    }

    /// Acknowledges; if that fails, the entries come again and are known by then.
    async fn acknowledge(&mut self, entries: &[EntryId]) {
        if let Err(error) = self.consumer.acknowledge(entries).await {
            tracing::warn!(%error, "can't acknowledge");
            self.retry("queue").await;
        }
    }

    async fn retry(&mut self, dependency: &str) {
        self.metrics.retries.with_label_values(&[dependency]).inc();
        self.backoff.pause(&self.shutdown).await;
    }

    async fn tell(&self, batches: &[Batch], recorded: &[Recorded]) {
        if !self.broker.has_listeners().await {
            return;
        }
        for (batch, recorded) in batches.iter().zip(recorded) {
            let Recorded::Now(outcomes) = recorded else {
                continue;
            };
            let stored = |at: usize| outcomes.get(at) == Some(&Outcome::Stored);
            if let Some(told) = Told::of(batch, stored) {
                self.broker.tell(&told).await;
            }
        }
    }
}

fn split(deliveries: Vec<Delivery>) -> (Vec<EntryId>, Vec<Batch>) {
    deliveries
        .into_iter()
        .map(|delivery| (delivery.entry, delivery.batch))
        .unzip()
}
