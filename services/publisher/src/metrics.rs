//! What a publisher counts while it runs. The report counts for itself.

use std::sync::{Mutex, PoisonError};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, exponential_buckets,
};

/// Counters that `/metrics` and the progress line read alike.
pub(crate) struct Metrics {
    pub(crate) acknowledged: IntCounter,
    pub(crate) refused: IntCounter,
    pub(crate) failed: IntCounter,
    pub(crate) attempted: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) read_back: IntCounter,
    pub(crate) request_seconds: Histogram,
    /// Why a request was last sent again.
    trouble: Mutex<Option<String>>,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let events = IntCounterVec::new(
            Opts::new(
                "sekali_publisher_events_total",
                "Events by how their request ended: acknowledged, refused, or failed.",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(events.clone()))?;
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let request_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "sekali_publisher_request_duration_seconds",
                "From the first attempt at a request to its acknowledgement.",
            )
            // From a tenth of a millisecond to half a minute.
            .buckets(exponential_buckets(0.000_1, 2.0, 19)?),
        )?;
        registry.register(Box::new(request_seconds.clone()))?;
        Ok(Self {
            acknowledged: events.with_label_values(&["acknowledged"]),
            refused: events.with_label_values(&["refused"]),
            failed: events.with_label_values(&["failed"]),
            attempted: counter(
                "sekali_publisher_attempted_events_total",
                "Events sent, again each time that their request was sent again.",
            )?,
            retries: counter(
                "sekali_publisher_retries_total",
                "Requests that were sent again.",
            )?,
            read_back: counter(
                "sekali_publisher_read_events_total",
                "Events read back for the verdict.",
            )?,
            request_seconds,
            trouble: Mutex::default(),
        })
    }

    /// A request is sent again.
    pub(crate) fn retry(&self, why: &str) {
        self.retries.inc();
        tracing::debug!(why, "retry");
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    /// Why one was, since this was last asked.
    pub(crate) fn take_trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
