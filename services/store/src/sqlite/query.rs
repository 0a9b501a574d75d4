//! What can be read: events by page, one event, the books.

use event::{EventId, Key, Source, Timestamp, Topic};
use futures::TryStreamExt as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use super::{Sqlite, rows};
use crate::books::a_second;
use crate::listing::page::{self, Page};
use crate::listing::{CHUNK_BYTES, CHUNK_EVENTS, Filter, Position};
use crate::{Books, Counts, StoreError, StoredEvent, TopicBooks};

impl Sqlite {
    /// One round of a page: the newest of each topic that can have a part in it, merged.
    pub(crate) async fn round(
        &self,
        filter: &Filter<'_>,
        after: Position,
        from: Timestamp,
        wanted: usize,
        depth: usize,
    ) -> Result<Page, StoreError> {
        let topics = self.heads(filter, after, from, wanted).await?;
        let per_topic = page::per_topic(wanted, topics.len(), depth);
        let mut positions = Vec::new();
        for topic_id in topics {
            let part = self.newest(filter, topic_id, after, from, per_topic);
            positions.extend(part.await?);
        }
        Ok(page::merge(positions, per_topic, wanted))
    }

    /// The topics whose newest event is newest: see `OF_ALL_TOPICS` in `postgres/query.rs`.
    async fn heads(
        &self,
        filter: &Filter<'_>,
        after: Position,
        from: Timestamp,
        wanted: usize,
    ) -> Result<Vec<i32>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT head.topic_id
             FROM topics t JOIN events head ON head.rowid = (
                 SELECT e.rowid FROM events e
                 WHERE e.topic_id = t.id AND e.ts >= ?4
                   AND (e.ts, e.event_key) < (?1, CASE
                       -- Among equal timestamps the higher topic number comes first.
                       WHEN t.id < ?2 THEN x'ffffffffffffffffffffffffffffffff'
                       WHEN t.id > ?2 THEN x''
                       ELSE ?3 END)
                   AND (?5 IS NULL OR e.source = ?5)
                 ORDER BY e.ts DESC, e.event_key DESC LIMIT 1)
             WHERE ?7 IS NULL OR t.name = ?7
             ORDER BY head.ts DESC, head.topic_id DESC, head.event_key DESC
             LIMIT ?6",
        )
        .bind(after.timestamp.as_micros())
        .bind(after.topic_id)
        .bind(after.key.as_uuid())
        .bind(from.as_micros())
        .bind(filter.source.as_ref().map(Source::as_str))
        .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
        .bind(filter.topic.as_ref().map(Topic::as_str))
        .fetch_all(&self.readers)
        .await?)
    }

    async fn newest(
        &self,
        filter: &Filter<'_>,
        topic_id: i32,
        after: Position,
        from: Timestamp,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError> {
        let rows = sqlx::query(
            "SELECT ts, topic_id, event_key FROM events
             WHERE topic_id = ?7 AND ts >= ?4
               AND (ts, event_key) < (?1, CASE
                   WHEN ?7 < ?2 THEN x'ffffffffffffffffffffffffffffffff'
                   WHEN ?7 > ?2 THEN x''
                   ELSE ?3 END)
               AND (?5 IS NULL OR source = ?5)
             ORDER BY ts DESC, event_key DESC LIMIT ?6",
        )
        .bind(after.timestamp.as_micros())
        .bind(after.topic_id)
        .bind(after.key.as_uuid())
        .bind(from.as_micros())
        .bind(filter.source.as_ref().map(Source::as_str))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(topic_id)
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.iter().map(position).collect::<Result<_, _>>()?)
    }

    pub(crate) async fn events_at(
        &self,
        positions: &[Position],
    ) -> Result<(Vec<StoredEvent>, usize), StoreError> {
        let positions = &positions[..positions.len().min(CHUNK_EVENTS)];
        let mut events = Vec::with_capacity(positions.len());
        let mut bytes = 0;
        for range in rows::split(positions.len()) {
            let part = &positions[range.clone()];
            let mut query = sqlx::query(events_at(part.len()));
            let mut next = range.start;
            for (place, position) in range.zip(part) {
                query = query
                    .bind(i64::try_from(place).unwrap_or(i64::MAX))
                    .bind(position.topic_id)
                    .bind(position.key.as_uuid());
            }
            let mut rows = query.fetch(&self.readers);
            while let Some(row) = rows.try_next().await? {
                let place: i64 = row.try_get(6)?;
                let place = usize::try_from(place).ok().filter(|place| *place >= next);
                let out_of_order = || sqlx::Error::Decode("events came out of order".into());
                next = place.ok_or_else(out_of_order)? + 1;
                let event = stored_event(&row)?;
                bytes += event.payload.len();
                events.push(event);
                if bytes >= CHUNK_BYTES {
                    return Ok((events, next));
                }
            }
        }
        Ok((events, positions.len()))
    }

    pub(crate) async fn event(
        &self,
        topic: &Topic<'_>,
        event_id: &EventId<'_>,
    ) -> Result<Option<StoredEvent>, StoreError> {
        let row = sqlx::query(
            "SELECT t.name, e.event_id, e.ts, e.source, e.payload, e.received_at
             FROM topics t JOIN events e ON e.topic_id = t.id
             WHERE t.name = ? AND e.event_key = ? AND e.event_id = ?",
        )
        .bind(topic.as_str())
        .bind(Key::of(event_id).as_uuid())
        .bind(event_id.as_str())
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.as_ref().map(stored_event).transpose()?)
    }

    pub(crate) async fn books(&self, now: Timestamp) -> Result<Books, StoreError> {
        // One transaction, so that all of it is of one instant.
        let mut snapshot = self.readers.begin().await?;
        let row = sqlx::query(
            "SELECT c.*, recent.*
             FROM (SELECT coalesce(sum(received), 0), coalesce(sum(\"unique\"), 0),
                          coalesce(sum(duplicates), 0), coalesce(sum(conflicts), 0),
                          coalesce(sum(buried), 0)
                   FROM counters) AS c,
                  (SELECT coalesce(sum(stored), 0), coalesce(sum(events), 0)
                   FROM batches WHERE recorded_at > ?) AS recent",
        )
        .bind(now.as_micros() - 60_000_000)
        .fetch_one(&mut *snapshot)
        .await?;
        let topics = sqlx::query_scalar("SELECT name FROM topics ORDER BY name")
            .fetch_all(&mut *snapshot)
            .await?;
        Ok(Books {
            counts: counts(&row, 0)?,
            topics,
            stored_rate: a_second(row.try_get(5)?),
            recorded_rate: a_second(row.try_get(6)?),
        })
    }

    pub(crate) async fn topics(&self) -> Result<Vec<TopicBooks>, StoreError> {
        let rows = sqlx::query(
            "SELECT t.name, coalesce(c.received, 0), coalesce(c.\"unique\", 0),
                    coalesce(c.duplicates, 0), coalesce(c.conflicts, 0), coalesce(c.buried, 0),
                    (SELECT min(ts) FROM events WHERE topic_id = t.id),
                    (SELECT max(ts) FROM events WHERE topic_id = t.id)
             FROM topics t LEFT JOIN counters c ON c.topic_id = t.id
             ORDER BY t.name",
        )
        .fetch_all(&self.readers)
        .await?;
        let books = |row: &SqliteRow| {
            let optional = |at| match row.try_get::<Option<i64>, _>(at)? {
                Some(_) => timestamp(row, at).map(Some),
                None => Ok(None),
            };
            Ok(TopicBooks {
                topic: row.try_get(0)?,
                counts: counts(row, 1)?,
                first_timestamp: optional(6)?,
                last_timestamp: optional(7)?,
            })
        };
        Ok(rows.iter().map(books).collect::<Result<_, sqlx::Error>>()?)
    }
}

/// The events at so many positions, in their order, which is that of the values: they are the
/// outer loop. An ORDER BY would have SQLite read and sort all payloads before it gives one.
pub(super) fn events_at(positions: usize) -> AssertSqlSafe<String> {
    rows::values(
        "WITH wanted (place, topic_id, event_key) AS (",
        3,
        positions,
        ") SELECT t.name, e.event_id, e.ts, e.source, e.payload, e.received_at, w.place
         FROM wanted w
         CROSS JOIN events e ON e.topic_id = w.topic_id AND e.event_key = w.event_key
         CROSS JOIN topics t ON t.id = e.topic_id",
    )
}

pub(super) fn timestamp(row: &SqliteRow, at: usize) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_micros(row.try_get(at)?)
        .ok_or_else(|| sqlx::Error::Decode("a stored timestamp is out of range".into()))
}

fn position(row: &SqliteRow) -> Result<Position, sqlx::Error> {
    Ok(Position {
        timestamp: timestamp(row, 0)?,
        topic_id: row.try_get(1)?,
        key: Key::from(row.try_get::<Uuid, _>(2)?),
    })
}

fn stored_event(row: &SqliteRow) -> Result<StoredEvent, sqlx::Error> {
    Ok(StoredEvent {
        topic: row.try_get(0)?,
        event_id: row.try_get(1)?,
        timestamp: timestamp(row, 2)?,
        source: row.try_get(3)?,
        payload: row.try_get(4)?,
        received_at: timestamp(row, 5)?,
    })
}

fn counts(row: &SqliteRow, at: usize) -> Result<Counts, sqlx::Error> {
    Ok(Counts {
        received: row.try_get(at)?,
        unique: row.try_get(at + 1)?,
        duplicates: row.try_get(at + 2)?,
        conflicts: row.try_get(at + 3)?,
        buried: row.try_get(at + 4)?,
    })
}
