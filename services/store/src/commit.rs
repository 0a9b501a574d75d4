//! What is told of a commit, which is where an event's way ends.

use prometheus::{Histogram, HistogramTimer};
use tracing::Span;

/// Times commits.
#[derive(Debug, Clone)]
pub(crate) struct Commits {
    pub(crate) system: &'static str,
    pub(crate) seconds: Histogram,
}

/// A commit that is under way, until it is dropped.
pub(crate) struct Commit {
    _timer: HistogramTimer,
    _spans: Vec<Span>,
}

impl Commits {
    /// One begins, as a part of these spans.
    pub(crate) fn begin(&self, parents: &[Span]) -> Commit {
        let spans = parents.iter().map(|parent| {
            tracing::info_span!(
                parent: parent,
                "commit",
                otel.kind = "client",
                db.system.name = self.system,
                db.operation.name = "COMMIT",
            )
        });
        Commit {
            _spans: spans.collect(),
            _timer: self.seconds.start_timer(),
        }
    }
}
