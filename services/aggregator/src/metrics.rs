//! What a gateway counts. What is stored is in the books, which every gateway tells alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use broker::Outgoing;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    exponential_buckets,
};
use tracing::Instrument as _;

use crate::error::ApiError;
use crate::spans;

pub(crate) struct Metrics {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    pub(crate) accepted_events: IntCounter,
    refused_events: IntCounterVec,
    refused_requests: IntCounterVec,
    append_seconds: Histogram,
    append_events: Histogram,
    append_entries: IntCounter,
}

/// Why requests are refused that may well be sent again, which alarms look for.
const REASONS: [ApiError; 4] = [
    ApiError::QueueFull,
    ApiError::Overloaded,
    ApiError::Unavailable(""),
    ApiError::OutcomeUnknown,
];

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        // From half a millisecond to sixteen seconds, which is longer than anything waits.
        let seconds = exponential_buckets(0.000_5, 2.0, 16)?;
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histogram = Histogram::with_opts(opts)?;
            registry.register(Box::new(histogram.clone()))?;
            prometheus::Result::Ok(histogram)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            prometheus::Result::Ok(counters)
        };
        let request_seconds = HistogramVec::new(
            HistogramOpts::new(
                "sekali_http_request_duration_seconds",
                "From the head of a request to the head of its answer.",
            )
            .buckets(seconds.clone()),
            &["route"],
        )?;
        registry.register(Box::new(request_seconds.clone()))?;
        let metrics = Self {
            requests: counters(
                "sekali_http_requests_total",
                "Requests answered.",
                &["route", "method", "status"],
            )?,
            request_seconds,
            accepted_events: counter(
                "sekali_gateway_accepted_events_total",
                "Events of requests that got a positive answer.",
            )?,
            refused_events: counters(
                "sekali_gateway_refused_events_total",
                "Events that were read and then refused, by the type of the problem that the \
                 sender was told: items that are no events (invalid-events), and events of \
                 requests that could not be taken.",
                &["reason"],
            )?,
            refused_requests: counters(
                "sekali_gateway_refused_requests_total",
                "Requests to publish that were refused, by the type of the problem, those without \
                 a key for it among them.",
                &["reason"],
            )?,
            append_seconds: histogram(
                "sekali_gateway_append_duration_seconds",
                "A group of requests on its way to the queue, synced.",
                &seconds,
            )?,
            append_events: histogram(
                "sekali_gateway_append_events",
                "Events of the requests that went to the queue together.",
                &exponential_buckets(1.0, 2.0, 15)?,
            )?,
            append_entries: counter(
                "sekali_gateway_append_entries_total",
                "Entries sent to the queue.",
            )?,
        };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// A counter that appears with its first event has no rate at it.
    fn begin_at_zero(&self) {
        for error in REASONS {
            self.refused_requests.with_label_values(&[error.kind()]);
            self.refused_events.with_label_values(&[error.kind()]);
        }
        self.refuse_items(0);
    }

    /// Counts items that are no events.
    pub(crate) fn refuse_items(&self, count: usize) {
        let reason = ApiError::Refused(Vec::new(), count).kind();
        let refused = self.refused_events.with_label_values(&[reason]);
        refused.inc_by(count as u64);
    }

    /// Counts a request to publish that is refused, with the events that were read from it.
    pub(crate) fn refuse(&self, error: &ApiError, events: usize) {
        self.refused_requests
            .with_label_values(&[error.kind()])
            .inc();
        self.refused_events
            .with_label_values(&[error.kind()])
            .inc_by(events as u64);
    }

    /// Counts entries that went to the queue together.
    pub(crate) fn appended(&self, entries: &[Outgoing], took: Duration) {
        let events: u32 = entries.iter().map(|one| one.batch.events.count()).sum();
        self.append_seconds.observe(took.as_secs_f64());
        self.append_events.observe(f64::from(events));
        self.append_entries.inc_by(entries.len() as u64);
    }
}

/// Counts and times every request by its route.
pub(crate) async fn observe(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let response = match spans::request(&method, label(route.as_ref()), request.headers()) {
        None => next.run(request).await,
        Some(span) => {
            let response = next.run(request).instrument(span.clone()).await;
            spans::answered(&span, response.status());
            response
        }
    };
    let route = label(route.as_ref());
    let status = response.status();
    metrics
        .requests
        .with_label_values(&[route, method_label(&method), status.as_str()])
        .inc();
    metrics
        .request_seconds
        .with_label_values(&[route])
        .observe(begun.elapsed().as_secs_f64());
    response
}

/// A path that is not known is no label: anyone could make a million of them.
fn label(route: Option<&MatchedPath>) -> &str {
    route.map_or("none", MatchedPath::as_str)
}

fn method_label(method: &http::Method) -> &'static str {
    match *method {
        http::Method::GET => "GET",
        http::Method::POST => "POST",
        http::Method::DELETE => "DELETE",
        http::Method::HEAD => "HEAD",
        http::Method::PUT => "PUT",
        http::Method::OPTIONS => "OPTIONS",
        http::Method::PATCH => "PATCH",
        _ => "other",
    }
}
