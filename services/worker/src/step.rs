//! Take, record, acknowledge.

use std::time::Duration;

use broker::{Broker, Consumer, Delivery, EntryId};
use event::{Batch, Partition};
use lifecycle::{CancellationToken, seldom};
use store::Store;

use crate::metrics::Metrics;
use crate::record::{Recorder, Work};
use crate::spans;
use crate::trouble::Trouble;

/// How long one read waits for entries.
const WAIT: Duration = Duration::from_secs(1);

/// A delivery of fewer events is recorded in one transaction: four small ones have four
/// commits to pay for. Of single events, which arrive so, 19,600 to 22,600 a second were
/// acknowledged (six runs, with 500 and 2,000 the same) instead of 16,000 (one), and
/// PostgreSQL used 25 to 30 us of CPU for each instead of 46 (2026-11-24, by hand).
const TOGETHER: usize = 1_000;

/// What moves events, one delivery after another.
pub(crate) struct Step {
    consumer: Consumer,
    recorder: Recorder,
    broker: Broker,
    batch_events: usize,
    shutdown: CancellationToken,
    taking: Trouble,
    acknowledging: Trouble,
    /// Taken while the delivery before it was recorded, so that the store need not wait for
    /// the queue.
    ahead: Option<Taken>,
}

/// A delivery, taken apart by partition if it is large; each share has something.
struct Taken(Vec<Share>);

/// What is recorded in one transaction.
#[derive(Default)]
struct Share {
    entries: Vec<EntryId>,
    batches: Vec<Batch>,
    /// Of each batch, the traces that it is part of.
    traceparents: Vec<Vec<String>>,
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
            taking: Trouble::new("queue", metrics.retries("queue")),
            acknowledging: Trouble::new("queue", metrics.retries("queue")),
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
        let Some(Taken(shares)) = self.take().await else {
            return;
        };
        let (entries, work): (Vec<_>, Vec<_>) = shares
            .into_iter()
            .map(|share| {
                let spans = spans::process(&share.batches, &share.traceparents);
                let work = Work {
                    batches: share.batches,
                    spans,
                };
                (share.entries, work)
            })
            .unzip();
        #[cfg(feature = "acknowledge-before-commit")]
        self.acknowledge(&entries.concat()).await;
        crash::point!("delivered");
        let record = self.recorder.record(&work);
        let take_ahead = take_ahead(&mut self.consumer, self.batch_events, &self.shutdown);
        let (recorded, ahead) = tokio::join!(record, take_ahead);
        let all = recorded.iter().all(Option::is_some);
        if all {
            self.ahead = ahead;
        }
        // What is not recorded now is not lost: the process ends, and it stays pending under
        // this name.
        let committed = entries
            .iter()
            .zip(&recorded)
            .filter(|(_, done)| done.is_some());
        let committed: Vec<_> = committed
            .flat_map(|(entries, _)| entries)
            .cloned()
            .collect();
        // Only now, after the commits: killed before this line, the entries are delivered
        // again, and the store knows the batches by their identities and counts nothing;
        // killed after it, nothing is left to do.
        crash::point!("acknowledge");
        self.acknowledge(&committed).await;
        for (work, recorded) in work.iter().zip(recorded) {
            if let Some(recorded) = recorded {
                upkeep::tell(&self.broker, &work.batches, &recorded).await;
            }
        }
    }

    async fn take(&mut self) -> Option<Taken> {
        if let Some(ahead) = self.ahead.take() {
            return Some(ahead);
        }
        // Dropped at a shutdown, a read leaves what it was given to the next of this name.
        let next = self.consumer.next(self.batch_events, WAIT);
        match self.shutdown.run_until_cancelled(next).await? {
            Ok(deliveries) => {
                self.taking.over();
                Taken::of(deliveries)
            }
            Err(error) => {
                self.taking.failed();
                seldom!(warn, %error, "can't take from the queue yet, trying on");
                self.taking.pause(&self.shutdown).await;
                None
            }
        }
    }

    /// Acknowledges; if that fails, the entries come again, at once, and are known by then.
    async fn acknowledge(&mut self, entries: &[EntryId]) {
        match self.consumer.acknowledge(entries).await {
            Ok(_) => self.acknowledging.over(),
            Err(error) => {
                self.acknowledging.failed();
                seldom!(warn, %error, "can't acknowledge to the queue yet, trying on");
                self.acknowledging.pause(&self.shutdown).await;
            }
        }
    }
}

impl Taken {
    fn of(deliveries: Vec<Delivery>) -> Option<Self> {
        let events = |delivery: &Delivery| delivery.batch.events.count() as usize;
        let together = deliveries.iter().map(events).sum::<usize>() < TOGETHER;
        let mut shares: [Share; Partition::COUNT] = Default::default();
        for delivery in deliveries {
            let part = if together {
                0
            } else {
                delivery.partition.number()
            };
            let share = &mut shares[part];
            share.entries.push(delivery.entry);
            share.batches.push(delivery.batch);
            share.traceparents.push(delivery.traceparents);
        }
        let shares = shares.into_iter().filter(|share| !share.entries.is_empty());
        let shares: Vec<_> = shares.collect();
        (!shares.is_empty()).then_some(Self(shares))
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
mod model;
#[cfg(test)]
mod tests;
