//! What a field is when it is not said.

use kube::core::Duration;

pub(super) fn port() -> i32 {
    8080
}

pub(super) fn one() -> i32 {
    1
}

pub(super) fn max() -> i32 {
    4
}

pub(super) fn lag() -> Duration {
    seconds(10)
}

pub(super) fn quiet() -> Duration {
    seconds(120)
}

pub(super) fn deadline() -> Duration {
    seconds(900)
}

fn seconds(seconds: u64) -> Duration {
    std::time::Duration::from_secs(seconds).into()
}

pub(super) fn pipeline() -> String {
    "sekali".into()
}

pub(super) fn events() -> i64 {
    10_000
}

pub(super) fn duplicates() -> f64 {
    0.3
}

pub(super) fn batch() -> i32 {
    100
}
