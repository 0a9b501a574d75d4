//! What one connection has sent and what came of it; all of them together are the run.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::courier::{Delivery, Outcome};
use crate::metrics::Metrics;
use crate::retry::{End, Receipt, Request};

/// How many failures are told of in words; further ones are counted.
pub(crate) const MAX_TOLD: usize = 5;

/// Longer latencies are counted as this: a day.
const MAX_MICROS: u64 = 86_400_000_000;

/// What the books of a topic must lie between.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TopicTally {
    /// Events of requests that were acknowledged.
    pub(crate) acknowledged: u64,
    /// The same, and events of attempts whose outcome is unknown, each time anew.
    pub(crate) taken_at_most: u64,
}

/// Counts, of events unless they say requests.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) topics: Vec<TopicTally>,
    /// In requests that left at least once.
    pub(crate) sent: u64,
    /// The same, again for every attempt.
    pub(crate) attempted: u64,
    pub(crate) acknowledged: u64,
    /// In malformed requests, refused as they should be.
    pub(crate) refused: u64,
    /// Refused though they should not be.
    pub(crate) refused_unexpectedly: u64,
    /// Neither acknowledged nor refused.
    pub(crate) failed: u64,
    pub(crate) requests: u64,
    /// Attempts at requests after their first.
    pub(crate) retries: u64,
    /// What acknowledgements of `ack=stored` said.
    pub(crate) buried: u64,
    /// Requests that should have been acknowledged and were not, by number.
    pub(crate) doubtful: Vec<u64>,
    /// Why the first requests failed.
    pub(crate) failures: Vec<String>,
    /// From the first attempt to the acknowledgement, in microseconds.
    pub(crate) latency: Histogram<u64>,
}

/// What was sent.
pub(crate) struct Parcel<'a> {
    pub(crate) number: u64,
    pub(crate) request: Request,
    pub(crate) events: u64,
    /// The topic of each event, where they are counted by topic.
    pub(crate) topics: &'a [usize],
}

impl Tally {
    pub(crate) fn new(topics: usize) -> Self {
        Self {
            topics: vec![TopicTally::default(); topics],
            sent: 0,
            attempted: 0,
            acknowledged: 0,
            refused: 0,
            refused_unexpectedly: 0,
            failed: 0,
            requests: 0,
            retries: 0,
            buried: 0,
            doubtful: Vec::new(),
            failures: Vec::new(),
            latency: Histogram::new(3).expect("three digits are within its bounds"),
        }
    }

    /// Enters a request that is over, one way or the other. Says whether it went as it
    /// should.
    pub(crate) fn enter(
        &mut self,
        parcel: &Parcel<'_>,
        delivery: &Delivery,
        metrics: &Metrics,
    ) -> bool {
        let events = parcel.events;
        self.requests += 1;
        self.retries += delivery.retries;
        self.attempted += delivery.sent * events;
        self.sent += events * delivery.sent.min(1);
        for topic in parcel.topics {
            self.topics[*topic].taken_at_most += delivery.taken_at_most;
        }
        let failure = match &delivery.outcome {
            Outcome::Over(End::Acknowledged(receipt)) => {
                self.acknowledge(parcel, receipt, delivery.took, metrics);
                return receipt.buried == 0;
            }
            Outcome::Over(End::RefusedAsExpected) => {
                self.refused += events;
                metrics.refused.inc_by(events);
                return true;
            }
            Outcome::Over(End::Refused(why)) => {
                self.refused_unexpectedly += events;
                metrics.refused.inc_by(events);
                why.clone()
            }
            Outcome::Over(End::Failed(why)) => self.fail(events, metrics, why.clone()),
            Outcome::GaveUp(why) => self.fail(events, metrics, format!("gave up: {why}")),
            Outcome::Interrupted(why) => {
                let why = format!("stopped before it was acknowledged: {why}");
                self.fail(events, metrics, why)
            }
        };
        self.tell(failure);
        if parcel.request != Request::Malformed {
            self.doubtful.push(parcel.number);
        }
        false
    }

    /// What goes wrong apart from any request.
    pub(crate) fn tell(&mut self, failure: String) {
        if self.failures.len() < MAX_TOLD && !self.failures.contains(&failure) {
            self.failures.push(failure);
        }
    }

    pub(crate) fn join(mut self, other: Self) -> Self {
        for (topic, other) in self.topics.iter_mut().zip(&other.topics) {
            topic.acknowledged += other.acknowledged;
            topic.taken_at_most += other.taken_at_most;
        }
        self.sent += other.sent;
        self.attempted += other.attempted;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.refused_unexpectedly += other.refused_unexpectedly;
        self.failed += other.failed;
        self.requests += other.requests;
        self.retries += other.retries;
        self.buried += other.buried;
        self.doubtful.extend(other.doubtful);
        for failure in other.failures {
            self.tell(failure);
        }
        self.latency
            .add(&other.latency)
            .expect("a histogram that resizes holds what another does");
        self
    }

    fn acknowledge(
        &mut self,
        parcel: &Parcel<'_>,
        receipt: &Receipt,
        took: Duration,
        metrics: &Metrics,
    ) {
        let taken = parcel.events - receipt.refused;
        self.acknowledged += taken;
        self.refused_unexpectedly += receipt.refused;
        self.buried += receipt.buried;
        if receipt.buried > 0 {
            self.tell(format!(
                "{} events of a request were buried",
                receipt.buried
            ));
        }
        for topic in parcel.topics {
            self.topics[*topic].acknowledged += 1;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // So that one that took for ever does not make it large.
        self.latency
            .record(micros.min(MAX_MICROS))
            .expect("a histogram that resizes takes all");
        metrics.acknowledged.inc_by(taken);
        metrics.refused.inc_by(receipt.refused);
        metrics.request_seconds.observe(took.as_secs_f64());
    }

    fn fail(&mut self, events: u64, metrics: &Metrics, why: String) -> String {
        self.failed += events;
        metrics.failed.inc_by(events);
        why
    }
}
