//! What is forgotten and removed in the background, a bounded step at a time.

use event::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

use super::Sqlite;
use super::writer::LONG_LOG;
use crate::StoreError;

/// Rows removed by one step: the writer waits for it, some ten milliseconds.
const STEP: i64 = 1_000;

/// Bytes removed by one step, and what is above them of its last row. Of what is long each page
/// names the next, so that all of them are read to be removed: 17 MB took 65 ms, 500 MB 2 s
/// (2026-11-26, by hand).
const STEP_BYTES: i64 = 16 * 1024 * 1024;

/// What a deleted topic may have left behind: a table, its key, and what may be long in it.
const LEFT_BEHIND: [[&str; 3]; 3] = [
    ["events", "rowid", "payload"],
    ["conflicts", "id", "payload"],
    ["dead_letters", "id", "bytes"],
];

/// Removes the first rows of a topic (1): at most so many (2), and those before which there are
/// fewer bytes (3) of what may be long. How long it is stands at the beginning of a row, and
/// `octet_length` reads no more.
fn remove([table, key, long]: [&str; 3]) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "DELETE FROM {table} WHERE {key} IN (
             SELECT key FROM (
                 SELECT key, sum(bytes) OVER (ROWS UNBOUNDED PRECEDING) - bytes AS above
                 FROM (SELECT {key} AS key, octet_length({long}) AS bytes
                       FROM {table} WHERE topic_id = ?1 LIMIT ?2))
             WHERE above < ?3)"
    ))
}

impl Sqlite {
    pub(crate) async fn housekeep(&self, now: Timestamp) -> Result<bool, StoreError> {
        let keep = i64::try_from(self.keep_identities.as_micros()).unwrap_or(i64::MAX);
        let before = now.as_micros().saturating_sub(keep);
        if !self.has_work(before).await? {
            // Once, after all else: recording may wait for it.
            self.writer.cut_log(LONG_LOG).await?;
            return Ok(false);
        }
        let mut transaction = self.writer.begin().await?;
        sqlx::query(
            "DELETE FROM batches WHERE id IN (
                 SELECT id FROM batches WHERE recorded_at < ? ORDER BY recorded_at LIMIT ?)",
        )
        .bind(before)
        .bind(STEP)
        .execute(&mut *transaction)
        .await?;
        let retired: Option<i32> = sqlx::query_scalar("SELECT id FROM retired_topics LIMIT 1")
            .fetch_optional(&mut *transaction)
            .await?;
        if let Some(id) = retired {
            remove_retired(&mut transaction, id).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Asked of a reader, so that an idle process never waits for a sync.
    async fn has_work(&self, before: i64) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM batches WHERE recorded_at < ?)
                 OR EXISTS (SELECT 1 FROM retired_topics)",
        )
        .bind(before)
        .fetch_one(&self.readers)
        .await?)
    }
}

/// Removes some of what a deleted topic left behind; the number itself once nothing is.
async fn remove_retired(connection: &mut SqliteConnection, id: i32) -> Result<(), StoreError> {
    for rows in LEFT_BEHIND {
        let removed = sqlx::query(remove(rows))
            .bind(id)
            .bind(STEP)
            .bind(STEP_BYTES)
            .execute(&mut *connection)
            .await?;
        if removed.rows_affected() > 0 {
            return Ok(());
        }
    }
    sqlx::query("DELETE FROM retired_topics WHERE id = ?")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}
