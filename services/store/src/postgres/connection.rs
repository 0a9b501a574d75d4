//! How a connection is set up, and what is done about errors on it.

use std::time::Duration;

use prometheus::IntCounter;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgPoolOptions, PgSeverity};
use sqlx::{Connection as _, PgPool, Row as _};

use super::lease::Lease;
use crate::StoreError;

/// How long a caller waits for a connection before it is told that there is none. Longer,
/// and a sender waits for an answer that could have been "try again".
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection that was idle may take to answer before another is tried.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that nobody used for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// Limits that the server enforces on every connection:
/// - a process that is stopped inside its transaction must not block its successor, which claims
///   what it had after five seconds (`--claim-idle-ms`) and finds no lock of it then. The server
///   counts from its answer until all of the next statement has arrived, so that this is also the
///   time in which one has to be sent: with less, a slow line needs more attempts with less in
///   them;
/// - nobody waits longer for a lock than a worker waits before it tries again;
/// - a peer that is gone is noticed, even where no packet says so;
/// - a commit that was acknowledged is on disk, whatever the server's default;
/// - a statement sees what was committed before it began, whatever the database's default:
///   recording waits for a lock, and must see what was done under it.
const SESSION: &str = "
    SET idle_in_transaction_session_timeout = '4s';
    SET lock_timeout = '5s';
    SET statement_timeout = '10s';
    SET default_transaction_isolation = 'read committed';
    SET client_min_messages = warning;
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') IN ('off', 'local');
    DO $$ BEGIN
        PERFORM set_config('tcp_user_timeout', '10s', false);
    EXCEPTION WHEN OTHERS THEN
        NULL; -- not every operating system has it
    END $$;
";

pub(super) fn pool(options: &PgConnectOptions, connections: u32, connects: IntCounter) -> PgPool {
    let options = options.clone().application_name("sekali");
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // Instead of the pool's own, which has no bound: all that is left of the time to
        // acquire one would go into the first that is dead.
        .test_before_acquire(false)
        .before_acquire(|connection, _| {
            Box::pin(async move {
                let pong = tokio::time::timeout(PING_TIMEOUT, connection.ping()).await;
                Ok(matches!(pong, Ok(Ok(()))))
            })
        })
        .idle_timeout(IDLE_TIMEOUT)
        .after_connect(move |connection, _| {
            connects.inc();
            Box::pin(async move { sqlx::raw_sql(SESSION).execute(connection).await.map(drop) })
        })
        .connect_lazy_with(options)
}

/// Brings the schema up to date under sqlx's advisory lock. Migrations of a later release
/// are left alone: the previous release must be able to start while an upgrade rolls.
pub(super) async fn migrate(pool: &PgPool) -> Result<(), StoreError> {
    let mut migrator = sqlx::migrate!("migrations/postgres");
    migrator.set_ignore_missing(true);
    // On a connection of its own: where a migration fails or is given up, the migrator leaves
    // the lock that all processes take for it to the session, and it ends with that.
    let mut connection = pool.acquire().await?.detach();
    let newest = migrator.iter().last().map(|migration| migration.version);
    let is_done = answered(async {
        refuse_encoding(&mut connection).await?;
        sqlx::raw_sql("SET statement_timeout = 0")
            .execute(&mut connection)
            .await?;
        let applied = "SELECT EXISTS (SELECT FROM _sqlx_migrations WHERE version = $1)";
        let applied = sqlx::query_scalar(applied).bind(newest);
        // Without the table, none is.
        Ok(applied.fetch_one(&mut connection).await.unwrap_or(false))
    });
    // Most starts find nothing to do, and wait no longer than for any other answer.
    let patience = if is_done.await? {
        ANSWER_TIMEOUT
    } else {
        MIGRATION_TIMEOUT
    };
    let run = migrator.run_direct(None, &mut connection, false);
    match tokio::time::timeout(patience, run).await {
        Ok(done) => done?,
        Err(_) => return Err(StoreError::Unavailable(silence())),
    }
    // Whether it ends well makes no difference.
    let _ = tokio::time::timeout(PING_TIMEOUT, connection.close()).await;
    Ok(())
}

