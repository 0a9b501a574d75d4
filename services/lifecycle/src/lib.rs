//! What every process owes whoever runs it: arguments, telemetry, an admin port,
//! readiness, a drain, tasks that somebody owns.
//!
//! It guarantees that a process either serves or ends: a task that stops early takes
//! the process with it, a signal begins a drain that one deadline bounds, and every
//! end has a status that says which it was (see [`process`]). It never knows a
//! business word: nothing here can tell an event from a cat.
//!
//! Read it in this order:
//!
//! 1. [`args`]: the flags that all processes share, and how a bad one ends them; [`secret`]: those
//!    that hold passwords and keys.
//! 2. [`process`]: from `main` to the exit status, with the drain between them.
//! 3. [`tasks`] and [`readiness`]: what a process is made of, and what it says of itself.
//! 4. [`http`]: the accept loop; [`admin`] is its smallest user.
//! 5. [`telemetry`], [`trace`], [`metrics`], [`clock`], [`backoff`], [`seldom!`] and
//!    [`Ticks`]: the small tools.

pub mod admin;
pub mod args;
pub mod backoff;
pub mod clock;
pub mod http;
pub mod metrics;
pub mod process;
pub mod readiness;
pub mod secret;
pub mod seldom;
mod signals;
pub mod tasks;
pub mod telemetry;
mod ticks;
pub mod trace;

pub use args::{AdminArgs, Args, ConfigError, parse};
pub use backoff::{Backoff, GOLDEN, mix};
pub use process::{Process, Program, job, service};
pub use readiness::Readiness;
pub use secret::{Secret, with_password};
pub use tasks::Tasks;
pub use ticks::Ticks;
pub use tokio_util::sync::CancellationToken;
