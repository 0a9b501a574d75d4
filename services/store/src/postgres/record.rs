//! One transaction: identities, events, what won, counts.
//!
//! In READ COMMITTED a statement does not see what another transaction commits while it
//! runs, so the events that were not inserted are looked up by a statement of their own,
//! which starts later and does.

mod insert;

use std::collections::{HashMap, HashSet};

use event::{Batch, Digest, Key, Timestamp};
use sqlx::Row as _;
use sqlx::postgres::{PgBindIterExt as _, PgConnection};
use tracing::Span;
use uuid::Uuid;

use super::instant::Instant;
use super::lease::Lease;
use super::{Postgres, connection, topics};
use crate::record::{Arrivals, Judgement, Plan, TopicIds, Winner};
use crate::{Recorded, StoreError};

/// How often a batch is tried again when the server chose it as a deadlock's victim, when
/// a topic was deleted under it, or when it turned out to hold poison. Writers sort their
/// keys, so even the first retry is rare; past this the caller's own retry takes over.
const ATTEMPTS: usize = 5;

/// How rows are inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// All in one statement; poison fails the transaction.
    Quick,
    /// Under savepoints, halving the rows until the poison is alone.
    Bisect,
}

/// One attempt: when, how its rows are inserted, and the spans that it is a part of.
#[derive(Clone, Copy)]
pub(super) struct How<'s> {
    pub(super) now: Timestamp,
    pub(super) care: Care,
    pub(super) spans: &'s [Span],
}

/// Why a transaction was rolled back on purpose.
pub(super) enum Attempt<T> {
    Done(T),
    /// A topic is gone since its number was read.
    StaleTopics,
    /// There is poison among the rows.
    Poison,
}

impl Postgres {
    pub(crate) async fn record(
        &self,
        batches: &[Batch],
        now: Timestamp,
        spans: &[Span],
    ) -> Result<Vec<Recorded>, StoreError> {
        let arrivals = Arrivals::decode(batches);
        let mut care = Care::Quick;
        for _ in 0..ATTEMPTS {
            let (ids, epoch) = connection::answered(self.intern(&arrivals)).await?;
            let how = How { now, care, spans };
            match self.attempt(&arrivals, &ids, epoch, how).await {
                Ok(Attempt::Done(recorded)) => return Ok(recorded),
                Ok(Attempt::StaleTopics) => self.topics.forget(),
                Ok(Attempt::Poison) => care = Care::Bisect,
                Err(error) if connection::is_retryable(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unavailable(sqlx::Error::Protocol(
            "too many conflicting transactions".into(),
        )))
    }

    async fn attempt(
        &self,
        arrivals: &Arrivals<'_>,
        ids: &TopicIds,
        epoch: i64,
        how: How<'_>,
    ) -> Result<Attempt<Vec<Recorded>>, StoreError> {
        let mut connection = self.lease().await?;
        let transaction = self.transact(&mut connection, arrivals, ids, epoch, how);
        connection::changed(transaction).await
    }

    async fn transact(
        &self,
        connection: &mut Lease,
        arrivals: &Arrivals<'_>,
        ids: &TopicIds,
        epoch: i64,
        how: How<'_>,
    ) -> Result<Attempt<Vec<Recorded>>, StoreError> {
        // Begin and lock in one round trip.
        let mut transaction = connection.begin(BEGIN_LOCKED).await?;
        match self
            .record_in(&mut transaction, arrivals, ids, epoch, how)
            .await?
        {
            Attempt::Done(judgement) => {
                crash::point!("commit");
                let _commit = self.commits.begin(how.spans);
                crash::during!("committing", connection::commit(transaction)).await?;
                Ok(Attempt::Done(judgement.recorded))
            }
            Attempt::StaleTopics => Ok(Attempt::StaleTopics),
            Attempt::Poison => Ok(Attempt::Poison),
        }
    }

    /// Does everything but the commit.
    pub(super) async fn record_in<'a>(
        &self,
        connection: &mut PgConnection,
        arrivals: &'a Arrivals<'a>,
        ids: &TopicIds,
        epoch: i64,
        How { now, care, .. }: How<'_>,
    ) -> Result<Attempt<Judgement<'a>>, StoreError> {
        if current_epoch(connection, ids).await? != Some(epoch) {
            return Ok(Attempt::StaleTopics);
        }
        let new = insert_identities(connection, arrivals, now).await?;
        let mut plan = Plan::new(arrivals, |at| new[at], ids);
        match care {
            Care::Quick => match insert::all(connection, &mut plan).await {
                Err(StoreError::Unavailable(error)) if connection::poison(&error).is_some() => {
                    return Ok(Attempt::Poison);
                }
                result => result?,
            },
            Care::Bisect => insert::bisect(connection, &mut plan).await?,
        }
        let winners = read_winners(connection, &plan).await?;
        let judgement = plan.judge(arrivals, &winners)?;
        self.write_books(connection, &judgement, now).await?;
        Ok(Attempt::Done(judgement))
    }

    async fn write_books(
        &self,
        connection: &mut PgConnection,
        judgement: &Judgement<'_>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        update_identities(connection, judgement).await?;
        super::letters::insert_conflicts(connection, &judgement.conflicts, now).await?;
        super::letters::insert_letters(connection, &judgement.letters, now).await?;
        // Last, so that a counter is locked for as short as can be; sorted by topic, so
        // that two processes in one slot can't deadlock.
        add_counts(connection, judgement).await
    }
}

