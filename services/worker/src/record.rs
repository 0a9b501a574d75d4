//! Recording, until it succeeds.

use std::time::Duration;

use event::Batch;
use lifecycle::CancellationToken;
use store::{Recorded, Store, StoreError};

use crate::metrics::Metrics;
use crate::now;
use crate::trouble::Trouble;

/// How long a drain waits for the answer of a store that gives none. Cut off, the commit may
/// still happen; the entries come again, and the batches are known by then.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

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

    /// Tries the very same batches until they are recorded: whatever an attempt without an
    /// answer has done, their identities tell. None if the process is to end before that.
    pub(crate) async fn record(&mut self, batches: &[Batch]) -> Option<Vec<Recorded>> {
        let _in_flight = self.metrics.in_flight(batches);
        loop {
            let timer = self.metrics.record_seconds.start_timer();
            let error = match self.attempt(batches).await? {
                Ok(recorded) => {
                    timer.observe_duration();
                    self.trouble.over();
                    self.metrics.recorded(batches, &recorded, now());
                    return Some(recorded);
                }
                Err(error) => error,
            };
            timer.stop_and_discard();
            if self.trouble.is_news() {
                if let StoreError::Unbalanced(_) = error {
                    // A defect. Nothing is dropped, and nothing goes on, until it is mended.
                    tracing::error!(%error, "a batch can't be recorded");
                } else {
                    tracing::warn!(%error, "can't record yet, trying on");
                }
            }
            self.trouble.pause(&self.shutdown).await;
            if self.shutdown.is_cancelled() {
                return None;
            }
        }
    }

    async fn attempt(&self, batches: &[Batch]) -> Option<Result<Vec<Recorded>, StoreError>> {
        let cut_off = async {
            self.shutdown.cancelled().await;
            tokio::time::sleep(DRAIN_PATIENCE).await;
        };
        tokio::select! {
            biased;
            result = self.store.record(batches, now()) => Some(result),
            () = cut_off => None,
        }
    }
}