pub(super) async fn check(pool: &PgPool) -> Result<(), StoreError> {
    let mut connection = Lease::of(pool).await?;
    let row = sqlx::query("SELECT pg_is_in_recovery(), current_setting('transaction_read_only')")
        .fetch_one(&mut *connection)
        .await?;
    if row.try_get::<bool, _>(0)? || row.try_get::<String, _>(1)? == "on" {
        return Err(StoreError::Unavailable(sqlx::Error::Protocol(
            "the server is read-only".into(),
        )));
    }
    refuse_encoding(&mut connection).await
}

/// What is sent is UTF-8, which these keep byte by byte. From another encoding the server
/// translates; what it can't translate looks like poison, and would be buried for a fault of
/// whoever made the database.
const ENCODINGS: [&str; 2] = ["UTF8", "SQL_ASCII"];

async fn refuse_encoding(connection: &mut PgConnection) -> Result<(), StoreError> {
    let encoding: String = sqlx::query_scalar("SELECT current_setting('server_encoding')")
        .fetch_one(connection)
        .await?;
    if ENCODINGS.contains(&&*encoding) {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "the database's encoding is {encoding}: make one with ENCODING 'UTF8'"
    )))
}

/// How long the server may take to answer. Its own time-outs are shorter; longer is silent
/// only a connection that is dead, which nobody was told of: without a bound, whoever
/// waited on it would wait for ever.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the migrations of an upgrade may take: an index on a large table takes minutes.
const MIGRATION_TIMEOUT: Duration = Duration::from_hours(1);

/// Waits for what the server was asked, but not for ever.
pub(crate) async fn answered<T>(
    asked: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
    answer.unwrap_or_else(|_| Err(StoreError::Unavailable(silence())))
}

/// The same for a change, which the server may still make.
pub(crate) async fn changed<T>(
    asked: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
    answer.unwrap_or_else(|_| Err(StoreError::OutcomeUnknown(silence())))
}

pub(super) fn silence() -> sqlx::Error {
    sqlx::Error::Protocol("no answer from the server".into())
}

/// Commits, and tells a refusal (nothing happened) from everything else (nobody knows).
pub(super) async fn commit(
    transaction: sqlx::Transaction<'_, sqlx::Postgres>,
) -> Result<(), StoreError> {
    let committed = transaction.commit().await;
    committed.map_err(|error| match severity(&error) {
        Some(PgSeverity::Error) => StoreError::Unavailable(error),
        // FATAL and PANIC say that the session or the server ended, in the midst of a commit
        // perhaps: a pooler says so of a server that it lost, a server whose disk is full after
        // it wrote the commit.
        _ => StoreError::OutcomeUnknown(error),
    })
}

/// How bad it is for the server, if the server says so.
fn severity(error: &sqlx::Error) -> Option<PgSeverity> {
    let error = error.as_database_error()?;
    Some(error.try_downcast_ref::<PgDatabaseError>()?.severity())
}

/// Why the very event can never be stored, if so.
pub(super) fn poison(error: &sqlx::Error) -> Option<String> {
    let database = error.as_database_error()?;
    let code = database.code()?;
    // The server's message may quote what was sent; the code says what is wrong with it.
    is_poison(&code).then(|| format!("the database can't store it (SQLSTATE {code})"))
}

/// The event's data is invalid (classes 22 and 23), or nested beyond what the server can parse
/// (54001). Everything else may pass.
/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn is_poison(code: &str) -> bool {
    code.starts_with("22") || code.starts_with("23") || code == "54001"
}

/// A deadlock or a serialization failure: the server chose a victim, who tries again.
pub(super) fn is_retryable(error: &StoreError) -> bool {
    let StoreError::Unavailable(error) = error else {
        return false;
    };
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("40P01" | "40001"))
}

#[cfg(test)]
mod tests {
    use super::is_poison;

    #[test]
    fn an_outage_is_no_poison() {
        for (code, expected) in [
            ("22021", true),  // characters that are none
            ("22P02", true),  // text that is no value
            ("22P05", true),  // what can't be translated
            ("23502", true),  // null
            ("23514", true),  // a check
            ("54001", true),  // too deep
            ("25006", false), // read-only
            ("40P01", false), // deadlock
            ("42501", false), // rights
            ("42P01", false), // no such table
            ("53100", false), // disk full
            ("53200", false), // out of memory
            ("53300", false), // too many connections
            ("54000", false), // a limit of the server
            ("55P03", false), // a lock
            ("57014", false), // cancelled
            ("57P01", false), // shutdown
            ("57P03", false), // starting up
        ] {
            assert_eq!(is_poison(code), expected, "{code}");
        }
    }
}
