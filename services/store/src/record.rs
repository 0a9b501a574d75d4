//! What becomes of a batch, decided without any I/O.
//!
//! A backend takes these steps inside one transaction and holds no opinion of its own:
//!
//! 1. [`Arrivals::decode`] before it; the backend turns topic names into numbers.
//! 2. The backend inserts the identities and keeps the batches that are new.
//! 3. [`Plan::new`] sorts their events by key, first arrival first, into [`Group`]s.
//! 4. The backend inserts one candidate a group and tells each group how that went.
//! 5. The backend reads what is stored under the keys that were not inserted.
//! 6. [`Plan::judge`] decides every event's outcome, and what is to be written besides:
//!    conflicts, dead letters and counts.

mod plan;

use std::collections::{BTreeSet, HashMap};

use event::{Batch, EncodedEvents, Event};

pub(crate) use plan::{Judgement, Letter, Plan, Winner};

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is stored.
    Stored,
    /// Its key was stored already, with the same content.
    Duplicate,
    /// Its key was stored already, with other content.
    Conflict,
    /// It can never be stored; it is a dead letter.
    Buried,
}

/// What became of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// It was recorded before; nothing was changed.
    Again,
    /// It is recorded now: the outcome of each of its events, in order. Empty if it can't be
    /// decoded, and is one dead letter.
    Now(Vec<Outcome>),
}

/// The number of a topic. None where the limit left no room for the topic.
pub(crate) type TopicIds = HashMap<String, Option<i32>>;

/// The topic number under which is counted what has no topic.
pub(crate) const NO_TOPIC: i32 = 0;

/// Batches with their events taken out.
pub(crate) struct Arrivals<'a>(pub(crate) Vec<Arrival<'a>>);

/// A batch with its events, or with the reason why it has none.
pub(crate) struct Arrival<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) events: Result<Vec<Event<'a>>, String>,
}

impl<'a> Arrivals<'a> {
    pub(crate) fn decode(batches: &'a [Batch]) -> Self {
        let decode = |batch: &'a Batch| Arrival {
            batch,
            events: batch.events.decode().map_err(|error| error.to_string()),
        };
        Self(batches.iter().map(decode).collect())
    }

    /// Every topic that is named, once.
    pub(crate) fn topics(&self) -> BTreeSet<&str> {
        let decoded = self
            .0
            .iter()
            .filter_map(|arrival| arrival.events.as_ref().ok());
        decoded
            .flatten()
            .map(|event| event.topic.as_str())
            .collect()
    }
}

/// How many events a batch stands for: an undecodable one may claim none, but is one letter.
pub(crate) fn claimed(events: &EncodedEvents) -> i64 {
    i64::from(events.count()).max(1)
}
