//! The spans of a publisher: each request begins a trace, if it is to be recorded.

use http::{HeaderValue, StatusCode, Uri};
use lifecycle::trace;
use tracing::{Span, field};

use crate::target::Target;

/// Of one attempt at a request, until it is answered.
pub(crate) fn request(target: &Target, uri: &Uri) -> Option<Span> {
    let parent = trace::sampled(None)?;
    Some(parent.adopt(tracing::info_span!(
        parent: None,
        "request",
        otel.name = "POST",
        otel.kind = "client",
        otel.status_code = field::Empty,
        http.request.method = "POST",
        http.response.status_code = field::Empty,
        server.address = target.uri.host(),
        url.path = uri.path(),
        trace_id = field::Empty,
    )))
}

/// What tells the gateway of it.
pub(crate) fn header(span: &Span) -> Option<HeaderValue> {
    HeaderValue::try_from(trace::traceparent(span)?).ok()
}

/// Tells it of the answer, or that there was none.
pub(crate) fn answered(span: &Span, status: Option<StatusCode>) {
    if let Some(status) = status {
        span.record("http.response.status_code", status.as_u16());
    }
    if status.is_none_or(|status| !status.is_success()) {
        span.record("otel.status_code", "ERROR");
    }
}
