//! Where the store is and how much of it may be used.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

/// The settings of a store besides its address.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Store")]
pub struct Args {
    /// A file with the password of the database and nothing else, in place of one in the
    /// address: it may hold any character, and no list of processes shows it. Read at start
    #[arg(long, env = "DATABASE_PASSWORD_FILE")]
    pub database_password_file: Option<PathBuf>,

    /// The most topics that are kept. Events of further topics are refused by gateways
    /// and buried by workers. Each topic costs up to 16 rows of counters, which every
    /// look at the statistics adds up; too few, and a new topic's events are refused.
    #[arg(long, env = "MAX_TOPICS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_topics: u32,

    /// For how many days the identities of recorded batches are kept. A batch that a
    /// stopped worker or a restored Redis brings back later than this is counted again
    /// (its events are still stored once); a day costs 140 to 240 bytes
    /// for each batch of it.
    #[arg(long, env = "KEEP_IDENTITIES_DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub keep_identities_days: u32,

    /// The most connections to PostgreSQL that this process opens. Below 2 a long listing
    /// holds up everything else, and below 4 a worker's transactions wait for each other;
    /// the sum over all processes must stay below the server's `max_connections`.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections: u32,
}

impl Args {
    pub(crate) fn keep_identities(&self) -> Duration {
        Duration::from_secs(u64::from(self.keep_identities_days) * 24 * 60 * 60)
    }
}

/// The address of a store. Its text may hold a password, so it has no `Display`, and
/// `Debug` shows only what kind of store it is.
#[derive(Clone)]
pub enum DatabaseUrl {
    /// A PostgreSQL server.
    Postgres(Box<PgConnectOptions>),
    /// An SQLite file.
    Sqlite(PathBuf),
}

impl DatabaseUrl {
    /// The same with a password in place of the address's, if it has one.
    pub fn with_password(self, password: &str) -> Result<Self, String> {
        match self {
            Self::Postgres(options) => Ok(Self::Postgres(Box::new(options.password(password)))),
            Self::Sqlite(_) => Err("an SQLite file has no password".into()),
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.contains('?') || path.contains(":memory:") {
                return Err("an SQLite address is sqlite:// and the path of a file, such as sqlite://sekali.db".into());
            }
            return Ok(Self::Sqlite(path.into()));
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err("a database address starts with postgres:// or sqlite://".into());
        }
        let options = PgConnectOptions::from_str(text).map_err(|error| {
            format!("not an address such as postgres://user:password@host:5432/database: {error}")
        })?;
        // Statements are logged by their callers, once, without their parameters.
        Ok(Self::Postgres(Box::new(
            options.disable_statement_logging(),
        )))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(_) => f.write_str("postgres://..."),
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_beside_the_address_may_hold_anything() {
        const PASSWORD: &str = "a b:/@?#%'\"\\$é";
        for url in ["postgres://sekali@h/d", "postgres://sekali:old@h/d"] {
            let url: DatabaseUrl = url.parse().unwrap();
            let Ok(DatabaseUrl::Postgres(options)) = url.with_password(PASSWORD) else {
                panic!("it is not taken");
            };
            let shown = format!("{options:?}");
            assert!(shown.contains(&format!("Some({PASSWORD:?})")), "{shown}");
            assert_eq!(options.get_username(), "sekali");
        }
        let file: DatabaseUrl = "sqlite://x.db".parse().unwrap();
        assert!(file.with_password("x").is_err());
    }
}
