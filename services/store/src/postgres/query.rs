//! What can be read: events by page, one event, the books.

use event::{EventId, Key, Source, Timestamp, Topic};
use sqlx::Row as _;
use sqlx::postgres::{PgBindIterExt as _, PgRow};
use uuid::Uuid;

use super::Postgres;
use super::instant::Instant;
use crate::books::a_second;
use crate::listing::page::{self, Page};
use crate::listing::{CHUNK_BYTES, CHUNK_EVENTS, Filter, Position};
use crate::{Books, Counts, StoreError, StoredEvent, TopicBooks};

impl Postgres {
    /// One round of a page: see [`page::gather`].
    pub(crate) async fn round(
        &self,
        filter: &Filter<'_>,
        after: Position,
        from: Timestamp,
        wanted: usize,
        depth: usize,
    ) -> Result<Page, StoreError> {
        let topic = filter.topic.as_ref().map(Topic::as_str);
        let source = filter.source.as_ref().map(Source::as_str);
        let statement = match (topic, source) {
            (Some(_), Some(_)) => OF_A_TOPIC_AND_A_SOURCE,
            (Some(_), None) => OF_A_TOPIC,
            (None, Some(_)) => OF_ALL_TOPICS_AND_A_SOURCE,
            (None, None) => OF_ALL_TOPICS,
        };
        let mut query = sqlx::query(statement)
            .bind(Instant(after.timestamp))
            .bind(after.topic_id)
            .bind(after.key.as_uuid())
            .bind(Instant(from))
            .bind(i64::try_from(wanted).unwrap_or(i64::MAX));
        if topic.is_none() {
            query = query.bind(i64::try_from(depth).unwrap_or(i64::MAX));
        }
        for name in topic.into_iter().chain(source) {
            query = query.bind(name);
        }
        let rows = query.fetch_all(&mut *self.lease().await?).await?;
        let per_topic = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>(3))?;
        let positions = rows.iter().map(position).collect::<Result<_, _>>()?;
        Ok(page::merge(
            positions,
            usize::try_from(per_topic).unwrap_or(0),
            wanted,
        ))
    }

    pub(crate) async fn events_at(
        &self,
        positions: &[Position],
    ) -> Result<(Vec<StoredEvent>, usize), StoreError> {
        let positions = &positions[..positions.len().min(CHUNK_EVENTS)];
        let rows = sqlx::query(EVENTS_AT)
            .bind(
                positions
                    .iter()
                    .map(|position| position.topic_id)
                    .bind_iter(),
            )
            .bind(
                positions
                    .iter()
                    .map(|position| position.key.as_uuid())
                    .bind_iter(),
            )
            .bind(i64::try_from(CHUNK_BYTES).unwrap_or(i64::MAX))
            .fetch_all(&mut *self.lease().await?)
            .await?;
        // Where there are none, nothing stopped it before the last position.
        let used = match rows.first() {
            Some(row) => usize::try_from(row.try_get::<i32, _>(6)?).unwrap_or(positions.len()),
            None => positions.len(),
        };
        let events = rows.iter().map(stored_event).collect::<Result<_, _>>()?;
        Ok((events, used))
    }

    pub(crate) async fn event(
        &self,
        topic: &Topic<'_>,
        event_id: &EventId<'_>,
    ) -> Result<Option<StoredEvent>, StoreError> {
        let row = sqlx::query(
            "SELECT t.name, e.event_id, e.ts, e.source, e.payload::text, e.received_at
             FROM topics t JOIN events e ON e.topic_id = t.id
             WHERE t.name = $1 AND e.event_key = $2 AND e.event_id = $3",
        )
        .bind(topic.as_str())
        .bind(Key::of(event_id).as_uuid())
        .bind(event_id.as_str())
        .fetch_optional(&mut *self.lease().await?)
        .await?;
        Ok(row.as_ref().map(stored_event).transpose()?)
    }

    pub(crate) async fn books(&self, now: Timestamp) -> Result<Books, StoreError> {
        let row = sqlx::query(
            "SELECT c.*, (SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM topics), recent.*
             FROM (SELECT coalesce(sum(received), 0)::int8, coalesce(sum(\"unique\"), 0)::int8,
                          coalesce(sum(duplicates), 0)::int8, coalesce(sum(conflicts), 0)::int8,
                          coalesce(sum(buried), 0)::int8
                   FROM counters) AS c,
                  (SELECT coalesce(sum(stored), 0)::int8, coalesce(sum(events), 0)::int8
                   FROM batches
                   WHERE recorded_at > $1::timestamptz - interval '1 minute') AS recent",
        )
        .bind(Instant(now))
        .fetch_one(&mut *self.lease().await?)
        .await?;
        Ok(Books {
            counts: counts(&row, 0)?,
            topics: row.try_get(5)?,
            stored_rate: a_second(row.try_get(6)?),
            recorded_rate: a_second(row.try_get(7)?),
        })
    }

    pub(crate) async fn topics(&self) -> Result<Vec<TopicBooks>, StoreError> {
        let rows = sqlx::query(
            "SELECT t.name, c.*, first.ts, last.ts
             FROM topics t
             CROSS JOIN LATERAL (
                 SELECT coalesce(sum(received), 0)::int8, coalesce(sum(\"unique\"), 0)::int8,
                        coalesce(sum(duplicates), 0)::int8, coalesce(sum(conflicts), 0)::int8,
                        coalesce(sum(buried), 0)::int8
                 FROM counters
                 -- Spelt out so that the primary key serves it.
                 WHERE slot = ANY ('{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}') AND topic_id = t.id
             ) AS c
             LEFT JOIN LATERAL (
                 SELECT ts FROM events WHERE topic_id = t.id ORDER BY ts, event_key LIMIT 1
             ) AS first ON true
             LEFT JOIN LATERAL (
                 SELECT ts FROM events WHERE topic_id = t.id ORDER BY ts DESC, event_key DESC LIMIT 1
             ) AS last ON true
             ORDER BY t.name",
        )
        .fetch_all(&mut *self.lease().await?)
        .await?;
        let books = |row: &PgRow| {
            Ok(TopicBooks {
                topic: row.try_get(0)?,
                counts: counts(row, 1)?,
                first_timestamp: row
                    .try_get::<Option<Instant>, _>(6)?
                    .map(|instant| instant.0),
                last_timestamp: row
                    .try_get::<Option<Instant>, _>(7)?
                    .map(|instant| instant.0),
            })
        };
        Ok(rows.iter().map(books).collect::<Result<_, sqlx::Error>>()?)
    }
}

/// The events at positions (1 their topics, 2 their keys) up to the one with which their
/// payloads reach so many bytes (3), and the place of that one.
///
/// The statement looks them up one after the other and stops by itself. Whoever stops reading
/// rows that were asked for is sent all the others by the server, and reads them before the
/// connection is good for anything else.
const EVENTS_AT: &str = "
    WITH RECURSIVE used AS (
        -- Before the first there is nothing, of these types.
        SELECT 0 AS place, 0::int8 AS bytes, NULL::text COLLATE \"C\" AS name, NULL::text AS event_id,
               NULL::timestamptz AS ts, NULL::text AS source, NULL::text AS payload,
               NULL::timestamptz AS received_at
        UNION ALL
        SELECT place + 1, bytes + coalesce(octet_length(found.payload), 0), found.*
        FROM used LEFT JOIN LATERAL (
            SELECT t.name, e.event_id, e.ts, e.source, e.payload::text, e.received_at
            FROM events e JOIN topics t ON t.id = e.topic_id
            WHERE e.topic_id = ($1::int4[])[place + 1] AND e.event_key = ($2::uuid[])[place + 1]
        ) AS found ON true
        WHERE place < cardinality($1) AND bytes < $3
    )
    SELECT name, event_id, ts, source, payload, received_at, (SELECT max(place) FROM used)
    FROM used
    WHERE name IS NOT NULL
    ORDER BY place";

/// Parameters: 1 to 3 the position after which the page starts, 4 the earliest timestamp,
/// 5 the limit, then the topic and the source, where there are.
///
/// The condition on events is an argument (7 is their source): without one the index alone
/// answers, and no row is fetched for its source.
macro_rules! of_a_topic {
    ($condition:literal) => {
        concat!(
            "
    SELECT part.ts, bound.id, part.event_key, $5::int8
    FROM (
        -- Of the topic's number: a bound that names a column of the events is no condition on
        -- their index, and each page of equal timestamps would read all of those before it.
        SELECT id, CASE
            -- Among equal timestamps the higher topic number comes first.
            WHEN id < $2 THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid
            WHEN id > $2 THEN '00000000-0000-0000-0000-000000000000'::uuid
            ELSE $3 END AS event_key
        FROM topics
        WHERE name = $6
    ) AS bound CROSS JOIN LATERAL (
        SELECT e.ts, e.event_key FROM events e
        WHERE e.topic_id = bound.id AND (e.ts, e.event_key) < ($1, bound.event_key) AND e.ts >= $4
        ",
            $condition,
            "
        ORDER BY e.ts DESC, e.event_key DESC LIMIT $5
    ) AS part"
        )
    };
}
const OF_A_TOPIC: &str = of_a_topic!("");
const OF_A_TOPIC_AND_A_SOURCE: &str = of_a_topic!("AND e.source = $7");

/// The same over all topics, without an index of its own (which would cost every insert a
/// fifth): the newest event of each topic is one step into the index, and a page of n
/// events holds events of the n topics whose newest is newest, and of no other. How many
/// are read of each comes back with them: see [`page::merge`] and [`page::per_topic`]. (6 is the
/// depth, and 7 the source.)
macro_rules! of_all_topics {
    ($condition:literal) => {
        concat!(
            "
    WITH bounds AS (
        SELECT t.id, CASE
            WHEN t.id < $2 THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid
            WHEN t.id > $2 THEN '00000000-0000-0000-0000-000000000000'::uuid
            ELSE $3 END AS event_key
        FROM topics t
    ), heads AS (
        SELECT b.id, b.event_key
        FROM bounds b CROSS JOIN LATERAL (
            SELECT e.ts, e.event_key FROM events e
            WHERE e.topic_id = b.id AND (e.ts, e.event_key) < ($1, b.event_key) AND e.ts >= $4
            ",
            $condition,
            "
            ORDER BY e.ts DESC, e.event_key DESC LIMIT 1
        ) AS head
        ORDER BY head.ts DESC, b.id DESC, head.event_key DESC
        LIMIT $5
    ), share AS (
        SELECT least($5, greatest(2 * $5 / greatest(1, count(*)),
            least($6, greatest(64, 65536 / greatest(1, count(*)))))) AS per_topic
        FROM heads
    )
    SELECT part.ts, h.id, part.event_key, (SELECT per_topic FROM share)
    FROM heads h CROSS JOIN LATERAL (
        SELECT e.ts, e.event_key FROM events e
        WHERE e.topic_id = h.id AND (e.ts, e.event_key) < ($1, h.event_key) AND e.ts >= $4
        ",
            $condition,
            "
        ORDER BY e.ts DESC, e.event_key DESC LIMIT (SELECT per_topic FROM share)
    ) AS part
    ORDER BY part.ts DESC, h.id DESC, part.event_key DESC
    LIMIT $5"
        )
    };
}
const _: () = assert!(page::DEPTH == 64 && page::ROUND == 65_536);
const OF_ALL_TOPICS: &str = of_all_topics!("");
const OF_ALL_TOPICS_AND_A_SOURCE: &str = of_all_topics!("AND e.source = $7");

fn position(row: &PgRow) -> Result<Position, sqlx::Error> {
    Ok(Position {
        timestamp: row.try_get::<Instant, _>(0)?.0,
        topic_id: row.try_get(1)?,
        key: Key::from(row.try_get::<Uuid, _>(2)?),
    })
}

fn stored_event(row: &PgRow) -> Result<StoredEvent, sqlx::Error> {
    Ok(StoredEvent {
        topic: row.try_get(0)?,
        event_id: row.try_get(1)?,
        timestamp: row.try_get::<Instant, _>(2)?.0,
        source: row.try_get(3)?,
        payload: row.try_get(4)?,
        received_at: row.try_get::<Instant, _>(5)?.0,
    })
}

fn counts(row: &PgRow, at: usize) -> Result<Counts, sqlx::Error> {
    Ok(Counts {
        received: row.try_get(at)?,
        unique: row.try_get(at + 1)?,
        duplicates: row.try_get(at + 2)?,
        conflicts: row.try_get(at + 3)?,
        buried: row.try_get(at + 4)?,
    })
}
