//! What PostgreSQL alone does with such events, and tables that are full of them.

use std::time::Instant;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use tests::Sekali;
use tests::servers::{self, Postgres};
use uuid::Uuid;

const TOPICS: u64 = 4;
const BATCH: usize = 2_000;

/// One batch, column by column, sorted by topic and key.
#[derive(Default)]
struct Columns {
    topics: Vec<i32>,
    keys: Vec<Uuid>,
    ids: Vec<String>,
    payloads: Vec<String>,
}

/// The simplest good statement, from memory, over two connections: events a second.
pub(crate) async fn rate(url: &str, events: u64, seed: u64) -> f64 {
    migrate(url).await;
    let mut halves = [Vec::new(), Vec::new()];
    for (number, batch) in batches(events, seed).into_iter().enumerate() {
        halves[number % 2].push(batch);
    }
    let mut writers = Vec::new();
    for half in halves {
        let connection = PgConnection::connect(url).await.unwrap();
        writers.push((connection, half));
    }
    let begun = Instant::now();
    let write = async |(mut connection, half): (PgConnection, Vec<Columns>)| {
        for batch in half {
            insert(&mut connection, &batch).await;
        }
    };
    let mut writers = writers.into_iter();
    let (one, two) = (writers.next().unwrap(), writers.next().unwrap());
    tokio::join!(write(one), write(two));
    events as f64 / begun.elapsed().as_secs_f64()
}

/// A new database with so many rows over a thousand topics, analysed; its address.
pub(crate) async fn filled(postgres: &Postgres, rows: u64, ids: &str) -> String {
    let url = postgres.database().await;
    // Whoever opens it later finds the schema up to date.
    drop(Sekali::full_over(url.clone(), 0).await);
    let key = match ids {
        "v4" => "gen_random_uuid()",
        // Forty-eight bits of milliseconds, and then at random: RFC 9562, 5.7.
        _ => {
            "(lpad(to_hex(1760000000000 + n), 12, '0') || '7' || substr(md5(n::text), 1, 3) \
             || '8' || substr(md5(n::text), 4, 15))::uuid"
        }
    };
    eprintln!("   {rows} rows with {ids} ids");
    let fill = format!(
        "ALTER TABLE events DROP CONSTRAINT events_pkey; DROP INDEX events_by_time;
         INSERT INTO topics (name) SELECT 'topic-' || n FROM generate_series(1, 1000) n;
         INSERT INTO events (topic_id, event_key, event_id, ts, source, received_at, payload, digest)
         SELECT 1 + n % 1000, key, key::text, '2026-01-01'::timestamptz + n * interval '1 ms',
                'bench', '2026-01-01', payload, md5(n::text)::uuid
         FROM (SELECT n, {key} AS key, json_build_object('filler', repeat('x', 280)) AS payload
               FROM generate_series(1, {rows}) n) AS made;
         INSERT INTO counters (slot, topic_id, received, \"unique\", duplicates, conflicts, buried)
         SELECT slot, n, {rows} / 16000, {rows} / 16000, 0, 0, 0
         FROM generate_series(1, 1000) n, generate_series(0, 15) slot;
         ALTER TABLE events ADD CONSTRAINT events_pkey PRIMARY KEY (topic_id, event_key);
         CREATE INDEX events_by_time ON events (topic_id, ts, event_key);
         VACUUM ANALYZE events;
         CHECKPOINT;"
    );
    // One by one: a VACUUM may have no others beside it.
    for statement in fill.split_inclusive(';') {
        servers::execute(&url, statement).await;
    }
    url
}

/// The table and its indexes, as the store makes them.
async fn migrate(url: &str) {
    let migration = include_str!("../../../../services/store/migrations/postgres/0001_events.sql");
    servers::execute(url, migration).await;
}

async fn insert(connection: &mut PgConnection, batch: &Columns) {
    sqlx::query(AssertSqlSafe(
        "INSERT INTO events (topic_id, event_key, event_id, ts, source, received_at, payload, digest)
         SELECT topic_id, event_key, event_id, now(), 'bench', now(), payload::json, event_key
         FROM unnest($1::int4[], $2::uuid[], $3::text[], $4::text[])
             AS arrived (topic_id, event_key, event_id, payload)
         ON CONFLICT DO NOTHING",
    ))
    .bind(&batch.topics)
    .bind(&batch.keys)
    .bind(&batch.ids)
    .bind(&batch.payloads)
    .execute(connection)
    .await
    .unwrap();
}

/// Events of which three in ten repeat one of some batches before.
fn batches(events: u64, seed: u64) -> Vec<Columns> {
    let key = |n: u64| {
        let n = (u128::from(seed + 1) << 64) | u128::from(n);
        // Spread over the whole range, as random ids are; odd, so that none meet.
        let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        uuid::Builder::from_random_bytes(spread.to_be_bytes()).into_uuid()
    };
    let payload = format!("{{\"filler\":\"{}\"}}", "x".repeat(285));
    let mut batches = Vec::new();
    let mut number = 0;
    while number < events {
        let mut rows: Vec<(i32, Uuid)> = (0..BATCH as u64)
            .map(|at| number + at)
            .map(|n| {
                if n % 10 < 3 {
                    n.saturating_sub(n % 8_000 + 1)
                } else {
                    n
                }
            })
            .map(|n| (i32::try_from(1 + n % TOPICS).unwrap(), key(n)))
            .collect();
        rows.sort_unstable();
        let mut batch = Columns::default();
        for (topic, key) in rows {
            batch.topics.push(topic);
            batch.keys.push(key);
            batch.ids.push(key.to_string());
            batch.payloads.push(payload.clone());
        }
        number += BATCH as u64;
        batches.push(batch);
    }
    batches
}
