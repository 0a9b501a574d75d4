//! The wall clock, as Kubernetes' own types have it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use lifecycle::clock;

/// The time it is.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_microsecond(clock::now().as_microsecond()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The API server keeps no fractions of them.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// None of it if the clock went back.
pub(crate) fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}
