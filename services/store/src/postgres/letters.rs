//! Conflicts and dead letters: written with the batch that they came in, listed, replayed.

use event::{Batch, Event, Timestamp, Topic};
use sqlx::Row as _;
use sqlx::postgres::{PgBindIterExt as _, PgConnection, PgRow};

use super::instant::Instant;
use super::record::{Attempt, BEGIN_LOCKED, Care, How};
use super::{Postgres, connection};
use crate::listing::letters::{
    self, CONFLICTS, DEAD_LETTERS, DROP_LETTER, Listed, Listing, ONE_LETTER,
};
use crate::listing::{Conflict, DeadLetter, Replayed};
use crate::record::{Arrivals, Letter};
use crate::{StoreError, StoredEvent};

pub(super) async fn insert_conflicts(
    connection: &mut PgConnection,
    conflicts: &[(i32, &Event<'_>, &Batch)],
    now: Timestamp,
) -> Result<(), StoreError> {
    if conflicts.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO conflicts (topic_id, event_id, ts, source, payload, received_at, recorded_at)
         SELECT *, $7
         FROM unnest($1::int4[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::timestamptz[])",
    )
    .bind(conflicts.iter().map(|(topic, _, _)| *topic).bind_iter())
    .bind(conflicts.iter().map(|(_, event, _)| event.event_id.as_str()).bind_iter())
    .bind(conflicts.iter().map(|(_, event, _)| Instant(event.timestamp)).bind_iter())
    .bind(conflicts.iter().map(|(_, event, _)| event.source.as_str()).bind_iter())
    .bind(conflicts.iter().map(|(_, event, _)| event.payload.as_str()).bind_iter())
    .bind(conflicts.iter().map(|(_, _, batch)| Instant(batch.received_at)).bind_iter())
    .bind(Instant(now))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn insert_letters(
    connection: &mut PgConnection,
    letters: &[Letter<'_>],
    now: Timestamp,
) -> Result<(), StoreError> {
    if letters.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO dead_letters
             (topic_id, topic, event_id, reason, events, bytes, batch_id, received_at, buried_at)
         SELECT *, $9 FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[],
             $5::int8[], $6::bytea[], $7::uuid[], $8::timestamptz[])",
    )
    .bind(letters.iter().map(|letter| letter.topic_id).bind_iter())
    .bind(
        letters
            .iter()
            .map(|letter| letter.event.map(|event| event.topic.as_str()))
            .bind_iter(),
    )
    .bind(
        letters
            .iter()
            .map(|letter| letter.event.map(|event| event.event_id.as_str()))
            .bind_iter(),
    )
    .bind(letters.iter().map(|letter| &*letter.reason).bind_iter())
    .bind(letters.iter().map(|letter| letter.events).bind_iter())
    .bind(letters.iter().map(Letter::bytes).bind_iter())
    .bind(letters.iter().map(|letter| letter.batch.id.0).bind_iter())
    .bind(
        letters
            .iter()
            .map(|letter| Instant(letter.batch.received_at))
            .bind_iter(),
    )
    .bind(Instant(now))
    .execute(connection)
    .await?;
    Ok(())
}

impl Postgres {
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
        read: fn(&PgRow) -> Result<L, sqlx::Error>,
    ) -> Result<(Vec<L>, bool), StoreError> {
        let mut query = sqlx::query(listing.of(topic))
            .bind(before.unwrap_or(i64::MAX))
            .bind(letters::rows(limit));
        if let Some(topic) = topic {
            query = query.bind(topic.as_str());
        }
        let mut connection = self.lease().await?;
        let rows = query.fetch(&mut *connection);
        Ok(letters::page(rows, limit, read).await?)
    }

    pub(crate) async fn replay_dead_letter(
        &self,
        id: i64,
        now: Timestamp,
    ) -> Result<Replayed, StoreError> {
        // Read first without a lock: the topic must have a number before the transaction.
        let Some(letter) = self.dead_letter(id).await? else {
            return Ok(Replayed::Missing);
        };
        // Whose topic was deleted since must not make it anew.
        if letter.replayed_at.is_some() {
            return Ok(Replayed::Already);
        }
        let batch = letter.batch();
        let arrivals = Arrivals::decode(std::slice::from_ref(&batch));
        let how = How {
            now,
            care: Care::Bisect,
            spans: &[],
        };
        loop {
            let (ids, epoch) = self.intern(&arrivals).await?;
            let mut connection = self.lease().await?;
            let mut transaction = connection.begin(BEGIN_LOCKED).await?;
            match lock_letter(&mut transaction, id).await? {
                None => return Ok(Replayed::Missing),
                Some(Some(_)) => return Ok(Replayed::Already),
                Some(None) => {}
            }
            let recording = self.record_in(&mut transaction, &arrivals, &ids, epoch, how);
            let outcomes = match recording.await? {
                Attempt::Done(judgement) => judgement.replayed(),
                Attempt::Poison => None,
                Attempt::StaleTopics => {
                    self.topics.forget();
                    continue;
                }
            };
            let Some(outcomes) = outcomes else {
                // Not committed: nothing has changed.
                return Ok(Replayed::StillPoison(letter.reason));
            };
            mark_replayed(&mut transaction, id, now).await?;
            connection::commit(transaction).await?;
            return Ok(Replayed::Recorded(outcomes));
        }
    }

    async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, StoreError> {
        let row = sqlx::query(ONE_LETTER)
            .bind(id)
            .fetch_optional(&mut *self.lease().await?)
            .await?;
        Ok(row.as_ref().map(read_letter).transpose()?)
    }

    pub(crate) async fn drop_dead_letter(&self, id: i64) -> Result<bool, StoreError> {
        let mut connection = self.lease().await?;
        let mut transaction = connection.begin("BEGIN").await?;
        let done = sqlx::query(DROP_LETTER)
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        connection::commit(transaction).await?;
        Ok(done.rows_affected() > 0)
    }
}

/// When a letter was replayed, if it was; none if there is no such letter. It is there, and of
/// a topic that is, until the end of the transaction.
async fn lock_letter(
    connection: &mut PgConnection,
    id: i64,
) -> Result<Option<Option<Instant>>, StoreError> {
    let statement = concat!(
        "SELECT l.replayed_at FROM dead_letters l WHERE l.id = $1 AND ",
        letters::is_kept!(),
        " FOR UPDATE OF l"
    );
    Ok(sqlx::query_scalar(statement)
        .bind(id)
        .fetch_optional(connection)
        .await?)
}

async fn mark_replayed(
    connection: &mut PgConnection,
    id: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE dead_letters SET replayed_at = $2 WHERE id = $1")
        .bind(id)
        .bind(Instant(now))
        .execute(connection)
        .await?;
    Ok(())
}

fn read_conflict(row: &PgRow) -> Result<Conflict, sqlx::Error> {
    Ok(Conflict {
        id: row.try_get(0)?,
        recorded_at: row.try_get::<Instant, _>(1)?.0,
        event: StoredEvent {
            topic: row.try_get(2)?,
            event_id: row.try_get(3)?,
            timestamp: row.try_get::<Instant, _>(4)?.0,
            source: row.try_get(5)?,
            payload: row.try_get(6)?,
            received_at: row.try_get::<Instant, _>(7)?.0,
        },
    })
}

fn read_letter(row: &PgRow) -> Result<DeadLetter, sqlx::Error> {
    Ok(DeadLetter {
        id: row.try_get(0)?,
        topic: row.try_get(1)?,
        event_id: row.try_get(2)?,
        reason: row.try_get(3)?,
        events: row.try_get(4)?,
        bytes: row.try_get(5)?,
        batch_id: row.try_get(6)?,
        received_at: row.try_get::<Instant, _>(7)?.0,
        buried_at: row.try_get::<Instant, _>(8)?.0,
        replayed_at: row
            .try_get::<Option<Instant>, _>(9)?
            .map(|instant| instant.0),
    })
}
