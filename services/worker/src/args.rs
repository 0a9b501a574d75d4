//! What a worker can be told.

use lifecycle::Secret;

/// Moves events from the queue into the store, each of them once.
///
/// Start as many as are needed, each with a name of its own. One that is killed loses
/// nothing: what it had not finished, it or another finishes.
///
/// Exit status: 0 after a drain, 1 after a failure, 64 when it can't mean what it was
/// told, 130 when a second signal cut the drain short.
#[derive(Debug, clap::Parser)]
#[command(name = "sekali-worker", version)]
pub struct Args {
    /// Where events are kept: postgres://user:password@host:port/database
    #[arg(long, env, hide_env_values = true)]
    pub database_url: Secret,

    /// The queue: redis://host:port or rediss://
    #[arg(long, env, hide_env_values = true)]
    pub broker_url: Secret,

    /// This worker's name, by default the host's. A worker that starts again under its
    /// name first finishes what it had begun; two workers under one name record some
    /// batches twice, which is harmless and slow
    #[arg(long, env, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub name: Option<String>,

    /// How long an entry may be with another worker before this one takes it over, in
    /// milliseconds. Less than a commit takes, and workers record each other's batches
    /// again; long, and what a dead worker had begun waits so long
    #[arg(long, env, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub claim_idle_ms: u64,

    /// How many events are taken at once, to be recorded in up to four transactions at a
    /// time, one a partition of the keys, or in one if they are few. With few PostgreSQL
    /// spends its time on round trips and syncs; what a worker holds in memory grows with
    /// it: these events, and as many that it has taken ahead
    #[arg(long, env, default_value_t = 8_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch_events: u32,

    #[command(flatten)]
    pub(crate) broker: broker::Args,
    #[command(flatten)]
    pub(crate) store: store::Args,
    #[command(flatten)]
    pub(crate) admin: lifecycle::AdminArgs,
    /// How the process logs and ends.
    #[command(flatten)]
    pub process: lifecycle::Args,
}
