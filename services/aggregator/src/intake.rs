//! Where accepted events go: to the queue, or straight to the store.
//!
//! The answer that a sender gets is decided here: [`Intake::queue`] returns once all of a
//! request is on disk in the queue (without a broker: committed), [`Intake::store`] once it
//! is committed. Neither ever sends anything a second time: where the outcome can't be
//! known, the sender is told so and sends again itself.

use std::sync::Arc;

use broker::{AppendError, Broker, Outgoing};
use event::{Batch, BatchId, EncodedEvents, Timestamp};
use lifecycle::{Tasks, clock};
use store::{Outcome, Recorded, Store};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::error::ApiError;
use crate::group::{self, Job, Limits};
use crate::metrics::Metrics;
use crate::tail::Tail;

/// The most bytes of one entry. Larger ones gain nothing, and one of them is what a worker
/// holds at least.
pub(crate) const MAX_ENTRY_BYTES: usize = 256 * 1024;

/// Round trips to the queue: a second one is on its way while Redis syncs the first.
/// They are closed at 4 MiB, which Redis takes in some milliseconds.
const APPEND: Limits = Limits {
    in_flight: 2,
    weight: 4 * 1024 * 1024,
    waiting: 16 * 1024,
};

/// Transactions, closed at 5,000 events: past that PostgreSQL gets slower (see
/// `docs/performance.md`).
const RECORD: Limits = Limits {
    in_flight: 2,
    weight: 5_000,
    waiting: 16 * 1024,
};

/// Takes events. Clones share the groups that they go into.
#[derive(Clone)]
pub(crate) struct Intake {
    /// None without a broker.
    appends: Option<mpsc::Sender<Append>>,
    records: mpsc::Sender<Record>,
}

struct Append {
    parts: Vec<EncodedEvents>,
    reply: oneshot::Sender<Result<(), ApiError>>,
}

struct Record {
    batch: Batch,
    reply: oneshot::Sender<Result<Recorded, ApiError>>,
}

impl Job for Append {
    fn weight(&self) -> usize {
        self.parts.iter().map(|part| part.as_bytes().len()).sum()
    }
}

impl Job for Record {
    fn weight(&self) -> usize {
        self.batch.events.count() as usize
    }
}

impl Intake {
    /// Starts the tasks that gather requests into groups.
    pub(crate) fn start(
        broker: Option<Broker>,
        store: Store,
        tail: Tail,
        metrics: &Arc<Metrics>,
        tasks: &Tasks,
    ) -> Self {
        let appends = broker.map(|broker| {
            let metrics = Arc::clone(metrics);
            group::start("append", tasks, APPEND, move |jobs| {
                append(broker.clone(), Arc::clone(&metrics), jobs)
            })
        });
        let metrics = Arc::clone(metrics);
        let records = group::start("record", tasks, RECORD, move |jobs| {
            record(store.clone(), tail.clone(), Arc::clone(&metrics), jobs)
        });
        Self { appends, records }
    }

    /// Takes the events of a request for later.
    pub(crate) async fn queue(&self, parts: Vec<EncodedEvents>) -> Result<(), ApiError> {
        let Some(appends) = &self.appends else {
            return self.store(parts).await.map(drop);
        };
        let (reply, answer) = oneshot::channel();
        submit(appends, Append { parts, reply })?;
        // The task answers every job; without an answer it has panicked.
        answer.await.unwrap_or(Err(ApiError::OutcomeUnknown))
    }

    /// Stores the events of a request, and says what became of each.
    pub(crate) async fn store(&self, parts: Vec<EncodedEvents>) -> Result<Vec<Outcome>, ApiError> {
        let (reply, answer) = oneshot::channel();
        let batch = new_batch(EncodedEvents::join(&parts), now());
        submit(&self.records, Record { batch, reply })?;
        match answer.await.unwrap_or(Err(ApiError::OutcomeUnknown))? {
            Recorded::Now(outcomes) => Ok(outcomes),
            Recorded::Again => {
                tracing::error!("a batch that was just made had been recorded");
                Err(ApiError::Internal)
            }
        }
    }
}

fn submit<J>(jobs: &mpsc::Sender<J>, job: J) -> Result<(), ApiError> {
    jobs.try_send(job).map_err(|_| ApiError::Overloaded)
}

