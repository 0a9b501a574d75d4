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
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePoolOptions};
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

/// How long whoever asks waits for a reader, as for a connection to PostgreSQL.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a reader may be used, which is for one question: the time that PostgreSQL has for a
/// statement. Without it, a few questions that no index serves stop all others.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Steps of SQLite's machine after which it looks at the time: a millisecond or less.
const LOOK: i32 = 10_000;

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
        let path = resolve(path)?;
        let lock = lock(&path)?;
        let file = SqliteConnectOptions::new()
            .filename(&path)
            .disable_statement_logging();
        let readers = file
            .clone()
            .read_only(true)
            .row_buffer_size(READ_AHEAD)
            .pragma("cache_size", READER_CACHE);
        Ok(Self {
            writer: Arc::new(Writer::new(file, &path)),
            readers: pool(readers, READ_TIMEOUT),
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

/// Readers that may each be used for so long at a time.
fn pool(readers: SqliteConnectOptions, patience: Duration) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| Box::pin(limit(connection, patience)))
        .before_acquire(move |connection, _| {
            Box::pin(async move { limit(connection, patience).await.map(|()| true) })
        })
        .connect_lazy_with(readers)
}

/// From now on it may be used for so long.
async fn limit(connection: &mut SqliteConnection, patience: Duration) -> Result<(), sqlx::Error> {
    let until = Instant::now() + patience;
    let mut handle = connection.lock_handle().await?;
    handle.set_progress_handler(LOOK, move || Instant::now() < until);
    Ok(())
}

/// The file itself, whatever links lead to it, so that it has one lock. It is made if it is not
/// there, since a link to nothing does not tell what it will be a link to.
fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let made = || {
        if !path.exists() {
            File::options().create(true).append(true).open(path)?;
        }
        path.canonicalize()
    };
    made().map_err(|error| StoreError::Unusable(format!("can't use {}: {error}", path.display())))
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
    use sqlx::{AssertSqlSafe, Connection as _};

    use super::*;

    #[tokio::test]
    async fn a_question_without_an_end_is_ended_and_the_reader_answers_the_next() {
        let file = SqliteConnectOptions::new().filename(":memory:");
        let pool = pool(file, Duration::from_millis(300));
        // The second time on a connection that was used before.
        for _ in 0..2 {
            let mut reader = pool.acquire().await.unwrap();
            let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                           SELECT count(*) FROM n";
            let error = sqlx::query(endless).execute(&mut *reader).await;
            assert!(StoreError::from(error.unwrap_err()).is_too_slow());
            reader.return_to_pool().await;
        }
        assert_eq!(pool.num_idle(), 1);
        sqlx::query("SELECT 1").execute(&pool).await.unwrap();
    }

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
