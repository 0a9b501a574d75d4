//! What a worker counts besides what its queue and its store do.

use event::{Batch, Timestamp};
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Clone)]
pub(crate) struct Metrics {
    retries: IntCounterVec,
    in_flight: IntGauge,
    last_commit: Gauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            retries: IntCounterVec::new(
                Opts::new(
                    "sekali_worker_retries_total",
                    "Attempts that failed and were made again, by what failed.",
                ),
                &["dependency"],
            )?,
            in_flight: IntGauge::new(
                "sekali_worker_in_flight_events",
                "Events that are being recorded; stuck above 0, the store does not take them.",
            )?,
            last_commit: Gauge::new(
                "sekali_worker_last_commit_timestamp_seconds",
                "When this worker last committed, in seconds since 1970.",
            )?,
        };
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.last_commit.clone()))?;
        Ok(metrics)
    }

    /// The counter of failed attempts at a server.
    pub(crate) fn retries(&self, dependency: &str) -> IntCounter {
        self.retries.with_label_values(&[dependency])
    }

    /// Counts batches as in flight for as long as what it returns lives.
    pub(crate) fn in_flight<'b>(&self, batches: impl Iterator<Item = &'b Batch>) -> InFlight {
        let events = batches.map(|batch| i64::from(batch.events.count()));
        self.in_flight.set(events.sum());
        InFlight(self.in_flight.clone())
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds of this century fit a double"
    )]
    pub(crate) fn committed(&self, now: Timestamp) {
        self.last_commit.set(now.as_micros() as f64 / 1e6);
    }
}

/// Batches in flight.
pub(crate) struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.set(0);
    }
}
