//! Take, record, acknowledge.

use std::time::Duration;

use broker::{Broker, Consumer, Delivery, EntryId};
use event::Batch;
use lifecycle::CancellationToken;
use store::Store;

use crate::metrics::Metrics;
use crate::record::Recorder;
use crate::tell::tell;
use crate::trouble::Trouble;

/// How long one read waits for entries.
const WAIT: Duration = Duration::from_secs(1);

/// What moves events, one delivery after another.
pub(crate) struct Step {
    consumer: Consumer,
    recorder: Recorder,
    broker: Broker,
    batch_events: usize,
    shutdown: CancellationToken,
    trouble: Trouble,
    /// Taken while the delivery before it was recorded, so that the store need not wait for
    /// the queue.
    ahead: Option<Taken>,
}

/// A delivery, taken apart.
struct Taken {
    entries: Vec<EntryId>,
    batches: Vec<Batch>,
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
            batch_events,
            trouble: Trouble::new("queue", metrics.retries("queue")),
            recorder: Recorder::new(store, metrics, shutdown.clone()),
            shutdown,
            ahead: None,
        }
    }

    /// Steps until the shutdown, beginning once there is a schema. What was taken by then
    /// is recorded and acknowledged, unless the store fails.
    pub(crate) async fn run(mut self, migrated: CancellationToken) -> anyhow::Result<()> {
        let shutdown = self.shutdown.clone();
        shutdown.run_until_cancelled(migrated.cancelled()).await;
        while !shutdown.is_cancelled() || self.ahead.is_some() {
            self.step().await;
        }
        Ok(())
    }

    /// Moves one delivery. An error ends nothing: the same is tried again.
    pub(crate) async fn step(&mut self) {
        let Some(Taken { entries, batches }) = self.take().await else {
            return;
        };
        let record = self.recorder.record(&batches);
        let take_ahead = take_ahead(&mut self.consumer, self.batch_events, &self.shutdown);
        let (recorded, ahead) = tokio::join!(record, take_ahead);
        self.consumer.committed(recorded.is_some());
        let Some(recorded) = recorded else {
            // The process ends. Nothing is lost: all of it stays pending under this name.
            return;
        };
        self.ahead = ahead;
        // Only now, after the commit: killed before this line, the entries are delivered
        // again, and the store knows the batches by their identities and counts nothing;
        // killed after it, nothing is left to do.
        self.acknowledge(&entries).await;
        tell(&self.broker, &batches, &recorded).await;
    }

    async fn take(&mut self) -> Option<Taken> {
        if let Some(ahead) = self.ahead.take() {
            return Some(ahead);
        }
        // Dropped at a shutdown, a read leaves what it was given to the next of this name.
        let next = self.consumer.next(self.batch_events, WAIT);
        match self.shutdown.run_until_cancelled(next).await? {
            Ok(deliveries) => {
                self.trouble.over();
                Taken::of(deliveries)
            }
            Err(error) => {
                if self.trouble.is_news() {
                    tracing::warn!(%error, "can't take from the queue yet, trying on");
                }
                self.trouble.pause(&self.shutdown).await;
                None
            }
        }
    }

    /// Acknowledges; if that fails, the entries come again and are known by then.
    async fn acknowledge(&mut self, entries: &[EntryId]) {
        if let Err(error) = self.consumer.acknowledge(entries).await
            && self.trouble.is_news()
        {
            tracing::warn!(%error, "can't acknowledge to the queue");
        }
    }
}

impl Taken {
    fn of(deliveries: Vec<Delivery>) -> Option<Self> {
        let (entries, batches): (Vec<_>, Vec<_>) = deliveries
            .into_iter()
            .map(|delivery| (delivery.entry, delivery.batch))
            .unzip();
        (!entries.is_empty()).then_some(Self { entries, batches })
    }
}

/// What there is already, without waiting for more.
async fn take_ahead(
    consumer: &mut Consumer,
    batch_events: usize,
    shutdown: &CancellationToken,
) -> Option<Taken> {
    let next = consumer.next(batch_events, Duration::ZERO);
    // If it fails, the next step fails as well, and waits.
    Taken::of(shutdown.run_until_cancelled(next).await?.ok()?)
}

#[cfg(test)]
mod tests;
