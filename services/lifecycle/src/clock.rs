//! The one place that reads the wall clock.
//!
//! Everything else takes `now` as an argument, so that a test can choose it.

/// What the wall clock shows. It may step backwards; to measure how long something
/// took, use [`std::time::Instant`].
#[expect(
    clippy::disallowed_methods,
    reason = "this is the edge that the others are sent to"
)]
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
