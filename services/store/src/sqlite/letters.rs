//! Conflicts and dead letters: written with the batch that they came in, listed, replayed.

use event::{Batch, Event, Timestamp, Topic};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::Sqlite;
use super::query::timestamp;
use crate::listing::letters::{
    self, CONFLICTS, DEAD_LETTERS, DROP_LETTER, Listed, Listing, ONE_LETTER,
};
use crate::listing::{Conflict, DeadLetter, Replayed};
use crate::record::{Arrivals, Letter};
use crate::{StoreError, StoredEvent};

pub(super) async fn insert_conflicts(
    connection: &mut SqliteConnection,
    conflicts: &[(i32, &Event<'_>, &Batch)],
    now: Timestamp,
) -> Result<(), StoreError> {
    for (topic_id, event, batch) in conflicts {
        sqlx::query(
            "INSERT INTO conflicts (topic_id, event_id, ts, source, payload, received_at, recorded_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(topic_id)
        .bind(event.event_id.as_str())
        .bind(event.timestamp.as_micros())
        .bind(event.source.as_str())
        .bind(event.payload.as_str())
        .bind(batch.received_at.as_micros())
        .bind(now.as_micros())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

pub(super) async fn insert_letters(
    connection: &mut SqliteConnection,
    letters: &[Letter<'_>],
    now: Timestamp,
) -> Result<(), StoreError> {
    for letter in letters {
        sqlx::query(
            "INSERT INTO dead_letters
                 (topic_id, topic, event_id, reason, events, bytes, batch_id, received_at, buried_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(letter.topic_id)
        .bind(letter.event.map(|event| event.topic.as_str()))
        .bind(letter.event.map(|event| event.event_id.as_str()))
        .bind(&*letter.reason)
        .bind(letter.events)
        .bind(letter.bytes())
        .bind(letter.batch.id.0)
        .bind(letter.batch.received_at.as_micros())
        .bind(now.as_micros())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

impl Sqlite {
    pub(crate) async fn conflicts(
        &self,
        topic: Option<&Topic<'_>>,
        before: Option<i64>,
        limit: usize,
    ) -> Result<(Vec<Conflict>, bool), StoreError> {
        self.listed(&CONFLICTS, topic, before, limit, read_conflict)
            .await
    }

    pub(crate) async fn dead_letters(
        &self,
        topic: Option<&Topic<'_>>,
        before: Option<i64>,
        limit: usize,
    ) -> Result<(Vec<DeadLetter>, bool), StoreError> {
        self.listed(&DEAD_LETTERS, topic, before, limit, read_letter)
            .await
    }

    async fn listed<L: Listed>(
        &self,
        listing: &Listing,
        topic: Option<&Topic<'_>>,
        before: Option<i64>,
        limit: usize,
        read: fn(&SqliteRow) -> Result<L, sqlx::Error>,
    ) -> Result<(Vec<L>, bool), StoreError> {
        let mut query = sqlx::query(listing.of(topic))
            .bind(before.unwrap_or(i64::MAX))
            .bind(letters::rows(limit));
        if let Some(topic) = topic {
            query = query.bind(topic.as_str());
        }
        let rows = query.fetch(&self.readers);
        Ok(letters::page(rows, limit, read).await?)
    }

    pub(crate) async fn replay_dead_letter(
        &self,
        id: i64,
        now: Timestamp,
    ) -> Result<Replayed, StoreError> {
        let mut transaction = self.writer.begin().await?;
        let row = sqlx::query(ONE_LETTER)
            .bind(id)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(letter) = row.as_ref().map(read_letter).transpose()? else {
            return Ok(Replayed::Missing);
        };
        if letter.replayed_at.is_some() {
            return Ok(Replayed::Already);
        }
        let batch = letter.batch();
        let arrivals = Arrivals::decode(std::slice::from_ref(&batch));
        let (judgement, topics) = self.record_in(&mut transaction, &arrivals, now).await?;
        let Some(outcomes) = judgement.replayed() else {
            // Not committed: nothing has changed.
            return Ok(Replayed::StillPoison(letter.reason));
        };
        sqlx::query("UPDATE dead_letters SET replayed_at = ? WHERE id = ?")
            .bind(now.as_micros())
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        self.learn(topics);
        Ok(Replayed::Recorded(outcomes))
    }

    pub(crate) async fn drop_dead_letter(&self, id: i64) -> Result<bool, StoreError> {
        let mut transaction = self.writer.begin().await?;
        let done = sqlx::query(DROP_LETTER)
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(done.rows_affected() > 0)
    }
}

fn read_conflict(row: &SqliteRow) -> Result<Conflict, sqlx::Error> {
    Ok(Conflict {
        id: row.try_get(0)?,
        recorded_at: timestamp(row, 1)?,
        event: StoredEvent {
            topic: row.try_get(2)?,
            event_id: row.try_get(3)?,
            timestamp: timestamp(row, 4)?,
            source: row.try_get(5)?,
            payload: row.try_get(6)?,
            received_at: timestamp(row, 7)?,
        },
    })
}

fn read_letter(row: &SqliteRow) -> Result<DeadLetter, sqlx::Error> {
    Ok(DeadLetter {
        id: row.try_get(0)?,
        topic: row.try_get(1)?,
        event_id: row.try_get(2)?,
        reason: row.try_get(3)?,
        events: row.try_get(4)?,
        bytes: row.try_get(5)?,
        batch_id: row.try_get(6)?,
        received_at: timestamp(row, 7)?,
        buried_at: timestamp(row, 8)?,
        replayed_at: match row.try_get::<Option<i64>, _>(9)? {
            Some(_) => Some(timestamp(row, 9)?),
            None => None,
        },
    })
}
