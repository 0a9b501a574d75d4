//! What a worker counts about its own work. What is stored is in the books.

use event::{Batch, Timestamp};
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    exponential_buckets,
};
use store::{Outcome, Recorded};

const OUTCOMES: [(Outcome, &str); 4] = [
    (Outcome::Stored, "stored"),
    (Outcome::Duplicate, "duplicate"),
    (Outcome::Conflict, "conflict"),
    (Outcome::Buried, "buried"),
];

/// What a batch can be besides.
const RECORDED: &str = "recorded";
const AGAIN: &str = "again";

#[derive(Clone)]
pub(crate) struct Metrics {
    events: IntCounterVec,
    batches: IntCounterVec,
    retries: IntCounterVec,
    in_flight: IntGauge,
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
        let in_flight = IntGauge::new(
            "sekali_worker_in_flight_events",
            "Events that are being recorded; stuck above 0, the store does not take them.",
        )?;
        registry.register(Box::new(in_flight.clone()))?;
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
        let metrics = Self {
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
            in_flight,
            record_seconds,
            last_commit,
            queue_lost,
        };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// A counter that appears with its first event has no rate at it.
    fn begin_at_zero(&self) {
        for (_, outcome) in OUTCOMES {
            self.events.with_label_values(&[outcome]);
        }
        for result in [RECORDED, AGAIN] {
            self.batches.with_label_values(&[result]);
        }
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
    pub(crate) fn recorded(&self, batches: &[Batch], recorded: &[Recorded], now: Timestamp) {
        for (batch, recorded) in batches.iter().zip(recorded) {
            let result = match recorded {
                Recorded::Again => AGAIN,
                Recorded::Now(outcomes) => {
                    self.count(batch, outcomes);
                    RECORDED
                }
            };
            self.batches.with_label_values(&[result]).inc();
        }
        self.last_commit.set(now.as_micros() as f64 / 1e6);
    }

    fn count(&self, batch: &Batch, outcomes: &[Outcome]) {
        for (outcome, label) in OUTCOMES {
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

/// Batches in flight.
pub(crate) struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.set(0);
    }
}
