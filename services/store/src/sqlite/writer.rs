//! The one connection that writes.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};
use tokio::sync::{Mutex, MutexGuard};

use crate::StoreError;

/// How long to wait for someone who holds the file from outside, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages that the writer keeps, in KiB: half of the unique index of a million events, so
/// that inserting at random places seldom reads.
const CACHE: &str = "-32768";

/// Pages in the write-ahead log before they are moved into the file: 64 MiB. A page of an
/// index that is filled at random is in the log many times by then, and is moved once; with
/// SQLite's default of 4 MiB a busy writer moves it each time.
const CHECKPOINT_PAGES: &str = "16384";

/// Bytes of the write-ahead log at which it is cut: four times what it is without readers. It
/// begins anew only at an instant at which nobody reads from it, and where readers overlap, there
/// may be none for hours.
pub(super) const LONG_LOG: u64 = 4 * 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Writer {
    options: SqliteConnectOptions,
    /// The write-ahead log.
    log: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// None before the first use, and after an error until the next.
    connection: Option<SqliteConnection>,
}

impl Writer {
    pub(super) fn new(file: SqliteConnectOptions, path: &Path) -> Self {
        let options = file
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged event survives a power cut: NORMAL syncs only checkpoints.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("cache_size", CACHE)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .pragma("temp_store", "memory");
        let mut log = path.to_owned().into_os_string();
        log.push("-wal");
        Self {
            options,
            log: log.into(),
            inner: Mutex::default(),
        }
    }

    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().await;
        let mut migrator = sqlx::migrate!("migrations/sqlite");
        migrator.set_ignore_missing(true);
        migrator
            .run_direct(None, self.connected(&mut inner).await?, false)
            .await?;
        Ok(())
    }

    /// Begins a transaction once the one before it has ended.
    pub(super) async fn begin(&self) -> Result<Transaction<'_>, StoreError> {
        let mut inner = self.inner.lock().await;
        self.connected(&mut inner).await?;
        // Before it begins, since SQLite goes on with that where the caller is dropped while it
        // waits: from here on, dropped before its end, it takes the connection with it.
        let mut transaction = Transaction { inner, open: true };
        transaction.execute("BEGIN IMMEDIATE").await?;
        Ok(transaction)
    }

    /// Moves the log into the file and empties it, if it is longer than so many bytes.
    ///
    /// Nobody writes meanwhile, so that whoever begins to read finds all in the file and needs no
    /// log, and those who read from it get fewer. They are waited for for [`BUSY_TIMEOUT`] in all,
    /// which is how long recording may be held up; if one of them takes longer, another attempt
    /// may come to an end.
    pub(super) async fn cut_log(&self, above: u64) -> Result<(), StoreError> {
        // Without a log there is nothing to cut.
        let length = std::fs::metadata(&self.log).map_or(0, |log| log.len());
        if length <= above {
            return Ok(());
        }
        let mut inner = self.inner.lock().await;
        let connection = self.connected(&mut inner).await?;
        let cut = connection.fetch_one("PRAGMA wal_checkpoint(TRUNCATE)");
        if cut.await?.try_get::<i64, _>(0)? != 0 {
            tracing::warn!(
                length,
                "readers keep the write-ahead log from being cut; it is tried again"
            );
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        if let Some(connection) = self.inner.lock().await.connection.take() {
            // The last to close also empties the write-ahead log; the next start would.
            let _ = connection.close().await;
        }
    }

    async fn connected<'c>(
        &self,
        inner: &'c mut Inner,
    ) -> Result<&'c mut SqliteConnection, StoreError> {
        let connection = match inner.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        Ok(inner.connection.insert(connection))
    }
}

/// A transaction, which is the connection while it lasts. Dropped before its end it closes
/// the connection, which rolls it back whatever state it was in.
pub(super) struct Transaction<'w> {
    inner: MutexGuard<'w, Inner>,
    open: bool,
}

impl Transaction<'_> {
    /// Commits. The lock is held until the value is dropped, so that what has to change
    /// together with the file can.
    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        self.execute("COMMIT").await.map_err(in_doubt)?;
        self.open = false;
        Ok(())
    }
}

const CONNECTED: &str = "a transaction begins on a connection and keeps it";

impl Deref for Transaction<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.inner.connection.as_ref().expect(CONNECTED)
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.inner.connection.as_mut().expect(CONNECTED)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            self.inner.connection = None;
        }
    }
}

/// SQLITE_BUSY and SQLITE_FULL leave the transaction open, and it is rolled back. After
/// any other error (a sync that failed) the commit may be in the log and be found there
/// by the next start.
/// Source: <https://www.sqlite.org/rescode.html>.
fn in_doubt(error: sqlx::Error) -> StoreError {
    const BUSY: u32 = 5;
    const FULL: u32 = 13;
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .and_then(|code| code.parse::<u32>().ok());
    // The low byte is the primary code.
    match code.map(|code| code & 0xff) {
        Some(BUSY | FULL) => StoreError::Unavailable(error),
        _ => StoreError::OutcomeUnknown(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer of a new file, with a table of numbers and texts.
    async fn writer(directory: &tempfile::TempDir) -> (Writer, SqliteConnectOptions) {
        let path = directory.path().join("db");
        let file = SqliteConnectOptions::new().filename(&path);
        let writer = Writer::new(file.clone(), &path);
        write(&writer, "CREATE TABLE t (n INTEGER, text TEXT)").await;
        (writer, file)
    }

    async fn write(writer: &Writer, statement: &'static str) {
        let mut transaction = writer.begin().await.unwrap();
        transaction.execute(statement).await.unwrap();
        transaction.commit().await.unwrap();
    }

    fn length(writer: &Writer) -> u64 {
        writer.log.metadata().unwrap().len()
    }

    #[tokio::test]
    async fn a_commit_is_synced_and_written_ahead() {
        let directory = tempfile::tempdir().unwrap();
        let (writer, _) = writer(&directory).await;
        let mut transaction = writer.begin().await.unwrap();
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
        // 2 is FULL.
        assert_eq!((synchronous, &*mode), (2, "wal"));
    }

    #[tokio::test]
    async fn a_log_that_readers_keep_is_cut_once_those_of_before_have_ended() {
        const INSERT: &str = "INSERT INTO t VALUES (1, hex(zeroblob(100000)))";
        let directory = tempfile::tempdir().unwrap();
        let (writer, file) = writer(&directory).await;
        write(&writer, INSERT).await;
        let long = length(&writer);
        writer.cut_log(long).await.unwrap();
        assert_eq!(length(&writer), long, "it is not above");

        let mut reader = file.connect().await.unwrap();
        let (begin, read) = ("BEGIN", "SELECT count(*) FROM t");
        reader.execute(begin).await.unwrap();
        reader.fetch_one(read).await.unwrap();
        write(&writer, INSERT).await;
        assert!(length(&writer) > long);
        let cut = writer.cut_log(long);
        let ended = async {
            assert!(writer.inner.try_lock().is_err(), "nobody writes meanwhile");
            reader.execute("COMMIT").await.unwrap();
        };
        let (cut, ()) = tokio::join!(cut, ended);
        cut.unwrap();
        assert_eq!(length(&writer), 0);
        write(&writer, INSERT).await;
        let count = reader.fetch_one(read).await.unwrap();
        assert_eq!(count.get::<i64, _>(0), 3);
    }
}
