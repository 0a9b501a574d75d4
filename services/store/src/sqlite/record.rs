//! One transaction: identities, events, what won, counts.
//!
//! The steps are those of `postgres/record.rs`. With one writer nothing is retried, and
//! with no poison of SQLite's own nothing is bisected.

use std::collections::{HashMap, HashSet};

use event::{Batch, Digest, Key, Timestamp};
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use tracing::Span;
use uuid::Uuid;

use super::topics::AllTopics;
use super::writer::Transaction;
use super::{Sqlite, letters, rows};
use crate::record::{Arrivals, Judgement, Plan, Winner};
use crate::{Recorded, StoreError};

impl Sqlite {
    pub(crate) async fn record(
        &self,
        batches: &[Batch],
        now: Timestamp,
        spans: &[Span],
    ) -> Result<Vec<Recorded>, StoreError> {
        let arrivals = Arrivals::decode(batches);
        let mut transaction = self.writer.begin().await?;
        let (judgement, topics) = self.record_in(&mut transaction, &arrivals, now).await?;
        crash::point!("commit");
        let commit = self.commits.begin(spans);
        crash::during!("committing", transaction.commit()).await?;
        drop(commit);
        self.learn(topics);
        Ok(judgement.recorded)
    }

    /// Does everything but the commit, after which the topics are to be remembered.
    pub(super) async fn record_in<'a>(
        &self,
        transaction: &mut Transaction<'_>,
        arrivals: &'a Arrivals<'a>,
        now: Timestamp,
    ) -> Result<(Judgement<'a>, Option<AllTopics>), StoreError> {
        let (ids, topics) = self.intern(transaction, arrivals).await?;
        let new = insert_identities(transaction, arrivals, now).await?;
        let mut plan = Plan::new(arrivals, |at| new[at], &ids);
        insert_events(transaction, &mut plan).await?;
        let winners = read_winners(transaction, &plan).await?;
        let judgement = plan.judge(arrivals, &winners)?;
        update_identities(transaction, &judgement).await?;
        letters::insert_conflicts(transaction, &judgement.conflicts, now).await?;
        letters::insert_letters(transaction, &judgement.letters, now).await?;
        add_counts(transaction, &judgement).await?;
        Ok((judgement, topics))
    }
}

/// Which of the batches are new. Of two with one identity only the first is.
async fn insert_identities(
    connection: &mut SqliteConnection,
    arrivals: &Arrivals<'_>,
    now: Timestamp,
) -> Result<Vec<bool>, StoreError> {
    let mut new = Vec::with_capacity(arrivals.0.len());
    for range in rows::split(arrivals.0.len()) {
        let batches = &arrivals.0[range];
        let mut query = sqlx::query(rows::values(
            "INSERT INTO batches (id, recorded_at, events, stored)",
            4,
            batches.len(),
            "ON CONFLICT DO NOTHING RETURNING id",
        ));
        for arrival in batches {
            let id = arrival.batch.id.0;
            query = query.bind(id).bind(now.as_micros()).bind(0).bind(0);
        }
        let inserted = query.fetch_all(&mut *connection).await?;
        let mut inserted = inserted
            .iter()
            .map(|row| row.try_get::<Uuid, _>(0))
            .collect::<Result<HashSet<_>, _>>()?;
        new.extend(
            batches
                .iter()
                .map(|arrival| inserted.remove(&arrival.batch.id.0)),
        );
    }
    Ok(new)
}

async fn update_identities(
    connection: &mut SqliteConnection,
    judgement: &Judgement<'_>,
) -> Result<(), StoreError> {
    for (id, events, stored) in &judgement.batches {
        sqlx::query("UPDATE batches SET events = ?, stored = ? WHERE id = ?")
            .bind(events)
            .bind(stored)
            .bind(id.0)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Inserts every group's candidate.
async fn insert_events(
    connection: &mut SqliteConnection,
    plan: &mut Plan<'_>,
) -> Result<(), StoreError> {
    for range in rows::split(plan.groups.len()) {
        let mut query = sqlx::query(rows::values(
            "INSERT INTO events (topic_id, event_key, event_id, ts, source, received_at, digest, payload)",
            8,
            range.len(),
            "ON CONFLICT DO NOTHING RETURNING topic_id, event_key",
        ));
        for group in range.clone() {
            let row = plan.candidate(group);
            query = query
                .bind(row.topic_id)
                .bind(row.key.as_uuid())
                .bind(row.event.event_id.as_str())
                .bind(row.event.timestamp.as_micros())
                .bind(row.event.source.as_str())
                .bind(row.batch.received_at.as_micros())
                .bind(row.digest.as_uuid())
                .bind(row.event.payload.as_str());
        }
        let inserted = query.fetch_all(&mut *connection).await?;
        let inserted = inserted
            .iter()
            .map(|row| Ok((row.try_get::<i32, _>(0)?, row.try_get::<Uuid, _>(1)?)))
            .collect::<Result<HashSet<_>, sqlx::Error>>()?;
        for group in range {
            let row = plan.candidate(group);
            if inserted.contains(&(row.topic_id, row.key.as_uuid())) {
                plan.inserted(group);
            }
        }
    }
    Ok(())
}

/// What is stored under the keys that were not inserted.
async fn read_winners(
    connection: &mut SqliteConnection,
    plan: &Plan<'_>,
) -> Result<HashMap<(i32, Key), Winner>, StoreError> {
    let undecided: Vec<usize> = plan.undecided().collect();
    let mut winners = HashMap::with_capacity(undecided.len());
    for range in rows::split(undecided.len()) {
        let mut query = sqlx::query(rows::values(
            "WITH wanted (topic_id, event_key) AS (",
            2,
            range.len(),
            // CROSS: look each up, rather than scan the events.
            ") SELECT topic_id, event_key, digest, event_id FROM wanted CROSS JOIN events USING (topic_id, event_key)",
        ));
        for group in &undecided[range] {
            let row = plan.candidate(*group);
            query = query.bind(row.topic_id).bind(row.key.as_uuid());
        }
        for row in query.fetch_all(&mut *connection).await? {
            let key = (row.try_get(0)?, Key::from(row.try_get::<Uuid, _>(1)?));
            let winner = Winner {
                digest: Digest::from(row.try_get::<Uuid, _>(2)?),
                event_id: row.try_get(3)?,
            };
            winners.insert(key, winner);
        }
    }
    Ok(winners)
}

async fn add_counts(
    connection: &mut SqliteConnection,
    judgement: &Judgement<'_>,
) -> Result<(), StoreError> {
    for (topic_id, counts) in &judgement.counts {
        sqlx::query(
            "INSERT INTO counters AS c (topic_id, received, \"unique\", duplicates, conflicts, buried)
             VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (topic_id) DO UPDATE SET
                 received = c.received + excluded.received,
                 \"unique\" = c.\"unique\" + excluded.\"unique\",
                 duplicates = c.duplicates + excluded.duplicates,
                 conflicts = c.conflicts + excluded.conflicts,
                 buried = c.buried + excluded.buried",
        )
        .bind(topic_id)
        .bind(counts.received)
        .bind(counts.unique)
        .bind(counts.duplicates)
        .bind(counts.conflicts)
        .bind(counts.buried)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
