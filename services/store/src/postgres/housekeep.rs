//! What is forgotten and removed in the background, a bounded step at a time.

use event::Timestamp;

use super::instant::Instant;
use super::{Postgres, connection};
use crate::StoreError;

/// Rows removed by one step: some tens of milliseconds of work, so that a step neither
/// holds up recording nor is held up by the statement time-out.
const STEP: i64 = 5_000;

/// Removes so many rows (2) of a deleted topic (1).
const LEFT_BEHIND: [&str; 3] = [
    "DELETE FROM events WHERE topic_id = $1 AND event_key IN (
         SELECT event_key FROM events WHERE topic_id = $1 LIMIT $2)",
    "DELETE FROM conflicts WHERE id IN (
         SELECT id FROM conflicts WHERE topic_id = $1 LIMIT $2)",
    "DELETE FROM dead_letters WHERE id IN (
         SELECT id FROM dead_letters WHERE topic_id = $1 LIMIT $2)",
];

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
        for statement in LEFT_BEHIND {
            let removed = sqlx::query(statement)
                .bind(id)
                .bind(STEP)
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
