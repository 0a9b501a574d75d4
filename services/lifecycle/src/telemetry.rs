//! What a process writes about itself: log lines, on standard error, and spans to whom
//! [`crate::trace`] exports them. This is the one place that installs a subscriber.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use opentelemetry_sdk::trace::SdkTracer;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::args::{ConfigError, LogFormat};

/// What is logged by default. What sqlx's pool says of a connection that can't be had, its
/// caller is told too, and says once; the pool would say it at every attempt, as an error.
const DEFAULT: &str = "info,sqlx_core=off";

/// Begins to log, as `RUST_LOG` says, by default from `info` on, and to make spans, if they go
/// anywhere: those of `crates`, and what is logged within them. Panics are logged too, as one
/// event each, or a collector would find their lines in no event at all.
pub(crate) fn init(
    tracer: Option<SdkTracer>,
    crates: &[&str],
    format: LogFormat,
) -> Result<(), ConfigError> {
    let crates = crates.iter().map(|&name| (name, LevelFilter::INFO));
    let spans = tracer.map(|tracer| {
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_targets(crates))
    });
    let lines = match format {
        LogFormat::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
        LogFormat::Json => fmt::layer()
            .with_writer(std::io::stderr)
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(spans)
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
