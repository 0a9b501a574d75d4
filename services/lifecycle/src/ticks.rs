//! Something done every so often until the process shuts down.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Ticks at once and then every period, which starts anew when a tick comes late: after
/// something slow nothing is caught up on.
#[derive(Debug)]
pub struct Ticks {
    interval: Interval,
    shutdown: CancellationToken,
}

impl Ticks {
    /// Must be called within a runtime.
    pub fn every(period: Duration, shutdown: &CancellationToken) -> Self {
        let mut interval = tokio::time::interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            interval,
            shutdown: shutdown.clone(),
        }
    }

    /// Waits for the next tick. False as soon as the process shuts down.
    pub async fn next(&mut self) -> bool {
        let tick = self.interval.tick();
        self.shutdown.run_until_cancelled(tick).await.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ticks_at_once_and_ends_with_the_process() {
        let shutdown = CancellationToken::new();
        let mut ticks = Ticks::every(Duration::from_hours(1), &shutdown);
        assert!(ticks.next().await);
        let (ticked, ()) = tokio::join!(ticks.next(), async { shutdown.cancel() });
        assert!(!ticked);
    }
}
