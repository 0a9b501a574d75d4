//! Where accepted events go: to the queue, or straight to the store.
//!
//! The answer that a sender gets is decided here: [`Intake::queue`] returns once all of a
//! request is on disk in the queue (without a broker: committed), [`Intake::store`] once it
//! is committed. Neither ever sends anything a second time: where the outcome can't be
//! known, the sender is told so and sends again itself.

use std::sync::Arc;
use std::time::Instant;

use broker::{AppendError, Broker, Outgoing};
use event::{Batch, BatchId, EncodedEvents, Event, Partition, Timestamp};
use lifecycle::{Tasks, seldom, trace};
use store::{Outcome, Recorded, Store};
use tokio::sync::{mpsc, oneshot};
use tracing::Span;
use upkeep::now;
use uuid::Uuid;

use crate::body::Reserved;
use crate::error::ApiError;
use crate::group::{self, Job, Limits};
use crate::metrics::Metrics;
use crate::spans;
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

/// Transactions, closed at 4 MiB: two of those a line of 20 Mbit/s to PostgreSQL carries in the
/// time that a transaction may take to be sent.
fn record_limits(store: &Store) -> Limits {
    Limits {
        in_flight: store.writers(),
        weight: RECORD_BYTES,
        waiting: 16 * 1024,
    }
}

const RECORD_BYTES: usize = 4 * 1024 * 1024;

/// What an event weighs at least: a transaction is full at 5,000, too, past which PostgreSQL
/// gets slower (see `docs/architecture.md`).
const EVENT_BYTES: usize = RECORD_BYTES.div_ceil(5_000);

/// Takes events. Clones share the groups that they go into.
#[derive(Clone)]
pub(crate) struct Intake {
    /// None without a broker.
    appends: Option<mpsc::Sender<Append>>,
    records: mpsc::Sender<Record>,
}

/// Events on their way, all of one partition.
pub(crate) struct Part {
    pub(crate) partition: Partition,
    pub(crate) events: EncodedEvents,
}

