//! What a process writes about itself: log lines, on standard error.
//!
//! This is the one place that installs a subscriber, so whatever is to receive spans
//! and events later (an exporter of traces, say) is a layer added here and flushed at
//! the end of the drain in [`crate::process`].

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::args::{ConfigError, LogFormat};

/// What is logged by default. What sqlx's pool says of a connection that can't be had, its
/// caller is told too, and says once; the pool would say it at every attempt, as an error.
const DEFAULT: &str = "info,sqlx_core=off";

/// Begins to log, as `RUST_LOG` says, by default from `info` on. Panics are logged too,
/// as one event each, or a collector would find their lines in no event at all.
pub fn init(format: LogFormat) -> Result<(), ConfigError> {
    let lines = match format {
        LogFormat::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
        LogFormat::Json => fmt::layer()
            .with_writer(std::io::stderr)
            .json()
            .flatten_event(true)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter()?))
        .try_init()
        .map_err(|error| ConfigError::new(error.to_string()))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn filter() -> Result<EnvFilter, ConfigError> {
    match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.trim().is_empty() => EnvFilter::try_new(directives)
            .map_err(|error| ConfigError::new(format!("RUST_LOG: {error}"))),
        _ => Ok(EnvFilter::new(DEFAULT)),
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(tracing::field::display);
    tracing::error!(location, panic = message, "panicked");
}
