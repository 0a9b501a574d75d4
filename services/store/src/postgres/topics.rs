//! How topics become numbers, and how they go away.
//!
//! A number is given in a committed transaction of its own and never used twice.
//! Recording holds [`TOPICS_LOCK`] shared and compares the epoch and the numbers; deleting a
//! topic takes it exclusively and raises the epoch, so no row is ever written under a number
//! that is gone.

use std::collections::HashMap;

use event::Topic;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::{Postgres, connection};
use crate::StoreError;
use crate::record::{Arrivals, TopicIds};

/// Held shared while recording, exclusively while a topic is deleted. ("sekali" in ASCII.)
pub(super) const TOPICS_LOCK: i64 = 0x7365_6b61_6c69;

/// Held while numbers are given, so that no two processes give the last one.
const INTERN_LOCK: i64 = TOPICS_LOCK + 1;

impl Postgres {
    /// The numbers of all topics that arrived, giving new ones where needed.
    pub(super) async fn intern(
        &self,
        arrivals: &Arrivals<'_>,
    ) -> Result<(TopicIds, i64), StoreError> {
        let names = arrivals.topics();
        if let Some(found) = self.topics.look_up(names.iter().copied()) {
            return Ok(found);
        }
        let names: Vec<&str> = names.into_iter().collect();
        let mut connection = self.lease().await?;
        let mut transaction = connection.begin("BEGIN").await?;
        lock(&mut transaction, INTERN_LOCK).await?;
        give_numbers(&mut transaction, &names, self.topics.limit()).await?;
        let (ids, epoch) = read_all(&mut transaction).await?;
        connection::commit(transaction).await?;
        let found = names
            .iter()
            .map(|name| ((*name).to_owned(), ids.get(*name).copied()))
            .collect();
        self.topics.learn(ids, epoch);
        Ok((found, epoch))
    }

    pub(crate) async fn refresh_topics(&self) -> Result<(), StoreError> {
        let mut connection = self.lease().await?;
        let (ids, epoch) = read_all(&mut connection).await?;
        self.topics.learn(ids, epoch);
        Ok(())
    }

    /// Removes the name and the books, and nothing of which there may be much: all recording
    /// waits for the lock. What is left of it nobody is shown, and housekeeping removes it.
    pub(crate) async fn delete_topic(&self, topic: &Topic<'_>) -> Result<bool, StoreError> {
        let mut connection = self.lease().await?;
        let mut transaction = connection.begin("BEGIN").await?;
        lock(&mut transaction, TOPICS_LOCK).await?;
        let deleted =
            sqlx::query_scalar::<_, i32>("DELETE FROM topics WHERE name = $1 RETURNING id")
                .bind(topic.as_str())
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(id) = deleted else { return Ok(false) };
        for statement in [
            "DELETE FROM counters WHERE topic_id = $1",
            "INSERT INTO retired_topics (id) VALUES ($1)",
        ] {
            sqlx::query(statement)
                .bind(id)
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query("UPDATE topics_epoch SET epoch = epoch + 1")
            .execute(&mut *transaction)
            .await?;
        connection::commit(transaction).await?;
        self.topics.forget();
        Ok(true)
    }
}

async fn lock(connection: &mut PgConnection, lock: i64) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(lock)
        .execute(connection)
        .await?;
    Ok(())
}

async fn give_numbers(
    connection: &mut PgConnection,
    names: &[&str],
    limit: usize,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO topics (name)
         SELECT name FROM unnest($1::text[]) AS wanted (name)
         WHERE NOT EXISTS (SELECT FROM topics WHERE topics.name = wanted.name COLLATE \"C\")
         ORDER BY name
         -- Whoever comes when it is full gets no number.
         LIMIT greatest(0, $2 - (SELECT count(*) FROM topics))",
    )
    .bind(names)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(())
}

/// All topics; there are at most as many as the limit. The epoch is read first: a topic
/// deleted in between then shows as an epoch that is too old, never as one too new.
async fn read_all(
    connection: &mut PgConnection,
) -> Result<(HashMap<String, i32>, i64), StoreError> {
    let epoch = sqlx::query_scalar("SELECT epoch FROM topics_epoch")
        .fetch_one(&mut *connection)
        .await?;
    let rows = sqlx::query("SELECT name, id FROM topics")
        .fetch_all(&mut *connection)
        .await?;
    let ids = rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    Ok((ids.collect::<Result<_, sqlx::Error>>()?, epoch))
}
