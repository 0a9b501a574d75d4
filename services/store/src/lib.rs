//! Where every event is stored once.
//!
//! The only crate that knows SQL. It guarantees that a key (topic, event id) is stored
//! at most once, for ever, by a primary key and nothing else; that the first commit of
//! a key wins; and that the books balance: what a batch adds to them is committed in
//! the same transaction as its rows and its identity. It never asks the queue
//! anything, never answers "new" from a cache, and never buries an event because of
//! an outage.
//!
//! Read it in this order:
//!
//! 1. [`record`](mod@record): what becomes of a batch, decided without any I/O.
//! 2. `postgres/record.rs`: the transaction around that decision; `sqlite/record.rs`
//!    is the same with one writer.
//! 3. [`books`] and [`listing`]: what can be asked.
//! 4. `postgres/topics.rs`: how topics become numbers, and how they go away.

pub mod args;
pub mod books;
mod commit;
mod error;
pub mod listing;
mod metrics;
mod postgres;
pub mod record;
mod sqlite;
mod topics;

use std::time::{Duration, Instant};

use event::{Batch, EventId, Timestamp, Topic};
use prometheus::Registry;
use tracing::Span;

pub use args::{Args, DatabaseUrl};
pub use books::{Books, Counts, TopicBooks};
pub use error::StoreError;
pub use listing::{Conflict, DeadLetter, Filter, Position, Replayed, StoredEvent};
pub use record::{Outcome, Recorded};

use listing::page::{self, Bounds};
use metrics::{Connections, Metrics};

/// A store of either kind. Cheap to clone; clones share connections and caches.
#[derive(Debug, Clone)]
pub struct Store {
    backend: Backend,
    metrics: Metrics,
}

#[derive(Debug, Clone)]
enum Backend {
    Postgres(postgres::Postgres),
    Sqlite(sqlite::Sqlite),
}

macro_rules! delegate {
    ($self:ident, $backend:ident => $call:expr) => {
        match &$self.backend {
            Backend::Postgres($backend) => $call,
            Backend::Sqlite($backend) => $call,
        }
    };
}

/// The same for a change, which a server may make without ever answering.
macro_rules! change {
    ($self:ident, $backend:ident => $call:expr) => {
        match &$self.backend {
            Backend::Postgres($backend) => postgres::changed($call).await,
            Backend::Sqlite($backend) => $call.await,
        }
    };
}

/// The same for what a server is asked, which may never answer.
macro_rules! ask {
    ($self:ident, $backend:ident => $call:expr) => {
        match &$self.backend {
            Backend::Postgres($backend) => postgres::answered($call).await,
            Backend::Sqlite($backend) => $call.await,
        }
    };
}

impl Store {
    /// A store that will connect when it is first asked something: a process must be
    /// able to start, and say that it is not ready, while its database is away. An
    /// SQLite file is locked here; a second process on it gets an error.
    pub fn new(url: &DatabaseUrl, args: &Args) -> Result<Self, StoreError> {
        let metrics = Metrics::new();
        let backend = match url {
            DatabaseUrl::Postgres(options) => {
                Backend::Postgres(postgres::Postgres::new(options, args, &metrics))
            }
            DatabaseUrl::Sqlite(path) => {
                Backend::Sqlite(sqlite::Sqlite::new(path, args, &metrics)?)
            }
        };
        Ok(Self { backend, metrics })
    }

