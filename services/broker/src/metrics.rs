//! What a process counts of its own work on the queue. What is in the queue, Redis says.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Where an exchange can fail, as [`crate::link::Failure`] has it.
pub(crate) const CONNECT: &str = "connect";
pub(crate) const REFUSED: &str = "refused";
pub(crate) const UNANSWERED: &str = "unanswered";

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) connects: IntCounter,
    pub(crate) claimed_entries: IntCounter,
    failures: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self::build().expect("the names are constants")
    }

    fn build() -> prometheus::Result<Self> {
        let metrics = Self {
            connects: IntCounter::new(
                "sekali_broker_connects_total",
                "Connections made to Redis; more than at the start are reconnects.",
            )?,
            claimed_entries: IntCounter::new(
                "sekali_broker_claimed_entries_total",
                "Entries claimed after they were pending for too long, nearly always with another worker.",
            )?,
            failures: IntCounterVec::new(
                Opts::new(
                    "sekali_broker_failures_total",
                    "Exchanges with Redis that failed: at the connect (nothing was sent), \
                     refused by Redis, or unanswered (what became of it is not known).",
                ),
                &["kind"],
            )?,
        };
        // A counter that appears with its first event has no rate at it.
        for kind in [CONNECT, REFUSED, UNANSWERED] {
            metrics.failures.with_label_values(&[kind]);
        }
        Ok(metrics)
    }

    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.connects.clone()))?;
        registry.register(Box::new(self.claimed_entries.clone()))?;
        registry.register(Box::new(self.failures.clone()))
    }

    pub(crate) fn failed(&self, kind: &str) {
        self.failures.with_label_values(&[kind]).inc();
    }
}
