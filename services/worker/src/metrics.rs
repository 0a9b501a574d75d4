//! What a worker counts about its own work. What is stored is in the books.

use event::{Batch, Timestamp};
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets,
};
use store::{Outcome, Recorded};

#[derive(Clone)]
pub(crate) struct Metrics {
    events: IntCounterVec,
    batches: IntCounterVec,
    pub(crate) retries: IntCounterVec,
    pub(crate) record_seconds: Histogram,
    last_commit: Gauge,
    pub(crate) queue_lost: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, label: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let record_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "sekali_worker_record_duration_seconds",
                "One transaction, of many batches.",
            )
            // From a millisecond to sixteen seconds, after which it is given up.
            .buckets(exponential_buckets(0.001, 2.0, 15)?),
        )?;
        registry.register(Box::new(record_seconds.clone()))?;
        let last_commit = Gauge::new(
            "sekali_worker_last_commit_timestamp_seconds",
            "When this worker last committed, in seconds since 1970.",
        )?;
        registry.register(Box::new(last_commit.clone()))?;
        let queue_lost = IntGauge::new(
            "sekali_queue_lost_events",
            "Events that were counted into an empty queue and never out: a loss.",
        )?;
        registry.register(Box::new(queue_lost.clone()))?;
        Ok(Self {
            events: counter(
                "sekali_worker_events_total",
                "Events recorded by this worker, by what became of them.",
                "outcome",
            )?,
            batches: counter(
                "sekali_worker_batches_total",
                "Batches taken by this worker: recorded, or again (recorded before).",
                "result",
            )?,
            retries: counter(
                "sekali_worker_retries_total",
                "Attempts that failed and were made again, by what failed.",
                "dependency",
            )?,
            record_seconds,
            last_commit,
            queue_lost,
        })
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds of this century fit a double"
    )]
    pub(crate) fn recorded(&self, batches: &[Batch], recorded: &[Recorded], now: Timestamp) {
        for (batch, recorded) in batches.iter().zip(recorded) {
            let result = match recorded {
                Recorded::Again => "again",
                Recorded::Now(outcomes) => {
                    self.count(batch, outcomes);
                    "recorded"
                }
            };
            self.batches.with_label_values(&[result]).inc();
        }
        self.last_commit.set(now.as_micros() as f64 / 1e6);
    }

    fn count(&self, batch: &Batch, outcomes: &[Outcome]) {
        for (outcome, label) in [
            (Outcome::Stored, "stored"),
            (Outcome::Duplicate, "duplicate"),
            (Outcome::Conflict, "conflict"),
            (Outcome::Buried, "buried"),
        ] {
            let count = outcomes.iter().filter(|one| **one == outcome).count();
            self.events.with_label_values(&[label]).inc_by(count as u64);
        }
        if outcomes.is_empty() {
            // It could not be decoded, and was buried as one letter.
            let count = u64::from(batch.events.count()).max(1);
            self.events.with_label_values(&["buried"]).inc_by(count);
        }
    }
}
