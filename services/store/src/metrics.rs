//! What a process counts of its own work on the store. What is stored is in the books.

use std::time::Duration;

use event::{Batch, Timestamp};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};
use sqlx::PgPool;

use crate::commit::Commits;
use crate::{Outcome, Recorded, StoreError};

const OUTCOMES: [(Outcome, &str); 4] = [
    (Outcome::Stored, "stored"),
    (Outcome::Duplicate, "duplicate"),
    (Outcome::Conflict, "conflict"),
    (Outcome::Buried, "buried"),
];

/// What a batch can be besides.
const RECORDED: &str = "recorded";
const AGAIN: &str = "again";

/// What an attempt can fail of.
const FAILURES: [&str; 4] = ["unavailable", "unknown", "unbalanced", "other"];

/// From the acceptance of an event to its commit, in seconds: with a bound at each second
/// that anyone has an opinion of, up to an hour's backlog.
const LATENCIES: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
    3600.0,
];

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    events: IntCounterVec,
    batches: IntCounterVec,
    record_seconds: Histogram,
    commit_seconds: Histogram,
    record_events: Histogram,
    accept_to_commit: Histogram,
    failures: IntCounterVec,
    pub(crate) connects: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self::build().expect("the names and the buckets are constants")
    }

    fn build() -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, label: &str| {
            IntCounterVec::new(Opts::new(name, help), &[label])
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))
        };
        // From a millisecond to sixteen seconds, after which a transaction is given up.
        let seconds = exponential_buckets(0.001, 2.0, 15)?;
        let metrics = Self {
            events: counter(
                "sekali_store_recorded_events_total",
                "Events recorded by this process, by what became of them: stored, duplicate, \
                 conflict (a duplicate with other content, counted only here) or buried.",
                "outcome",
            )?,
            batches: counter(
                "sekali_store_recorded_batches_total",
                "Batches taken to the store by this process: recorded, or again (recorded \
                 before, which counts nothing).",
                "result",
            )?,
            record_seconds: histogram(
                "sekali_store_record_duration_seconds",
                "A transaction of many batches, with its commit.",
                seconds.clone(),
            )?,
            commit_seconds: histogram(
                "sekali_store_commit_duration_seconds",
                "The commit alone, which waits for the disk.",
                seconds,
            )?,
            record_events: histogram(
                "sekali_store_record_events",
                "Events in one transaction.",
                exponential_buckets(1.0, 2.0, 15)?,
            )?,
            accept_to_commit: histogram(
                "sekali_store_accept_to_commit_seconds",
                "How long after a gateway took an event it was committed, by the clocks of both.",
                LATENCIES.to_vec(),
            )?,
            failures: counter(
                "sekali_store_failures_total",
                "Attempts to record that failed: unavailable (nothing was changed), unknown \
                 (whether is not known), unbalanced (a defect) or other.",
                "kind",
            )?,
            connects: IntCounter::new(
                "sekali_store_connects_total",
                "Connections made to the database; more than at the start are reconnects.",
            )?,
        };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// What tells of commits to a database of this kind.
    pub(crate) fn commits(&self, system: &'static str) -> Commits {
        Commits {
            system,
            seconds: self.commit_seconds.clone(),
        }
    }

    /// A counter that appears with its first event has no rate at it.
    fn begin_at_zero(&self) {
        for (_, outcome) in OUTCOMES {
            self.events.with_label_values(&[outcome]);
        }
        for result in [RECORDED, AGAIN] {
            self.batches.with_label_values(&[result]);
        }
        for kind in FAILURES {
            self.failures.with_label_values(&[kind]);
        }
    }

    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.events.clone()))?;
        registry.register(Box::new(self.batches.clone()))?;
        registry.register(Box::new(self.record_seconds.clone()))?;
        registry.register(Box::new(self.commit_seconds.clone()))?;
        registry.register(Box::new(self.record_events.clone()))?;
        registry.register(Box::new(self.accept_to_commit.clone()))?;
        registry.register(Box::new(self.failures.clone()))?;
        registry.register(Box::new(self.connects.clone()))
    }

    /// Counts a transaction that began at `began`, by the process's clock, and took so long.
    pub(crate) fn recorded(
        &self,
        batches: &[Batch],
        result: &Result<Vec<Recorded>, StoreError>,
        began: Timestamp,
        took: Duration,
    ) {
        let recorded = match result {
            Ok(recorded) => recorded,
            Err(error) => {
                self.failures.with_label_values(&[kind(error)]).inc();
                return;
            }
        };
        let events: u32 = batches.iter().map(|batch| batch.events.count()).sum();
        self.record_events.observe(f64::from(events));
        self.record_seconds.observe(took.as_secs_f64());
        let accept_to_commit = self.accept_to_commit.local();
        for (batch, recorded) in batches.iter().zip(recorded) {
            let Recorded::Now(outcomes) = recorded else {
                self.batches.with_label_values(&[AGAIN]).inc();
                continue;
            };
            self.batches.with_label_values(&[RECORDED]).inc();
            let waited = seconds_between(batch.received_at, began) + took.as_secs_f64();
            for _ in outcomes {
                accept_to_commit.observe(waited);
            }
            self.count(batch, outcomes);
        }
    }

    fn count(&self, batch: &Batch, outcomes: &[Outcome]) {
        if outcomes.is_empty() {
            // It could not be decoded, and was buried as one letter.
            let count = crate::record::claimed(&batch.events);
            let buried = self.events.with_label_values(&["buried"]);
            buried.inc_by(u64::try_from(count).unwrap_or_default());
        }
        self.outcomes(outcomes);
    }

    /// Counts events outside a batch: those of a dead letter that was replayed.
    pub(crate) fn outcomes(&self, outcomes: &[Outcome]) {
        for (outcome, label) in OUTCOMES {
            let count = outcomes.iter().filter(|one| **one == outcome).count();
            self.events.with_label_values(&[label]).inc_by(count as u64);
        }
    }
}

fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) => "unavailable",
        StoreError::OutcomeUnknown(_) => "unknown",
        StoreError::Unbalanced(_) => "unbalanced",
        StoreError::Unusable(_) | StoreError::Migration(_) => "other",
    }
}

/// At least 0, however the clocks differ.
#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds of a wait fit a double"
)]
fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    (to.as_micros() - from.as_micros()).max(0) as f64 / 1e6
}

/// The connections of a pool, as they are when they are asked for.
pub(crate) struct Connections {
    pool: PgPool,
    by_state: IntGaugeVec,
    limit: IntGauge,
}

impl Connections {
    pub(crate) fn new(pool: PgPool) -> prometheus::Result<Self> {
        let limit = IntGauge::new(
            "sekali_store_connections_limit",
            "The most connections that this process opens.",
        )?;
        limit.set(pool.options().get_max_connections().into());
        Ok(Self {
            pool,
            by_state: IntGaugeVec::new(
                Opts::new(
                    "sekali_store_connections",
                    "Connections to PostgreSQL: used or idle.",
                ),
                &["state"],
            )?,
            limit,
        })
    }
}

impl Collector for Connections {
    fn desc(&self) -> Vec<&Desc> {
        [self.by_state.desc(), self.limit.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let idle = i64::try_from(self.pool.num_idle()).unwrap_or(i64::MAX);
        let used = i64::from(self.pool.size()) - idle;
        self.by_state.with_label_values(&["idle"]).set(idle);
        // Both are read one after the other, while connections come and go.
        self.by_state.with_label_values(&["used"]).set(used.max(0));
        [self.by_state.collect(), self.limit.collect()].concat()
    }
}
