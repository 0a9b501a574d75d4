//! How topics become numbers, inside the transaction that needs them.

use std::collections::HashMap;

use event::Topic;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::Sqlite;
use super::writer::Transaction;
use crate::StoreError;
use crate::record::{Arrivals, TopicIds};

/// With one writer there is nobody whose numbers could be of another epoch.
const EPOCH: i64 = 0;

impl Sqlite {
    /// The numbers of all topics that arrived, giving new ones where there is room, and
    /// all topics if they had to be read: to be remembered once it is committed, but before
    /// the next transaction, which would otherwise use what this one changed.
    pub(super) async fn intern(
        &self,
        transaction: &mut Transaction<'_>,
        arrivals: &Arrivals<'_>,
    ) -> Result<(TopicIds, Option<AllTopics>), StoreError> {
        let names = arrivals.topics();
        if let Some((ids, _)) = self.topics.look_up(names.iter().copied()) {
            return Ok((ids, None));
        }
        let mut all = read_all(transaction).await?;
        let mut ids = TopicIds::new();
        for name in names {
            let mut id = all.get(name).copied();
            if id.is_none() && all.len() < self.topics.limit() {
                let new = sqlx::query_scalar("INSERT INTO topics (name) VALUES (?) RETURNING id")
                    .bind(name)
                    .fetch_one(&mut **transaction)
                    .await?;
                all.insert(name.to_owned(), new);
                id = Some(new);
            }
            ids.insert(name.to_owned(), id);
        }
        Ok((ids, Some(all)))
    }

    pub(super) fn learn(&self, topics: Option<AllTopics>) {
        if let Some(topics) = topics {
            self.topics.learn(topics, EPOCH);
        }
    }

    pub(crate) async fn refresh_topics(&self) -> Result<(), StoreError> {
        // Not while a transaction of this process may be adding or removing some.
        let mut transaction = self.writer.begin().await?;
        let all = read_all(&mut transaction).await?;
        self.topics.learn(all, EPOCH);
        transaction.commit().await
    }

    /// Removes the name and the books, and nothing of which there may be much: see
    /// `postgres/topics.rs`.
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
            "INSERT INTO retired_topics (id) VALUES (?)",
        ] {
            sqlx::query(statement)
                .bind(id)
                .execute(&mut *transaction)
                .await?;
        }
        // Before the commit, which goes on where its caller is dropped while it waits: what is
        // remembered then would be of a number that is gone. Nobody learns the old one again,
        // since that takes the lock that is held here.
        self.topics.forget();
        transaction.commit().await?;
        Ok(true)
    }
}

pub(super) type AllTopics = HashMap<String, i32>;

async fn read_all(connection: &mut SqliteConnection) -> Result<AllTopics, StoreError> {
    let rows = sqlx::query("SELECT name, id FROM topics")
        .fetch_all(connection)
        .await?;
    let topics = rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    Ok(topics.collect::<Result<_, sqlx::Error>>()?)
}