/// `TOPICS_LOCK`, shared, until the end of the transaction.
pub(super) const BEGIN_LOCKED: &str = "BEGIN; SELECT pg_advisory_xact_lock_shared(126879430437993)";
const _: () = assert!(topics::TOPICS_LOCK == 126_879_430_437_993);

/// The epoch, if each number is still that of its topic. Of a database that was put back from
/// an older copy while this process ran, or of a standby that was behind, the epoch may be the
/// one that is remembered, and topics that were made since are not there.
async fn current_epoch(
    connection: &mut PgConnection,
    ids: &TopicIds,
) -> Result<Option<i64>, StoreError> {
    let known = || ids.iter().filter_map(|(name, id)| Some((name, (*id)?)));
    let epoch = sqlx::query_scalar(
        "SELECT epoch FROM topics_epoch WHERE NOT EXISTS (
             SELECT FROM unnest($1::int4[], $2::text[]) AS known (id, name)
             WHERE NOT EXISTS (
                 SELECT FROM topics WHERE topics.id = known.id AND topics.name = known.name))",
    )
    .bind(known().map(|(_, id)| id).bind_iter())
    .bind(known().map(|(name, _)| name.as_str()).bind_iter())
    .fetch_optional(connection)
    .await?;
    Ok(epoch)
}

/// Which of the batches are new. Of two with one identity only the first is.
async fn insert_identities(
    connection: &mut PgConnection,
    arrivals: &Arrivals<'_>,
    now: Timestamp,
) -> Result<Vec<bool>, StoreError> {
    let ids = arrivals.0.iter().map(|arrival| arrival.batch.id.0);
    let inserted: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO batches (id, recorded_at, events, stored)
         SELECT id, $2, 0, 0 FROM unnest($1::uuid[]) AS arrived (id) ORDER BY id
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(ids.clone().bind_iter())
    .bind(Instant(now))
    .fetch_all(connection)
    .await?;
    let mut new: HashSet<Uuid> = inserted.into_iter().collect();
    Ok(ids.map(|id| new.remove(&id)).collect())
}

async fn update_identities(
    connection: &mut PgConnection,
    judgement: &Judgement<'_>,
) -> Result<(), StoreError> {
    if judgement.batches.is_empty() {
        return Ok(());
    }
    let batches = &judgement.batches;
    sqlx::query(
        "UPDATE batches SET events = counted.events, stored = counted.stored
         FROM unnest($1::uuid[], $2::int8[], $3::int8[]) AS counted (id, events, stored)
         WHERE batches.id = counted.id",
    )
    .bind(batches.iter().map(|(id, _, _)| id.0).bind_iter())
    .bind(batches.iter().map(|(_, events, _)| *events).bind_iter())
    .bind(batches.iter().map(|(_, _, stored)| *stored).bind_iter())
    .execute(connection)
    .await?;
    Ok(())
}

/// What is stored under the keys that were not inserted.
async fn read_winners(
    connection: &mut PgConnection,
    plan: &Plan<'_>,
) -> Result<HashMap<(i32, Key), Winner>, StoreError> {
    let undecided = || plan.undecided().map(|group| plan.candidate(group));
    if undecided().next().is_none() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query(
        "SELECT topic_id, event_key, digest, event_id
         FROM unnest($1::int4[], $2::uuid[]) AS wanted (topic_id, event_key)
         JOIN events USING (topic_id, event_key)",
    )
    .bind(undecided().map(|row| row.topic_id).bind_iter())
    .bind(undecided().map(|row| row.key.as_uuid()).bind_iter())
    .fetch_all(connection)
    .await?;
    let winner = |row: &sqlx::postgres::PgRow| {
        let key = (row.try_get(0)?, Key::from(row.try_get::<Uuid, _>(1)?));
        let digest = Digest::from(row.try_get::<Uuid, _>(2)?);
        Ok((
            key,
            Winner {
                digest,
                event_id: row.try_get(3)?,
            },
        ))
    };
    Ok(rows
        .iter()
        .map(winner)
        .collect::<Result<_, sqlx::Error>>()?)
}

async fn add_counts(
    connection: &mut PgConnection,
    judgement: &Judgement<'_>,
) -> Result<(), StoreError> {
    let counts = &judgement.counts;
    if counts.is_empty() {
        return Ok(());
    }
    sqlx::query(
        // The slot is the connection's: two of one slot would wait for each other's commit.
        "INSERT INTO counters AS c (slot, topic_id, received, \"unique\", duplicates, conflicts, buried)
         SELECT pg_backend_pid() % 16, *
         FROM unnest($1::int4[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[])
         ON CONFLICT (slot, topic_id) DO UPDATE SET
             received = c.received + excluded.received,
             \"unique\" = c.\"unique\" + excluded.\"unique\",
             duplicates = c.duplicates + excluded.duplicates,
             conflicts = c.conflicts + excluded.conflicts,
             buried = c.buried + excluded.buried",
    )
    .bind(counts.keys().copied().bind_iter())
    .bind(counts.values().map(|counts| counts.received).bind_iter())
    .bind(counts.values().map(|counts| counts.unique).bind_iter())
    .bind(counts.values().map(|counts| counts.duplicates).bind_iter())
    .bind(counts.values().map(|counts| counts.conflicts).bind_iter())
    .bind(counts.values().map(|counts| counts.buried).bind_iter())
    .execute(connection)
    .await?;
    Ok(())
}
