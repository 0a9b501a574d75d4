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

/// What is recorded in one transaction.
pub(crate) struct Work {
    pub(crate) batches: Vec<Batch>,
    /// What it is a part of.
    pub(crate) spans: Vec<Span>,
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
    /// Tries the very same batches until they are recorded: whatever an attempt without an
    /// answer has done, their identities tell. None for what is not recorded when the process
    /// is to end.
    pub(crate) async fn record(&mut self, all: &[Work]) -> Vec<Option<Vec<Recorded>>> {
        let _in_flight = self
            .metrics
            .in_flight(all.iter().flat_map(|work| &work.batches));
        let mut recorded = vec![None; all.len()];
        loop {
            let errors = self.attempt(all, &mut recorded).await;
            if errors.is_empty() {
                if recorded.iter().all(Option::is_some) {
                    self.trouble.over();
                }
                return recorded;
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
                return recorded;
            }
        }
    }

    /// Tries what is not recorded yet, once; what went wrong, if anything did.
    async fn attempt(
        &self,
        all: &[Work],
        recorded: &mut [Option<Vec<Recorded>>],
    ) -> Vec<StoreError> {
        let pending = all.iter().zip(recorded).filter(|(_, done)| done.is_none());
        let attempts = pending.map(async |(work, done)| match self.once(work).await {
            Some(Ok(recorded)) => {
                *done = Some(recorded);
                None
            }
            Some(Err(error)) => Some(error),
            None => None,
        });
        let errors = futures::future::join_all(attempts).await;
        errors.into_iter().flatten().collect()
    }

    async fn once(&self, work: &Work) -> Option<Result<Vec<Recorded>, StoreError>> {
        let cut_off = async {
            self.shutdown.cancelled().await;
            tokio::time::sleep(DRAIN_PATIENCE).await;
        };
        let result = tokio::select! {
            biased;
            result = self.store.record_within(&work.batches, now(), &work.spans) => result,
            () = cut_off => return None,
        };
        if result.is_ok() {
            self.metrics.committed(now());
        }
        Some(result)
    }
}
