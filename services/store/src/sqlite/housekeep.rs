//! What is forgotten and removed in the background, a bounded step at a time.

use event::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::Sqlite;
use crate::StoreError;

/// Rows removed by one step: the writer waits for it, some ten milliseconds.
const STEP: i64 = 1_000;

/// Removes so many rows (2) of a deleted topic (1).
const LEFT_BEHIND: [&str; 3] = [
    "DELETE FROM events WHERE rowid IN (
         SELECT rowid FROM events WHERE topic_id = ?1 LIMIT ?2)",
    "DELETE FROM conflicts WHERE id IN (
         SELECT id FROM conflicts WHERE topic_id = ?1 LIMIT ?2)",
    "DELETE FROM dead_letters WHERE id IN (
         SELECT id FROM dead_letters WHERE topic_id = ?1 LIMIT ?2)",
];

impl Sqlite {
    pub(crate) async fn housekeep(&self, now: Timestamp) -> Result<bool, StoreError> {
        let keep = i64::try_from(self.keep_identities.as_micros()).unwrap_or(i64::MAX);
        let before = now.as_micros().saturating_sub(keep);
        if !self.has_work(before).await? {
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
    for statement in LEFT_BEHIND {
        let removed = sqlx::query(statement)
            .bind(id)
            .bind(STEP)
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
