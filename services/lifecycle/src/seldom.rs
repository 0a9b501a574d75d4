//! Log lines that an outage would repeat a thousand times a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a line is said again while what it says goes on.
const REPEAT: Duration = Duration::from_secs(30);

/// A line that is said now and then, and counted in between.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// One that was never said.
    pub const fn new() -> Self {
        Self(Mutex::new(State {
            said: None,
            unsaid: 0,
        }))
    }

    /// Whether to say it now, and if so, how often it was not since the last time.
    pub fn now(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.said.is_some_and(|said| said.elapsed() < REPEAT) {
            state.unsaid += 1;
            return None;
        }
        state.said = Some(Instant::now());
        Some(std::mem::take(&mut state.unsaid))
    }
}

/// Logs a line at a level, such as `seldom!(warn, %error, "it fails")`, but not more often
/// than every 30 seconds; `unsaid` is how often it would have been said in between.
#[macro_export]
macro_rules! seldom {
    ($level:ident, $($line:tt)+) => {{
        static SAID: $crate::seldom::Seldom = $crate::seldom::Seldom::new();
        if let Some(unsaid) = SAID.now() {
            tracing::$level!(unsaid, $($line)+);
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_said_once_and_then_counted() {
        let said = Seldom::new();
        assert_eq!(said.now(), Some(0));
        assert_eq!((said.now(), said.now()), (None, None));
        said.0.lock().unwrap().said = Instant::now().checked_sub(REPEAT);
        assert_eq!(said.now(), Some(2));
    }
}
