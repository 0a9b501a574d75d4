//! How topics become numbers, inside the transaction that needs them.

use event::Topic;
use sqlx::Row as _;

use super::Sqlite;
use super::writer::Transaction;
use crate::StoreError;
use crate::record::{Arrivals, TopicIds};

/// The numbers of all topics that arrived, giving new ones where there is room.
pub(super) async fn intern(
    transaction: &mut Transaction<'_>,
    arrivals: &Arrivals<'_>,
    limit: usize,
) -> Result<TopicIds, StoreError> {
    let (known, connection) = transaction.topics();
    if known.is_empty() {
        let rows = sqlx::query("SELECT name, id FROM topics")
            .fetch_all(&mut *connection)
            .await?;
        for row in &rows {
            known.insert(row.try_get(0)?, row.try_get(1)?);
        }
    }
    let mut ids = TopicIds::new();
    for name in arrivals.topics() {
        let mut id = known.get(name).copied();
        if id.is_none() && known.len() < limit {
            let new = sqlx::query_scalar("INSERT INTO topics (name) VALUES (?) RETURNING id")
                .bind(name)
                .fetch_one(&mut *connection)
                .await?;
            known.insert(name.to_owned(), new);
            id = Some(new);
        }
        ids.insert(name.to_owned(), id);
    }
    Ok(ids)
}

impl Sqlite {
    pub(crate) async fn topic_beyond_limit<'t>(
        &self,
        names: &[&'t str],
    ) -> Result<Option<&'t str>, StoreError> {
        let mut room = None;
        for name in names {
            let known = sqlx::query("SELECT id FROM topics WHERE name = ?")
                .bind(*name)
                .fetch_optional(&self.readers)
                .await?;
            if known.is_some() {
                continue;
            }
            if room.is_none() {
                let count: i64 = sqlx::query_scalar("SELECT count(*) FROM topics")
                    .fetch_one(&self.readers)
                    .await?;
                room = Some(usize::try_from(count).unwrap_or(0) < self.max_topics);
            }
            if room == Some(false) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    pub(crate) async fn delete_topic(&self, topic: &Topic<'_>) -> Result<bool, StoreError> {
        let mut transaction = self.writer.begin().await?;
        let deleted =
            sqlx::query_scalar::<_, i32>("DELETE FROM topics WHERE name = ? RETURNING id")
                .bind(topic.as_str())
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(id) = deleted else {
            transaction.commit().await?;
            return Ok(false);
        };
        for statement in [
            "DELETE FROM counters WHERE topic_id = ?",
            "DELETE FROM conflicts WHERE topic_id = ?",
            "DELETE FROM dead_letters WHERE topic_id = ?",
            "INSERT INTO retired_topics (id) VALUES (?)",
        ] {
            sqlx::query(statement)
                .bind(id)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.topics().0.remove(topic.as_str());
        transaction.commit().await?;
        Ok(true)
    }
}
