//! What a gateway can be told.

use std::net::SocketAddr;
use std::path::PathBuf;

use lifecycle::Secret;

/// Takes events over HTTP, keeps each of them once, and answers questions about them.
///
/// Without arguments it is a complete Sekali over an SQLite file in the working
/// directory. With --database-url=postgres://... it writes to PostgreSQL; with
/// --broker-url as well, events go through Redis to sekali-worker.
///
/// Exit status: 0 after a drain, 1 after a failure, 64 when it can't mean what it was
/// told, 130 when a second signal cut the drain short.
#[derive(Debug, clap::Parser)]
#[command(name = "sekali-aggregator", version)]
pub struct Args {
    /// Where events are sent to and asked for; port 0 takes a free one and logs it
    #[arg(long, env, default_value = "0.0.0.0:8080")]
    pub http_addr: SocketAddr,

    /// Where events are kept: sqlite:// and the path of a file, or
    /// postgres://user:password@host:port/database
    #[arg(
        long,
        env,
        default_value = "sqlite://sekali.db",
        hide_env_values = true
    )]
    pub database_url: Secret,

    /// The queue between gateways and workers: redis://host:port or rediss://. Without one,
    /// events are written to the store directly, and there is no worker
    #[arg(long, env, hide_env_values = true)]
    pub broker_url: Option<Secret>,

    /// Who may do what: lines of a name, a scope (write, read or admin) and the SHA-256 of
    /// the key in hexadecimal. Reread when it changes; with a fault, or without any key, it
    /// is refused, and the keys of before stay. Without a file, all is open to whoever
    /// reaches the port
    #[arg(long, env)]
    pub api_keys_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) broker: broker::Args,
    #[command(flatten)]
    pub(crate) store: store::Args,
    #[command(flatten)]
    pub(crate) admin: lifecycle::AdminArgs,
    /// How the process logs and ends.
    #[command(flatten)]
    pub process: lifecycle::Args,

    /// Prints the description of the HTTP interface, as OpenAPI 3.1, and ends
    #[arg(long)]
    pub print_openapi: bool,
}

/// What one sender, and all of them together, may make a gateway hold.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// The largest body of a request, decoded, in bytes; a larger one gets 413. Smaller
    /// than a sender's batches, and all of them are refused; each of the senders that the
    /// budget lets in at once may use as much
    #[arg(long, env, default_value_t = 8 * 1024 * 1024, value_parser = clap::value_parser!(u32).range(1024..=256 * 1024 * 1024))]
    pub(crate) max_body_bytes: u32,

    /// What the bodies of all requests in flight may take together, in bytes; beyond it
    /// requests get 503 and are sent again. A gateway under full load holds three to four
    /// times as much. Less than --max-body-bytes is refused at start
    #[arg(long, env, default_value_t = 48 * 1024 * 1024, value_parser = clap::value_parser!(u32).range(1024..=1024 * 1024 * 1024))]
    pub(crate) body_budget_bytes: u32,

    /// How long a body may take to arrive, in milliseconds; a slower one gets 408 and its
    /// connection is closed. Too short refuses senders behind slow lines; too long lets a
    /// few idle ones hold the budget
    #[arg(long, env, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub(crate) body_timeout_ms: u64,

    /// Of how many topics, the largest, /metrics tells the books; all others together are
    /// called `other`. 0: of none. Each is five series at every gateway, and is read with the
    /// books of all topics every 15 seconds
    #[arg(long, env, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1_000))]
    pub(crate) metrics_topics: u16,
}
