//! What is forgotten and removed in the background, a bounded step at a time.

use event::Timestamp;
use sqlx::AssertSqlSafe;

use super::instant::Instant;
use super::{Postgres, connection};
use crate::StoreError;

/// Rows removed by one step: some tens of milliseconds of work, so that a step neither
/// holds up recording nor is held up by the statement time-out.
const STEP: i64 = 5_000;

/// Bytes removed by one step, and what is above them of its last row. What is long is stored in
/// pieces of 2 KB, each of which is a row to remove: 17 MB took 20 ms, 200 MB 300 ms, with all of
/// it in memory (2026-11-26, by hand).
const STEP_BYTES: i64 = 16 * 1024 * 1024;

/// What a deleted topic may have left behind: a table, its key, and what may be long in it.
const LEFT_BEHIND: [[&str; 3]; 3] = [
    ["events", "event_key", "payload"],
    ["conflicts", "id", "payload"],
    ["dead_letters", "id", "bytes"],
];

/// Removes the first rows of a topic (1): at most so many (2), and those before which there are
/// fewer bytes (3) of what may be long. Only how long it is is read.
fn remove([table, key, long]: [&str; 3]) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "DELETE FROM {table} WHERE topic_id = $1 AND {key} IN (
             SELECT {key} FROM (
                 SELECT {key}, sum(bytes) OVER (ROWS UNBOUNDED PRECEDING) - bytes AS above
                 FROM (SELECT {key}, pg_column_size({long}) AS bytes
                       FROM {table} WHERE topic_id = $1 LIMIT $2) AS some_rows
             ) AS summed
             WHERE above < $3)"
    ))
}

impl Postgres {
    pub(crate) async fn housekeep(&self, now: Timestamp) -> Result<bool, StoreError> {
        let keep = i64::try_from(self.keep_identities.as_micros()).unwrap_or(i64::MAX);
        let before = Timestamp::from_micros(now.as_micros().saturating_sub(keep));
        let forgotten = self
            .forget_batches(before.unwrap_or(Timestamp::MIN))
            .await?;
        let removed = self.remove_retired().await?;
        Ok(forgotten || removed)
    }

    async fn forget_batches(&self, before: Timestamp) -> Result<bool, StoreError> {
        let mut connection = self.lease().await?;
        let delete = sqlx::query(
            "DELETE FROM batches WHERE id IN (
                 SELECT id FROM batches WHERE recorded_at < $1 ORDER BY recorded_at LIMIT $2
                 FOR UPDATE SKIP LOCKED)",
        )
        .bind(Instant(before))
        .bind(STEP)
        .execute(&mut *connection);
        let done = crash::during!("forgetting", delete).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Removes some of what one deleted topic left behind; the number itself once nothing is.
    async fn remove_retired(&self) -> Result<bool, StoreError> {
        let mut connection = self.lease().await?;
        let mut transaction = connection.begin("BEGIN").await?;
        let retired: Option<i32> =
            sqlx::query_scalar("SELECT id FROM retired_topics LIMIT 1 FOR UPDATE SKIP LOCKED")
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(id) = retired else { return Ok(false) };
        for rows in LEFT_BEHIND {
            let removed = sqlx::query(remove(rows))
                .bind(id)
                .bind(STEP)
                .bind(STEP_BYTES)
                .execute(&mut *transaction)
                .await?;
            if removed.rows_affected() > 0 {
                connection::commit(transaction).await?;
                return Ok(true);
            }
        }
        sqlx::query("DELETE FROM retired_topics WHERE id = $1")
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        connection::commit(transaction).await?;
        Ok(true)
    }
}
