//! How long to wait before the next attempt at something that fails.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Exponential, with full jitter: the n-th wait is drawn evenly from nothing to
/// `base * 2^n`, never more than `cap`. The draw is what keeps a hundred processes that
/// lost the same server from returning to it in step
/// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
    state: u64,
}

impl Backoff {
    /// The same seed gives the same waits; [`seed`] gives one of its own to each caller.
    pub fn new(base: Duration, cap: Duration, seed: u64) -> Self {
        Self {
            base,
            cap,
            attempt: 0,
            state: seed,
        }
    }

    /// How long to wait now. At least a millisecond, so that no draw makes a busy loop.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self
            .base
            .saturating_mul(2_u32.saturating_pow(self.attempt))
            .min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        ceiling
            .mul_f64(self.draw())
            .max(Duration::from_millis(1))
            .min(self.cap)
    }

    /// Waits, and says whether to go on: `false` as soon as the process shuts down.
    pub async fn pause(&mut self, shutdown: &CancellationToken) -> bool {
        let wait = self.next_wait();
        shutdown
            .run_until_cancelled(tokio::time::sleep(wait))
            .await
            .is_some()
    }

    /// After a success: the next wait is a first one again.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// The next of SplitMix64, as a number in `0..1`.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits are all that the fraction holds"
    )]
    fn draw(&mut self) -> f64 {
        self.state = self.state.wrapping_add(GOLDEN);
        (mix(self.state) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>) goes on by.
pub const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finalizer: a permutation of all 64-bit numbers after which neighbours have
/// nothing in common.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A seed that no other process shares, from the system's randomness.
pub fn seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(10);
    const CAP: Duration = Duration::from_secs(1);

    #[test]
    fn waits_grow_to_the_cap_and_never_beyond() {
        let mut backoff = Backoff::new(BASE, CAP, 7);
        for attempt in 0..100 {
            let ceiling = CAP.min(BASE * 2_u32.pow(attempt.min(20)));
            let wait = backoff.next_wait();
            assert!(wait <= ceiling, "{attempt}: {wait:?}");
            assert!(wait >= Duration::from_millis(1), "{attempt}: {wait:?}");
        }
        let late: Duration = (0..1_000).map(|_| backoff.next_wait()).sum();
        assert!((400..600).contains(&late.as_secs()), "{late:?}");
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(BASE, CAP, 7);
        for _ in 0..10 {
            backoff.next_wait();
        }
        backoff.reset();
        assert!(backoff.next_wait() <= BASE);
    }

    #[test]
    fn two_processes_do_not_wait_in_step() {
        let waits = |seed| {
            let mut backoff = Backoff::new(CAP, CAP, seed);
            std::array::from_fn::<_, 4, _>(|_| backoff.next_wait())
        };
        assert_ne!(waits(seed()), waits(seed()));
        assert_eq!(waits(1), waits(1));
    }

    #[tokio::test]
    async fn a_shutdown_ends_the_pause() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let mut backoff = Backoff::new(Duration::from_hours(1), Duration::from_hours(1), 7);
        assert!(!backoff.pause(&shutdown).await);
        let mut backoff = Backoff::new(Duration::ZERO, CAP, 7);
        assert!(backoff.pause(&CancellationToken::new()).await);
    }
}
