//! The harness: real servers, real processes, and verbs.
//!
//! [`Sekali`] is what a test starts and asks; [`servers`] runs PostgreSQL and Redis for it;
//! [`Program`] is one process of ours. Nothing is mocked, and nothing sleeps: what takes
//! time is waited for with [`until`]. Whatever is started ends with the test, or, should
//! the tests themselves be killed, a moment after them (see `reaper`).

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that can't go on says where"
)]

pub mod example;
pub mod metrics;
pub mod otlp;
mod program;
pub mod prometheus;
mod proxy;
mod reaper;
mod sekali;
pub mod servers;
pub mod wire;

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

pub use program::{Program, binaries};
pub use proxy::Proxy;
pub use reaper::directory;
pub use sekali::{Answer, Sekali, balance};

/// How long anything may take. On a busy machine some things take seconds; what takes
/// longer than this does not happen.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until a condition holds; a test that waits for too long fails and says for what.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut look = tokio::time::interval(Duration::from_millis(10));
    loop {
        look.tick().await;
        match tokio::time::timeout_at(deadline, condition()).await {
            Ok(true) => return,
            Ok(false) if Instant::now() < deadline => {}
            _ => panic!("{what}: it does not come true"),
        }
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}