    /// Lets a registry tell what this process does with the store.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        if let Backend::Postgres(postgres) = &self.backend {
            registry.register(Box::new(Connections::new(postgres.pool.clone())?))?;
        }
        self.metrics.register(registry)
    }

    /// Brings the schema up to this release's. Whoever comes first does it; the others
    /// wait for it. Until it has succeeded once, nothing else here does. Where there is
    /// something to do on large tables, it takes as long as that takes.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        delegate!(self, backend => backend.migrate().await)
    }

    /// Whether the store answers and would keep what it acknowledges.
    pub async fn check(&self) -> Result<(), StoreError> {
        ask!(self, backend => backend.check())
    }

    /// How many transactions it pays to have under way at once. With one writer, what a
    /// second would hold is better part of the first: it then writes each page of an index
    /// once for all of them.
    pub fn writers(&self) -> usize {
        match &self.backend {
            Backend::Postgres(_) => 2,
            Backend::Sqlite(_) => 1,
        }
    }

    /// Records batches in one transaction and says what became of each event. A batch
    /// whose identity is recorded already changes nothing.
    pub async fn record(
        &self,
        batches: &[Batch],
        now: Timestamp,
    ) -> Result<Vec<Recorded>, StoreError> {
        self.record_within(batches, now, &[]).await
    }

    /// The same as a part of spans, each of which gets one of the commit.
    pub async fn record_within(
        &self,
        batches: &[Batch],
        now: Timestamp,
        spans: &[Span],
    ) -> Result<Vec<Recorded>, StoreError> {
        let begun = Instant::now();
        let result = delegate!(self, backend => backend.record(batches, now, spans).await);
        self.metrics
            .recorded(batches, &result, now, begun.elapsed());
        result
    }

    /// The positions of a page of events, newest first, and whether there are more.
    pub async fn positions(
        &self,
        filter: &Filter<'_>,
        after: Option<Position>,
        limit: usize,
    ) -> Result<(Vec<Position>, bool), StoreError> {
        let bounds = Bounds::of(filter, after);
        ask!(self, backend => page::gather(bounds, limit, |after, from, wanted, depth| {
            backend.round(filter, after, from, wanted, depth)
        }))
    }

    /// The events at the first of these positions, in their order, and how many of the
    /// positions that used up (at least one, unless there are none): an answer is bounded
    /// to some megabytes. Events whose topic was deleted meanwhile are left out.
    pub async fn events_at(
        &self,
        positions: &[Position],
    ) -> Result<(Vec<StoredEvent>, usize), StoreError> {
        ask!(self, backend => backend.events_at(positions))
    }

    /// One event.
    pub async fn event(
        &self,
        topic: &Topic<'_>,
        event_id: &EventId<'_>,
    ) -> Result<Option<StoredEvent>, StoreError> {
        ask!(self, backend => backend.event(topic, event_id))
    }

    /// The books in total, and the rates of the minute before `now`.
    pub async fn books(&self, now: Timestamp) -> Result<Books, StoreError> {
        ask!(self, backend => backend.books(now))
    }

    /// The books of each topic, by name.
    pub async fn topics(&self) -> Result<Vec<TopicBooks>, StoreError> {
        ask!(self, backend => backend.topics())
    }

    /// Whether the limit leaves no room for a topic of this name, as of the last time that
    /// this process read the topics: for refusing early, never for accepting.
    pub fn is_beyond_limit(&self, topic: &Topic<'_>) -> bool {
        delegate!(self, backend => backend.topics.is_beyond_limit(topic.as_str()))
    }

    /// Reads the topics again, for [`Store::is_beyond_limit`].
    pub async fn refresh_topics(&self) -> Result<(), StoreError> {
        ask!(self, backend => backend.refresh_topics())
    }

    /// Removes a topic with its keys and books. False if there is none of that name.
    pub async fn delete_topic(&self, topic: &Topic<'_>) -> Result<bool, StoreError> {
        change!(self, backend => backend.delete_topic(topic))
    }

    /// Conflicts, newest first, with an id below `before`, and whether there are more: at
    /// least one, unless there are none, and so many that an answer is bounded to some
    /// megabytes.
    pub async fn conflicts(
        &self,
        topic: Option<&Topic<'_>>,
        before: Option<i64>,
        limit: usize,
    ) -> Result<(Vec<Conflict>, bool), StoreError> {
        ask!(self, backend => backend.conflicts(topic, before, limit))
    }

    /// The same of dead letters.
    pub async fn dead_letters(
        &self,
        topic: Option<&Topic<'_>>,
        before: Option<i64>,
        limit: usize,
    ) -> Result<(Vec<DeadLetter>, bool), StoreError> {
        ask!(self, backend => backend.dead_letters(topic, before, limit))
    }

    /// Records what a dead letter holds, and marks it, in one transaction.
    pub async fn replay_dead_letter(
        &self,
        id: i64,
        now: Timestamp,
    ) -> Result<Replayed, StoreError> {
        let replayed = change!(self, backend => backend.replay_dead_letter(id, now))?;
        if let Replayed::Recorded(outcomes) = &replayed {
            self.metrics.outcomes(outcomes);
        }
        Ok(replayed)
    }

    /// Removes a dead letter; no counter changes. False if there is none.
    pub async fn drop_dead_letter(&self, id: i64) -> Result<bool, StoreError> {
        change!(self, backend => backend.drop_dead_letter(id))
    }

    /// Forgets identities of batches that are older than the retention and removes rows
    /// of deleted topics, a bounded step at a time. True while there is more to do.
    pub async fn housekeep(&self, now: Timestamp) -> Result<bool, StoreError> {
        ask!(self, backend => backend.housekeep(now))
    }

    /// Closes the connections, waiting at most this long for those in use.
    pub async fn close(&self, patience: Duration) {
        delegate!(self, backend => backend.close(patience).await);
    }
}
