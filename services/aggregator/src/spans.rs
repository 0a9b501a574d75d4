//! The spans of a gateway, of requests whose trace is recorded, as OpenTelemetry names them
//! (<https://opentelemetry.io/docs/specs/semconv/>).

use http::{HeaderMap, Method};
use lifecycle::trace::{self, TRACEPARENT};
use tracing::{Span, field};

/// What is asked too often, and says too little, to be worth a trace.
const UNTRACED: [&str; 5] = ["/livez", "/readyz", "/healthz", "/health", "/metrics"];

/// Of a request from its head to its answer's; `route` is the pattern that its path has.
pub(crate) fn request(method: &Method, route: &str, headers: &HeaderMap) -> Option<Span> {
    if UNTRACED.contains(&route) {
        return None;
    }
    let traceparent = headers
        .get(TRACEPARENT)
        .and_then(|value| value.to_str().ok());
    let parent = trace::sampled(traceparent)?;
    Some(parent.adopt(tracing::info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = %method,
        http.route = route,
        http.response.status_code = field::Empty,
        trace_id = field::Empty,
    )))
}

/// Tells the span of a request how it was answered.
pub(crate) fn answered(span: &Span, status: http::StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// Of the way to the queue of the current request's events, until they are on its disk.
pub(crate) fn send(events: u32) -> Option<Span> {
    let request = recorded()?;
    Some(tracing::info_span!(
        parent: &request,
        "send",
        otel.name = "send events",
        otel.kind = "producer",
        messaging.system = "redis",
        messaging.operation.type = "send",
        messaging.operation.name = "append",
        messaging.destination.name = "events",
        messaging.batch.message_count = events,
    ))
}

/// The span of the current request, if it is recorded.
pub(crate) fn recorded() -> Option<Span> {
    let current = Span::current();
    (!current.is_none()).then_some(current)
}
