//! The store over an SQLite file: the same meaning as over PostgreSQL, with one writer.
//!
//! One connection writes, under a lock that is held from `BEGIN IMMEDIATE` to the end of
//! the transaction; a few others read, and see what was committed when their statement
//! began. A second process on the file is refused: it would be a second writer, with
//! topics of its own in its cache.

mod housekeep;
mod letters;
mod query;
mod record;
mod rows;
mod topics;
mod writer;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{ConnectOptions as _, SqlitePool};

use crate::commit::Commits;
use crate::metrics::Metrics;
use crate::topics::TopicCache;
use crate::{Args, StoreError};
use writer::Writer;

/// Connections that read. More than the cores of a laptop gain nothing.
const READERS: u32 = 4;

/// Pages that a reader keeps, in KiB (negative for SQLite, which takes pages otherwise).
const READER_CACHE: &str = "-4096";

/// Rows that a reader reads ahead of whoever takes them: payloads may be of 1 MiB, and what is
/// read ahead when an answer is full is thrown away.
const READ_AHEAD: usize = 4;

/// One file, its writer and its readers.
#[derive(Debug, Clone)]
pub(crate) struct Sqlite {
    writer: Arc<Writer>,
    readers: SqlitePool,
    pub(crate) topics: Arc<TopicCache>,
    keep_identities: Duration,
    commits: Commits,
    /// Locked for as long as any clone lives.
    _lock: Arc<File>,
}

impl Sqlite {
    pub(crate) fn new(path: &Path, args: &Args, metrics: &Metrics) -> Result<Self, StoreError> {
        let lock = lock(path)?;
        let file = SqliteConnectOptions::new()
            .filename(path)
            .disable_statement_logging();
        let readers = file
            .clone()
            .read_only(true)
            .row_buffer_size(READ_AHEAD)
            .pragma("cache_size", READER_CACHE);
        Ok(Self {
            writer: Arc::new(Writer::new(file)),
            readers: SqlitePoolOptions::new()
                .max_connections(READERS)
                .connect_lazy_with(readers),
            topics: Arc::new(TopicCache::new(args.max_topics)),
            keep_identities: args.keep_identities(),
            commits: metrics.commits("sqlite"),
            _lock: Arc::new(lock),
        })
    }

    pub(crate) async fn migrate(&self) -> Result<(), StoreError> {
        self.writer.migrate().await
    }

    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT id FROM topics LIMIT 1")
            .execute(&self.readers)
            .await?;
        Ok(())
    }

    pub(crate) async fn close(&self, patience: Duration) {
        let close = async {
            self.readers.close().await;
            self.writer.close().await;
        };
        // What is still running then is cut off with the process; nothing waits for it.
        let _ = tokio::time::timeout(patience, close).await;
    }
}

/// Locks a file beside the database. Not the database itself: SQLite locks that in its own
/// way, and closing any handle on it would drop those locks
/// (<https://www.sqlite.org/howtocorrupt.html>, 2.2).
fn lock(path: &Path) -> Result<File, StoreError> {
    let beside = PathBuf::from(format!("{}.lock", path.display()));
    let cannot = |error: std::io::Error| {
        StoreError::Unusable(format!("can't use {}: {error}", beside.display()))
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&beside)
        .map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unusable(format!(
            "{} is in use by another process",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnection;
    use sqlx::{AssertSqlSafe, Connection as _};

    use super::query;

    #[tokio::test]
    async fn events_are_read_in_the_order_of_their_positions_without_sorting_them() {
        let mut connection = SqliteConnection::connect(":memory:").await.unwrap();
        let migrator = sqlx::migrate!("migrations/sqlite");
        migrator
            .run_direct(None, &mut connection, false)
            .await
            .unwrap();
        let AssertSqlSafe(statement) = query::events_at(256);
        let plan = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(plan)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let steps: Vec<_> = plan.into_iter().map(|(_, _, _, step)| step).collect();
        assert!(
            steps
                .iter()
                .any(|step| step.contains("events_pkey") || step.contains("autoindex")),
            "{steps:?}"
        );
        assert!(
            !steps.iter().any(|step| step.contains("B-TREE")),
            "{steps:?}"
        );
    }
}
