//! Traces: the way of a request through processes, for OpenTelemetry's collectors.
//!
//! Off unless an endpoint is named, and then free; see [`export`] for the variables. Whether a
//! trace is recorded is decided by [`sampled`] before its first span is made, so that what is
//! not recorded costs a comparison: nobody makes a span without asking it.
//!
//! A span is one of `tracing`'s, at the level of information and in one of our own crates.
//! A line that is logged within it has its `trace_id`, if the span has such a field.

pub(crate) mod export;

use std::collections::HashMap;
use std::sync::OnceLock;

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanKind, TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};
use tracing::Span;
use tracing::field::display;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header, and the field of a message, that names the span that something is part of:
/// <https://www.w3.org/TR/trace-context/>.
pub const TRACEPARENT: &str = "traceparent";

/// Set once, if traces are exported at all.
static SAMPLER: OnceLock<Sampler> = OnceLock::new();

/// That a trace is recorded, and which span comes before the next one, if one does.
#[derive(Debug, Clone)]
pub struct Parent(Context);

/// Whether to record what begins now, `traceparent` being what the caller said of its own
/// trace, as the sampler decides.
pub fn sampled(traceparent: Option<&str>) -> Option<Parent> {
    let sampler = SAMPLER.get()?;
    let parent = traceparent.map_or_else(Context::new, remote);
    let trace_id = if parent.has_active_span() {
        parent.span().span_context().trace_id()
    } else {
        RandomIdGenerator::default().new_trace_id()
    };
    let result = sampler.should_sample(Some(&parent), trace_id, "", &SpanKind::Internal, &[], &[]);
    (result.decision == SamplingDecision::RecordAndSample).then_some(Parent(parent))
}

impl Parent {
    /// Makes a span that was just made, and has been told nothing yet, part of the trace.
    pub fn adopt(self, span: Span) -> Span {
        // It fails only for a span that nobody records.
        let _ = span.set_parent(self.0);
        let trace_id = span.context().span().span_context().trace_id();
        span.record("trace_id", display(trace_id));
        span
    }
}

/// What to tell the next process of this span. None if it is not recorded.
pub fn traceparent(span: &Span) -> Option<String> {
    if span.is_none() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// Links a span to one of another trace, or of the same.
pub fn link(span: &Span, traceparent: &str) {
    span.add_link(remote(traceparent).span().span_context().clone());
}

/// The span that a `traceparent` names; none in the context if it names none.
fn remote(traceparent: &str) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Carrier(traceparent))
}

struct Carrier<'t>(&'t str);

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}
