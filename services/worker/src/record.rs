//! Recording, until it succeeds.

use std::time::Duration;

use event::Batch;
use lifecycle::{CancellationToken, seldom};
use store::{Recorded, Store, StoreError};
use tracing::Span;
use upkeep::now;

use crate::metrics::Metrics;
use crate::trouble::Trouble;

/// How long a drain waits for the answer of a store that gives none. Cut off, the commit may
/// still happen; the entries come again, and the batches are known by then.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// Where halving ends: some hundred small events, which a store that works at all records in
/// time. Less, and what was taken before a long outage would be recorded event by event after it.
const LEAST_BYTES: usize = 64 * 1024;

/// What is recorded in one transaction, if the store takes that much in time.
pub(crate) struct Work {
    pub(crate) batches: Vec<Batch>,
    /// What it is a part of.
    pub(crate) spans: Vec<Span>,
}

/// How far work has come.
struct Progress<'w> {
    work: &'w Work,
    /// Of its first batches.
    recorded: Vec<Recorded>,
    /// The most that one transaction is given, in bytes of events.
    most_bytes: usize,
}

/// Records batches, however often it takes.
pub(crate) struct Recorder {
    store: Store,
    metrics: Metrics,
    shutdown: CancellationToken,
    trouble: Trouble,
}

impl Recorder {
    pub(crate) fn new(store: Store, metrics: Metrics, shutdown: CancellationToken) -> Self {
        Self {
            trouble: Trouble::new("store", metrics.retries("store")),
            store,
            metrics,
            shutdown,
        }
    }

    /// Records work, which has no key in common, in a transaction each, all at one time.
    ///
    /// Tries until all batches are recorded: whatever an attempt without an answer has done,
    /// their identities tell, each for itself, so that the next attempt may divide them in
    /// another way. None for what is not recorded when the process is to end.
    pub(crate) async fn record(&mut self, all: &[Work]) -> Vec<Option<Vec<Recorded>>> {
        let _in_flight = self
            .metrics
            .in_flight(all.iter().flat_map(|work| &work.batches));
        let mut all: Vec<_> = all.iter().map(Progress::new).collect();
        loop {
            let errors = self.attempt(&mut all).await;
            if errors.is_empty() {
                if all.iter().all(|progress| progress.next().is_none()) {
                    self.trouble.over();
                }
                break;
            }
            self.trouble.failed();
            for error in errors {
                if let StoreError::Unbalanced(_) = error {
                    // A defect. Nothing is dropped, and nothing goes on, until it is mended.
                    seldom!(error, %error, "a batch can't be recorded");
                } else {
                    seldom!(warn, %error, "can't record yet, trying on");
                }
            }
            self.trouble.pause(&self.shutdown).await;
            if self.shutdown.is_cancelled() {
                break;
            }
        }
        all.into_iter().map(Progress::end).collect()
    }

    /// Tries what is not recorded yet, once; what went wrong, if anything did.
    async fn attempt(&self, all: &mut [Progress<'_>]) -> Vec<StoreError> {
        let attempts = all.iter_mut().map(|progress| self.go_on(progress));
        let errors = futures::future::join_all(attempts).await;
        errors.into_iter().flatten().collect()
    }

    /// Records one part after another, since they may have keys in common and share a line,
    /// until one fails.
    async fn go_on(&self, progress: &mut Progress<'_>) -> Option<StoreError> {
        while let Some(part) = progress.next() {
            match self.once(part, &progress.work.spans).await? {
                Ok(recorded) => progress.recorded.extend(recorded),
                Err(error) => {
                    progress.halve();
                    return Some(error);
                }
            }
        }
        None
    }

    async fn once(
        &self,
        batches: &[Batch],
        spans: &[Span],
    ) -> Option<Result<Vec<Recorded>, StoreError>> {
        let cut_off = async {
            self.shutdown.cancelled().await;
            tokio::time::sleep(DRAIN_PATIENCE).await;
        };
        let result = tokio::select! {
            biased;
            result = self.store.record_within(batches, now(), spans) => result,
            () = cut_off => return None,
        };
        if result.is_ok() {
            self.metrics.committed(now());
        }
        Some(result)
    }
}

impl<'w> Progress<'w> {
    fn new(work: &'w Work) -> Self {
        Self {
            work,
            recorded: Vec::with_capacity(work.batches.len()),
            most_bytes: usize::MAX,
        }
    }

    /// What the next transaction records: at least one batch, which is never divided.
    fn next(&self) -> Option<&'w [Batch]> {
        let left = &self.work.batches[self.recorded.len()..];
        let mut bytes = 0;
        let fits = |batch: &&Batch| {
            bytes += batch.events.as_bytes().len();
            bytes <= self.most_bytes
        };
        let count = left.iter().take_while(fits).count().max(1);
        left.get(..count)
    }

    /// After a failure, whatever it was: where the line or the store is too slow for that much
    /// in one transaction, the same again would fail for ever.
    fn halve(&mut self) {
        let tried = self.next().into_iter().flatten();
        let bytes: usize = tried.map(|batch| batch.events.as_bytes().len()).sum();
        self.most_bytes = (bytes / 2).max(LEAST_BYTES);
    }

    /// What became of all of it, if it is all recorded.
    fn end(self) -> Option<Vec<Recorded>> {
        (self.recorded.len() == self.work.batches.len()).then_some(self.recorded)
    }
}

#[cfg(test)]
mod tests {
    use event::{BatchId, EncodedEvents, Timestamp};

    use super::*;

    fn work(sizes: &[usize]) -> Work {
        let batch = |bytes: &usize| Batch {
            id: BatchId(uuid::Uuid::nil()),
            received_at: Timestamp::MIN,
            events: EncodedEvents::from_parts(vec![0; *bytes].into(), 1),
        };
        Work {
            batches: sizes.iter().map(batch).collect(),
            spans: Vec::new(),
        }
    }

    #[test]
    fn what_fails_is_tried_by_halves_of_its_bytes_down_to_one_batch_or_to_little() {
        let kib = |n: usize| n * 1024;
        let large = work(&[kib(256), kib(256), kib(512), kib(1024)]);
        let mut progress = Progress::new(&large);
        let mut tried = Vec::new();
        for _ in 0..5 {
            tried.push(progress.next().map(<[Batch]>::len));
            progress.halve();
        }
        assert_eq!(tried, [4, 3, 2, 1, 1].map(Some));
        let mut lengths = Vec::new();
        while let Some(part) = progress.next() {
            lengths.push(part.len());
            progress
                .recorded
                .extend(part.iter().map(|_| Recorded::Again));
        }
        assert_eq!(lengths, [1, 1, 1, 1]);
        assert_eq!(progress.end().map(|recorded| recorded.len()), Some(4));

        let small = work(&[kib(1); 200]);
        let mut progress = Progress::new(&small);
        for _ in 0..50 {
            progress.halve();
        }
        assert_eq!(progress.next().map(<[Batch]>::len), Some(64));
        assert_eq!(progress.end(), None);
    }
}
