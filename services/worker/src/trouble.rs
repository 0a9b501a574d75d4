//! What is done about a server that does not do what it is asked: wait, ask again, and say
//! so once in a while.

use std::time::{Duration, Instant};

use lifecycle::{Backoff, CancellationToken, backoff};
use prometheus::IntCounter;

/// Waits between attempts: short, since what waits is all that was sent meanwhile.
const BASE: Duration = Duration::from_millis(10);
const CAP: Duration = Duration::from_millis(500);

/// An outage is logged when it begins and so often while it lasts, not at every attempt.
const REPEAT: Duration = Duration::from_secs(30);

/// Attempts at one server.
pub(crate) struct Trouble {
    server: &'static str,
    retries: IntCounter,
    backoff: Backoff,
    outage: Option<Outage>,
}

struct Outage {
    since: Instant,
    logged: Instant,
}

impl Trouble {
    /// None yet.
    pub(crate) fn new(server: &'static str, retries: IntCounter) -> Self {
        Self {
            server,
            retries,
            backoff: Backoff::new(BASE, CAP, backoff::seed()),
            outage: None,
        }
    }

    /// An attempt failed. Whether to log it.
    pub(crate) fn is_news(&mut self) -> bool {
        let now = Instant::now();
        self.retries.inc();
        match &mut self.outage {
            Some(outage) if now - outage.logged < REPEAT => return false,
            Some(outage) => outage.logged = now,
            None => {
                self.outage = Some(Outage {
                    since: now,
                    logged: now,
                });
            }
        }
        true
    }

    /// Waits until the next attempt, or the shutdown.
    pub(crate) async fn pause(&mut self, shutdown: &CancellationToken) {
        self.backoff.pause(shutdown).await;
    }

    /// An attempt succeeded.
    pub(crate) fn over(&mut self) {
        if let Some(outage) = self.outage.take() {
            let (server, lasted) = (self.server, outage.since.elapsed());
            tracing::info!(server, ?lasted, "works again");
            self.backoff.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_and_the_next_one_again() {
        let retries = IntCounter::new("retries", "of the test").unwrap();
        let mut trouble = Trouble::new("store", retries.clone());
        assert!(trouble.is_news());
        assert!(!trouble.is_news());
        trouble.over();
        trouble.over();
        assert!(trouble.is_news());
        assert_eq!(retries.get(), 3);
    }
}
