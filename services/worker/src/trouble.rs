//! What is done about a server that does not do what it is asked: wait, and ask again.

use std::time::{Duration, Instant};

use lifecycle::{Backoff, CancellationToken, backoff};
use prometheus::IntCounter;

/// Waits between attempts: short, since what waits is all that was sent meanwhile.
const BASE: Duration = Duration::from_millis(10);
const CAP: Duration = Duration::from_millis(500);

/// Attempts at one server.
pub(crate) struct Trouble {
    server: &'static str,
    retries: IntCounter,
    backoff: Backoff,
    /// When the first attempt failed of those that did without one between that succeeded.
    since: Option<Instant>,
}

impl Trouble {
    /// None yet.
    pub(crate) fn new(server: &'static str, retries: IntCounter) -> Self {
        Self {
            server,
            retries,
            backoff: Backoff::new(BASE, CAP, backoff::seed()),
            since: None,
        }
    }

    /// An attempt failed, and is made again.
    pub(crate) fn failed(&mut self) {
        self.retries.inc();
        self.since.get_or_insert_with(Instant::now);
    }

    /// Waits until the next attempt, or the shutdown.
    pub(crate) async fn pause(&mut self, shutdown: &CancellationToken) {
        self.backoff.pause(shutdown).await;
    }

    /// An attempt succeeded.
    pub(crate) fn over(&mut self) {
        if let Some(since) = self.since.take() {
            let (server, lasted) = (self.server, since.elapsed());
            tracing::info!(server, ?lasted, "works again");
            self.backoff.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_lasts_from_the_first_attempt_that_failed_until_one_succeeds() {
        let retries = IntCounter::new("retries", "of the test").unwrap();
        let mut trouble = Trouble::new("store", retries.clone());
        trouble.failed();
        let since = trouble.since;
        trouble.failed();
        assert_eq!((retries.get(), trouble.since), (2, since));
        trouble.over();
        assert_eq!(trouble.since, None);
    }
}
