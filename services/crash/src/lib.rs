//! Instants at which a test ends or stops a process.
//!
//! What kills a process does not choose the instant, so the instants that matter have names,
//! and a test chooses: `CRASH_AT` ends the process at the first one of that name, without
//! a word and without a destructor, `STOP_AT` stops it there until SIGCONT. Without the
//! feature `points`, which nothing that is shipped is built with, [`point!`] and
//! [`during!`] leave nothing behind. (The crate `fail` knows many actions, but not how to
//! die.)

/// An instant.
#[cfg(feature = "points")]
#[macro_export]
macro_rules! point {
    ($name:literal) => {
        $crate::reach($name)
    };
}

/// An instant.
#[cfg(not(feature = "points"))]
#[macro_export]
macro_rules! point {
    ($name:literal) => {};
}

/// A future, in the middle of which is an instant: after it was polled once, when what it
/// asks has left and what is answered has not come.
#[cfg(feature = "points")]
#[macro_export]
macro_rules! during {
    ($name:literal, $future:expr) => {
        $crate::poll_once($name, $future)
    };
}

/// A future, in the middle of which is an instant.
#[cfg(not(feature = "points"))]
#[macro_export]
macro_rules! during {
    ($name:literal, $future:expr) => {
        $future
    };
}

#[cfg(feature = "points")]
mod points;
#[cfg(feature = "points")]
pub use points::{poll_once, reach};
