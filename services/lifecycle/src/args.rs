//! The flags that all processes share, and how a bad one ends them.
//!
//! Bad configuration exits with [`EX_CONFIG`] after one line, before any port is
//! bound: a supervisor that sees 64 knows that another start won't help.

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use clap::error::ErrorKind;

/// The exit status of a process that can't mean what it was told: `EX_USAGE` of
/// sysexits(3).
pub const EX_CONFIG: u8 = 64;

/// How the process logs and how it ends. `RUST_LOG` chooses what is logged, in the
/// syntax of tracing's `EnvFilter`, by default `info`.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Process")]
pub struct Args {
    /// How log lines look on standard error: `text` for people, `json` (one object a
    /// line) for collectors, which find no fields in text. `RUST_LOG` chooses what is logged,
    /// by default `info`. Traces are exported if `OTEL_EXPORTER_OTLP_ENDPOINT` says where to
    #[arg(long, env, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// How long to go on serving after readiness went off, in milliseconds, so that
    /// load balancers notice first. With 0 behind a load balancer, requests still on
    /// their way meet a closed port; more than the balancer needs only slows each roll-out
    #[arg(long, env, default_value_t = 0)]
    pub drain_delay_ms: u64,

    /// How long the whole drain may take, in milliseconds, the delay included. Too
    /// short cuts off requests that would have finished, and the process fails; longer
    /// than what the supervisor grants (Kubernetes: 30 s), and it is killed without a
    /// word instead
    #[arg(long, env, default_value_t = 25_000)]
    pub drain_deadline_ms: u64,
}

/// Where the process answers whoever runs it.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Process")]
pub struct AdminArgs {
    /// Where /livez, /readyz, /healthz and /metrics are served. They are open to
    /// whoever reaches the port; port 0 takes a free one and logs it
    #[arg(long, env, default_value = "0.0.0.0:9090")]
    pub admin_addr: SocketAddr,
}

/// See [`Args::log_format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line an event, for people.
    Text,
    /// One JSON object an event, its fields at the top level.
    Json,
}

/// The process can't mean what it was told. Anywhere in the chain of the error that
/// ends a process, it makes the status [`EX_CONFIG`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// One sentence that names the flag and what to change.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl Args {
    pub(crate) fn drain(&self) -> Result<Drain, ConfigError> {
        if self.drain_delay_ms >= self.drain_deadline_ms {
            return Err(ConfigError::new(
                "--drain-delay-ms must be less than --drain-deadline-ms, which bounds it",
            ));
        }
        Ok(Drain {
            delay: Duration::from_millis(self.drain_delay_ms),
            deadline: Duration::from_millis(self.drain_deadline_ms),
        })
    }
}

/// How long the parts of a drain may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub(crate) delay: Duration,
    pub(crate) deadline: Duration,
}

/// Reads the command line and the environment, or ends the process: with 0 after
/// `--help` and `--version`, with [`EX_CONFIG`] and one line on standard error after
/// anything that can't be meant.
pub fn parse<A: clap::Parser>() -> A {
    match parse_from(std::env::args_os()) {
        Ok(args) => args,
        Err(Stop::Told(error)) => error.exit(),
        Err(Stop::Bad(line)) => {
            complain(&line);
            std::process::exit(EX_CONFIG.into());
        }
    }
}

/// One line on standard error, for when there is no log yet.
pub(crate) fn complain(line: &dyn fmt::Display) {
    // Where even standard error is closed, the status still tells.
    let _ = writeln!(std::io::stderr(), "error: {line}");
}

#[derive(Debug)]
enum Stop {
    /// Help or the version, which is what was asked for.
    Told(clap::Error),
    Bad(String),
}

fn parse_from<A: clap::Parser>(words: impl IntoIterator<Item = OsString>) -> Result<A, Stop> {
    A::try_parse_from(words).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Told(error),
        _ => Stop::Bad(one_line(&error.render().to_string())),
    })
}

/// The first paragraph of what clap says, which is the fault; tips and usage follow it.
fn one_line(rendered: &str) -> String {
    let (fault, _) = rendered.split_once("\n\n").unwrap_or((rendered, ""));
    let fault = fault.strip_prefix("error: ").unwrap_or(fault);
    let words: Vec<_> = fault.split_whitespace().collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(version)]
    struct Cli {
        #[command(flatten)]
        process: Args,
        #[command(flatten)]
        admin: AdminArgs,
        #[arg(long)]
        needed: String,
    }

    fn read(words: &str) -> Result<Cli, Stop> {
        parse_from(
            format!("cli {words}")
                .split_whitespace()
                .map(OsString::from),
        )
    }

    #[test]
    fn the_defaults_are_those_in_the_documentation() {
        let cli = read("--needed x").unwrap();
        assert_eq!(cli.needed, "x");
        assert_eq!(cli.process.log_format, LogFormat::Text);
        assert_eq!(cli.admin.admin_addr.to_string(), "0.0.0.0:9090");
        let drain = cli.process.drain().unwrap();
        assert_eq!(drain.delay, Duration::ZERO);
        assert_eq!(drain.deadline, Duration::from_secs(25));
    }

    #[test]
    fn a_bad_flag_is_one_line() {
        for (words, expected) in [
            ("", "--needed <NEEDED>"),
            ("--needed x --nonsense", "unexpected argument '--nonsense'"),
            (
                "--needed x --log-format xml",
                "[possible values: text, json]",
            ),
            ("--needed x --admin-addr here", "invalid value 'here'"),
        ] {
            let Err(Stop::Bad(line)) = read(words) else {
                panic!("{words} is taken");
            };
            assert!(line.contains(expected), "{line}");
            assert!(!line.contains('\n'), "{line}");
            assert!(!line.contains("Usage"), "{line}");
        }
    }

    #[test]
    fn help_and_version_are_no_faults() {
        assert!(matches!(read("--help"), Err(Stop::Told(_))));
        assert!(matches!(read("--version"), Err(Stop::Told(_))));
    }

    #[test]
    fn a_delay_that_fills_the_deadline_is_refused() {
        let cli = read("--needed x --drain-delay-ms 5 --drain-deadline-ms 5").unwrap();
        assert!(cli.process.drain().is_err());
    }
}