impl Part {
    /// Events in their order, for a single transaction: one part, unless there are none.
    pub(crate) fn whole(events: &[Event<'_>]) -> Vec<Self> {
        Self::of(events, Partition::default(), usize::MAX).collect()
    }

    /// Events sorted by partition, for as many transactions.
    pub(crate) fn split(events: &[Event<'_>]) -> Vec<Self> {
        let mut shares: [Vec<&Event<'_>>; Partition::COUNT] = Default::default();
        for event in events {
            shares[Partition::of(event).number()].push(event);
        }
        (0..)
            .zip(&shares)
            .flat_map(|(number, share)| {
                let partition = Partition::from_number(number);
                Self::of(share.iter().copied(), partition, MAX_ENTRY_BYTES)
            })
            .collect()
    }

    fn of<'e>(
        events: impl IntoIterator<Item = &'e Event<'e>> + Clone,
        partition: Partition,
        max_bytes: usize,
    ) -> impl Iterator<Item = Self> {
        let parts = EncodedEvents::encode(events, max_bytes);
        parts
            .into_iter()
            .map(move |events| Self { partition, events })
    }
}

struct Append {
    parts: Vec<Part>,
    /// Of the request, if it is recorded.
    traceparent: Option<String>,
    waiting: Waiting<()>,
}

struct Record {
    batch: Batch,
    /// Of the request, if it is recorded.
    span: Option<Span>,
    waiting: Waiting<Recorded>,
}

/// The request whose events they are.
struct Waiting<T> {
    reply: oneshot::Sender<Result<T, ApiError>>,
    /// Given back after the round trip, even if nobody waits any more.
    _reserved: Arc<Reserved>,
}

impl<T> Waiting<T> {
    fn new(reserved: &Arc<Reserved>) -> (Self, oneshot::Receiver<Result<T, ApiError>>) {
        let (reply, answer) = oneshot::channel();
        let waiting = Self {
            reply,
            _reserved: Arc::clone(reserved),
        };
        (waiting, answer)
    }

    /// Answers, if anyone still waits: whoever has hung up sends again.
    fn reply(self, answer: Result<T, ApiError>) {
        let _ = self.reply.send(answer);
    }
}

impl Job for Append {
    fn weight(&self) -> usize {
        self.parts
            .iter()
            .map(|part| part.events.as_bytes().len())
            .sum()
    }
}

impl Job for Record {
    fn weight(&self) -> usize {
        record_weight(&self.batch.events)
    }
}

fn record_weight(events: &EncodedEvents) -> usize {
    let least = events.count() as usize * EVENT_BYTES;
    least.max(events.as_bytes().len())
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
        let limits = record_limits(&store);
        let records = group::start("record", tasks, limits, move |jobs| {
            record(store.clone(), tail.clone(), jobs)
        });
        Self { appends, records }
    }

    /// Whether there is a queue, and what goes into it is to be split by partition.
    pub(crate) fn has_queue(&self) -> bool {
        self.appends.is_some()
    }

    /// Takes the events of a request for later.
    pub(crate) async fn queue(
        &self,
        parts: Vec<Part>,
        reserved: &Arc<Reserved>,
    ) -> Result<(), ApiError> {
        let Some(appends) = &self.appends else {
            return self.store(&parts, reserved).await.map(drop);
        };
        let span = spans::send(parts.iter().map(|part| part.events.count()).sum());
        let (waiting, answer) = Waiting::new(reserved);
        let append = Append {
            parts,
            traceparent: span.as_ref().and_then(trace::traceparent),
            waiting,
        };
        submit(appends, append)?;
        // The task answers every job; without an answer it has panicked.
        let answer = answer.await.unwrap_or(Err(ApiError::OutcomeUnknown));
        drop(span);
        answer
    }

    /// Stores the events of a request, and says what became of each.
    pub(crate) async fn store(
        &self,
        parts: &[Part],
        reserved: &Arc<Reserved>,
    ) -> Result<Vec<Outcome>, ApiError> {
        let (waiting, answer) = Waiting::new(reserved);
        let batch = new_batch(
            EncodedEvents::join(parts.iter().map(|part| &part.events)),
            now(),
        );
        let span = spans::recorded();
        let record = Record {
            batch,
            span,
            waiting,
        };
        submit(&self.records, record)?;
        match answer.await.unwrap_or(Err(ApiError::OutcomeUnknown))? {
            Recorded::Now(outcomes) => Ok(outcomes),
            Recorded::Again => Err(ApiError::defect(
                "a batch that was just made had been recorded",
            )),
        }
    }
}

fn submit<J>(jobs: &mpsc::Sender<J>, job: J) -> Result<(), ApiError> {
    jobs.try_send(job).map_err(|_| ApiError::Overloaded)
}

async fn append(broker: Broker, metrics: Arc<Metrics>, jobs: Vec<Append>) {
    let (requests, all_waiting): (Vec<_>, Vec<_>) = jobs
        .into_iter()
        .map(|job| ((job.parts, job.traceparent), job.waiting))
        .unzip();
    let entries = entries(&requests, now());
    let begun = Instant::now();
    let result = broker.append(&entries).await;
    metrics.appended(&entries, begun.elapsed());
    let answer = result.map_err(|error| {
        match &error {
            AppendError::Full => seldom!(warn, "the queue is full; senders are told to come again"),
            AppendError::Unavailable(_) => {
                seldom!(warn, %error, "can't append to the queue; senders are told to come again");
            }
            AppendError::OutcomeUnknown(_) => {
                seldom!(warn, %error, "the queue gave no answer to an append; senders are told to send again");
            }
        }
        of_append(&error)
    });
    for waiting in all_waiting {
        waiting.reply(answer.clone());
    }
}

fn of_append(error: &AppendError) -> ApiError {
    match error {
        AppendError::Full => ApiError::QueueFull,
        AppendError::Unavailable(_) => ApiError::Unavailable("queue"),
        AppendError::OutcomeUnknown(_) => ApiError::OutcomeUnknown,
    }
}

/// A request's events, and its `traceparent` if it is recorded.
type Request = (Vec<Part>, Option<String>);

/// Joins the parts of requests, in order within a partition, into entries.
fn entries(requests: &[Request], now: Timestamp) -> Vec<Outgoing> {
    let mut shares: [Vec<(&Part, Option<&String>)>; Partition::COUNT] = Default::default();
    for (parts, traceparent) in requests {
        for part in parts {
            shares[part.partition.number()].push((part, traceparent.as_ref()));
        }
    }
    let mut entries = Vec::new();
    for (number, share) in (0..).zip(&shares) {
        let mut rest = &share[..];
        while !rest.is_empty() {
            let (entry, after) = rest.split_at(of_one_entry(rest));
            rest = after;
            let traceparents = entry.iter().filter_map(|(_, traceparent)| *traceparent);
            let mut traceparents: Vec<_> = traceparents.cloned().collect();
            // The parts of a request stand together.
            traceparents.dedup();
            let events = EncodedEvents::join(entry.iter().map(|(part, _)| &part.events));
            entries.push(Outgoing {
                batch: new_batch(events, now),
                partition: Partition::from_number(number),
                traceparents,
            });
        }
    }
    entries
}

/// How many of the first parts go into one entry: at least one.
fn of_one_entry(parts: &[(&Part, Option<&String>)]) -> usize {
    let mut bytes = 0;
    let fits = |(part, _): &&(&Part, Option<&String>)| {
        bytes += part.events.as_bytes().len();
        bytes <= MAX_ENTRY_BYTES
    };
    parts.iter().take_while(fits).count().max(1)
}

async fn record(store: Store, tail: Tail, jobs: Vec<Record>) {
    let spans: Vec<_> = jobs.iter().filter_map(|job| job.span.clone()).collect();
    let (batches, all_waiting): (Vec<_>, Vec<_>) =
        jobs.into_iter().map(|job| (job.batch, job.waiting)).unzip();
    match store.record_within(&batches, now(), &spans).await {
        Ok(recorded) => {
            for (waiting, recorded) in all_waiting.into_iter().zip(&recorded) {
                waiting.reply(Ok(recorded.clone()));
            }
            // Only now: nobody waits for those who follow.
            tail.publish(&batches, &recorded).await;
        }
        Err(error) => {
            let error = ApiError::of_store(&error);
            for waiting in all_waiting {
                waiting.reply(Err(error.clone()));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn part(partition: u32, bytes: usize) -> Part {
        Part {
            partition: Partition::from_number(partition),
            events: EncodedEvents::from_parts(vec![0; bytes].into(), 1),
        }
    }

    #[test]
    fn a_transaction_is_full_at_5000_events_and_at_4_mib() {
        let weight = |bytes: usize, events: u32| {
            record_weight(&EncodedEvents::from_parts(vec![0; bytes].into(), events))
        };
        assert!(weight(100 * 5_001, 5_001) > RECORD_BYTES);
        assert!(weight(100 * 4_999, 4_999) < RECORD_BYTES);
        assert_eq!(weight(RECORD_BYTES, 4), RECORD_BYTES);
    }

    #[test]
    fn requests_are_joined_into_entries_of_a_partition_in_order_up_to_the_limit() {
        let half = MAX_ENTRY_BYTES / 2;
        let requests = vec![
            vec![part(1, half), part(3, 7)],
            vec![],
            vec![part(1, half)],
            vec![part(1, 1), part(1, MAX_ENTRY_BYTES * 2)],
            vec![part(0, 5), part(1, 1)],
        ];
        let traceparents = [Some("first"), None, Some("third"), None, Some("fifth")];
        let requests: Vec<_> = requests
            .into_iter()
            .zip(traceparents)
            .map(|(parts, of)| (parts, of.map(str::to_owned)))
            .collect();
        let entries = entries(&requests, now());
        let sizes: Vec<_> = entries
            .iter()
            .map(|entry| {
                (
                    entry.partition.number(),
                    entry.batch.events.as_bytes().len(),
                    entry.batch.events.count(),
                )
            })
            .collect();
        assert_eq!(
            sizes,
            [
                (0, 5, 1),
                (1, MAX_ENTRY_BYTES, 2),
                (1, 1, 1),
                (1, MAX_ENTRY_BYTES * 2, 1),
                (1, 1, 1),
                (3, 7, 1)
            ]
        );
        let traceparents: Vec<_> = entries
            .iter()
            .map(|one| one.traceparents.join(","))
            .collect();
        assert_eq!(
            traceparents,
            ["fifth", "first,third", "", "", "fifth", "first"]
        );
        let ids: std::collections::HashSet<_> =
            entries.iter().map(|entry| entry.batch.id).collect();
        assert_eq!(ids.len(), entries.len());
    }
}
