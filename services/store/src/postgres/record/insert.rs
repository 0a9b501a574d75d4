//! The insert that the promise rests on, and how poison is told from its neighbours.

use std::ops::Range;

use sqlx::Connection as _;
use sqlx::Row as _;
use sqlx::postgres::{PgBindIterExt as _, PgConnection};
use uuid::Uuid;

use crate::StoreError;
use crate::postgres::connection;
use crate::postgres::instant::Instant;
use crate::record::Plan;

/// Inserts every group's candidate in one statement.
pub(super) async fn all(
    connection: &mut PgConnection,
    plan: &mut Plan<'_>,
) -> Result<(), StoreError> {
    let groups: Vec<usize> = (0..plan.groups.len()).collect();
    insert(connection, plan, &groups).await
}

/// Inserts every group's candidate, halving what fails until the poison stands alone: one
/// poison event among 2,000 costs some 22 statements, not 2,000. Where a candidate is
/// poison, the next copy of its key takes its place.
pub(super) async fn bisect(
    connection: &mut PgConnection,
    plan: &mut Plan<'_>,
) -> Result<(), StoreError> {
    let mut groups: Vec<usize> = (0..plan.groups.len()).collect();
    while !groups.is_empty() {
        let mut again = Vec::new();
        let mut ranges: Vec<Range<usize>> = std::iter::once(0..groups.len()).collect();
        while let Some(range) = ranges.pop() {
            let part = &groups[range.clone()];
            let mut savepoint = connection.begin().await?;
            match insert(&mut savepoint, plan, part).await {
                Ok(()) => savepoint.commit().await?,
                Err(StoreError::Unavailable(error)) => {
                    let Some(reason) = connection::poison(&error) else {
                        return Err(error.into());
                    };
                    savepoint.rollback().await?;
                    match part {
                        [alone] => again.extend(plan.poisoned(*alone, &reason).then_some(*alone)),
                        // The first half is popped first: keys are locked in order.
                        _ => ranges.extend(halves(range).into_iter().rev()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        groups = again;
    }
    Ok(())
}

fn halves(range: Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start.midpoint(range.end);
    [range.start..middle, middle..range.end]
}

/// Inserts the candidates of some groups, which are in the order of their keys.
async fn insert(
    connection: &mut PgConnection,
    plan: &mut Plan<'_>,
    groups: &[usize],
) -> Result<(), StoreError> {
    if groups.is_empty() {
        return Ok(());
    }
    let rows = || groups.iter().map(|group| plan.candidate(*group));
    let inserted = sqlx::query(
        "INSERT INTO events (topic_id, event_key, event_id, ts, source, received_at, payload, digest)
         SELECT topic_id, event_key, event_id, ts, source, received_at, payload::json, digest
         FROM unnest($1::int4[], $2::uuid[], $3::text[], $4::timestamptz[],
                     $5::text[], $6::timestamptz[], $7::text[], $8::uuid[])
             AS arrived (topic_id, event_key, event_id, ts, source, received_at, payload, digest)
         -- No ORDER BY: the rows come sorted, and unnest keeps their order.
         ON CONFLICT DO NOTHING
         RETURNING topic_id, event_key",
    )
    .bind(rows().map(|row| row.topic_id).bind_iter())
    .bind(rows().map(|row| row.key.as_uuid()).bind_iter())
    .bind(rows().map(|row| row.event.event_id.as_str()).bind_iter())
    .bind(rows().map(|row| Instant(row.event.timestamp)).bind_iter())
    .bind(rows().map(|row| row.event.source.as_str()).bind_iter())
    .bind(rows().map(|row| Instant(row.batch.received_at)).bind_iter())
    .bind(rows().map(|row| row.event.payload.as_str()).bind_iter())
    .bind(rows().map(|row| row.digest.as_uuid()).bind_iter())
    .fetch_all(connection)
    .await?;
    // What comes back is a subsequence of what went in: one walk along both finds it.
    let mut groups = groups.iter();
    for row in &inserted {
        let back = (row.try_get::<i32, _>(0)?, row.try_get::<Uuid, _>(1)?);
        let is_back = |group: &usize| {
            let row = plan.candidate(*group);
            (row.topic_id, row.key.as_uuid()) == back
        };
        let group = groups
            .find(|group| is_back(group))
            .copied()
            .ok_or_else(|| {
                StoreError::Unbalanced(
                    "a row came back that was not inserted, or out of order".into(),
                )
            })?;
        plan.inserted(group);
    }
    Ok(())
}
