//! The spans of a worker, of batches whose trace is recorded, as OpenTelemetry names them
//! (<https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>).

use event::Batch;
use lifecycle::trace;
use tracing::{Span, field};

/// The most of one transaction: with more, most of them are of a load test.
const MAX: usize = 64;

/// Of batches from now until they are acknowledged: one in each trace that a batch is part of,
/// linked to all that sent something of the batch. So each sender's trace leads to the commit,
/// and from each the others can be found.
pub(crate) fn process(batches: &[Batch], traceparents: &[Vec<String>]) -> Vec<Span> {
    let traced = batches.iter().zip(traceparents);
    let spans = traced.flat_map(|(batch, traceparents)| {
        traceparents
            .iter()
            .filter_map(|traceparent| of_one(batch, traceparent, traceparents))
    });
    spans.take(MAX).collect()
}

fn of_one(batch: &Batch, traceparent: &str, all: &[String]) -> Option<Span> {
    let parent = trace::sampled(Some(traceparent))?;
    let span = parent.adopt(tracing::info_span!(
        parent: None,
        "process",
        otel.name = "process events",
        otel.kind = "consumer",
        messaging.system = "redis",
        messaging.operation.type = "process",
        messaging.operation.name = "record",
        messaging.destination.name = "events",
        messaging.message.id = %batch.id.0,
        messaging.batch.message_count = batch.events.count(),
        trace_id = field::Empty,
    ));
    for sender in all {
        trace::link(&span, sender);
    }
    Some(span)
}