async fn append(broker: Broker, metrics: Arc<Metrics>, jobs: Vec<Append>) {
    let (parts, replies): (Vec<_>, Vec<_>) =
        jobs.into_iter().map(|job| (job.parts, job.reply)).unzip();
    let entries = entries(parts, now());
    let timer = metrics.append_seconds.start_timer();
    let result = broker.append(&entries).await;
    timer.observe_duration();
    metrics.append_entries.inc_by(entries.len() as u64);
    let answer = result.map_err(|error| {
        match &error {
            // Senders are told; a full queue is not news to them or to the alarms on it.
            AppendError::Full => tracing::debug!("the queue is full"),
            AppendError::Unavailable(_) => tracing::warn!(%error, "can't append to the queue"),
            AppendError::OutcomeUnknown(_) => {
                tracing::warn!(%error, "the queue gave no answer to an append");
            }
        }
        of_append(&error)
    });
    for reply in replies {
        // Whoever has hung up sends again.
        let _ = reply.send(answer.clone());
    }
}

fn of_append(error: &AppendError) -> ApiError {
    match error {
        AppendError::Full => ApiError::QueueFull,
        AppendError::Unavailable(_) => ApiError::Unavailable("queue"),
        AppendError::OutcomeUnknown(_) => ApiError::OutcomeUnknown,
    }
}

/// Joins the parts of requests, in order, into entries.
fn entries(requests: Vec<Vec<EncodedEvents>>, now: Timestamp) -> Vec<Outgoing> {
    let mut entries = Vec::new();
    let mut entry = Vec::new();
    let mut bytes = 0;
    let mut close = |parts: &mut Vec<EncodedEvents>| {
        if !parts.is_empty() {
            entries.push(Outgoing {
                batch: new_batch(EncodedEvents::join(parts), now),
                traceparent: None,
            });
            parts.clear();
        }
    };
    for part in requests.into_iter().flatten() {
        let len = part.as_bytes().len();
        if bytes + len > MAX_ENTRY_BYTES {
            close(&mut entry);
            bytes = 0;
        }
        bytes += len;
        entry.push(part);
    }
    close(&mut entry);
    entries
}

async fn record(store: Store, tail: Tail, metrics: Arc<Metrics>, jobs: Vec<Record>) {
    let (batches, replies): (Vec<_>, Vec<_>) =
        jobs.into_iter().map(|job| (job.batch, job.reply)).unzip();
    let timer = metrics.record_seconds.start_timer();
    let result = store.record(&batches, now()).await;
    timer.observe_duration();
    match result {
        Ok(recorded) => {
            tail.publish(&batches, &recorded).await;
            for (reply, recorded) in replies.into_iter().zip(recorded) {
                let _ = reply.send(Ok(recorded));
            }
        }
        Err(error) => {
            let error = ApiError::of_store(&error);
            for reply in replies {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}

fn new_batch(events: EncodedEvents, now: Timestamp) -> Batch {
    let (seconds, micros) = (
        now.as_micros().div_euclid(1_000_000),
        now.as_micros().rem_euclid(1_000_000),
    );
    let time = uuid::Timestamp::from_unix(
        uuid::NoContext,
        u64::try_from(seconds).unwrap_or(0),
        u32::try_from(micros).unwrap_or(0) * 1_000,
    );
    Batch {
        id: BatchId(Uuid::new_v7(time)),
        received_at: now,
        events,
    }
}

pub(crate) fn now() -> Timestamp {
    // A clock outside the years 1 to 9999 is wrong by more than can be told from here.
    Timestamp::from_jiff(clock::now()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(bytes: usize) -> EncodedEvents {
        EncodedEvents::from_parts(vec![0; bytes].into(), 1)
    }

    #[test]
    fn requests_are_joined_into_entries_in_order_up_to_the_limit() {
        let half = MAX_ENTRY_BYTES / 2;
        let requests = vec![
            vec![part(half)],
            vec![],
            vec![part(half)],
            vec![part(1), part(MAX_ENTRY_BYTES * 2)],
            vec![part(1)],
        ];
        let entries = entries(requests, now());
        let sizes: Vec<_> = entries
            .iter()
            .map(|entry| {
                (
                    entry.batch.events.as_bytes().len(),
                    entry.batch.events.count(),
                )
            })
            .collect();
        assert_eq!(
            sizes,
            [
                (MAX_ENTRY_BYTES, 2),
                (1, 1),
                (MAX_ENTRY_BYTES * 2, 1),
                (1, 1)
            ]
        );
        let ids: std::collections::HashSet<_> =
            entries.iter().map(|entry| entry.batch.id).collect();
        assert_eq!(ids.len(), entries.len());
    }
}
