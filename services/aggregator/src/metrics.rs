//! What a gateway counts. What is stored is in the books, which every gateway tells alike.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    exponential_buckets,
};
use std::sync::Arc;
use std::time::Instant;

use crate::error::ApiError;

pub(crate) struct Metrics {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    pub(crate) accepted_events: IntCounter,
    pub(crate) refused_events: IntCounter,
    pub(crate) append_seconds: Histogram,
    pub(crate) append_entries: IntCounter,
    pub(crate) record_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        // From half a millisecond to sixteen seconds, which is longer than anything waits.
        let seconds = exponential_buckets(0.000_5, 2.0, 16)?;
        let histogram = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).buckets(seconds.clone());
            let histogram = Histogram::with_opts(opts)?;
            registry.register(Box::new(histogram.clone()))?;
            prometheus::Result::Ok(histogram)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let requests = IntCounterVec::new(
            Opts::new("sekali_http_requests_total", "Requests answered."),
            &["route", "method", "status"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let request_seconds = HistogramVec::new(
            HistogramOpts::new(
                "sekali_http_request_duration_seconds",
                "From the head of a request to the head of its answer.",
            )
            .buckets(seconds.clone()),
            &["route"],
        )?;
        registry.register(Box::new(request_seconds.clone()))?;
        Ok(Self {
            requests,
            request_seconds,
            accepted_events: counter(
                "sekali_gateway_accepted_events_total",
                "Events of requests that got a positive answer.",
            )?,
            refused_events: counter(
                "sekali_gateway_refused_events_total",
                "Items that were no events.",
            )?,
            append_seconds: histogram(
                "sekali_gateway_append_duration_seconds",
                "A group of requests on its way to the queue, synced.",
            )?,
            append_entries: counter(
                "sekali_gateway_append_entries_total",
                "Entries sent to the queue.",
            )?,
            record_seconds: histogram(
                "sekali_gateway_record_duration_seconds",
                "A group of requests recorded by the gateway itself.",
            )?,
        })
    }

    /// Counts what a refused body held.
    pub(crate) fn refuse(&self, error: &ApiError) {
        if let ApiError::Refused(_, count) = error {
            self.refused_events.inc_by(*count as u64);
        }
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
    let response = next.run(request).await;
    // A path that is not known is no label: anyone could make a million of them.
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
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
