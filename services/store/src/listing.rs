//! What can be listed, and where a page ends.

pub(crate) mod letters;
pub(crate) mod page;

use event::{Batch, BatchId, EncodedEvents, Key, Source, Timestamp, Topic};
use uuid::Uuid;

use crate::Outcome;

/// The most events that are read from the database at once.
pub(crate) const CHUNK_EVENTS: usize = 500;

/// The payloads that are read at once end with the one that reaches this. With the
/// largest payload on top it bounds what one reader can make a process hold.
pub(crate) const CHUNK_BYTES: usize = 2 * 1024 * 1024;

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// Of this topic only.
    pub topic: Option<Topic<'a>>,
    /// Of this source only. No index serves it: give a topic or a time as well.
    pub source: Option<Source<'a>>,
    /// At this instant or later.
    pub from: Option<Timestamp>,
    /// Before this instant.
    pub to: Option<Timestamp>,
}

/// A place in the order of all events: by timestamp, then topic, then key. It stays
/// where it is while others insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The event's timestamp.
    pub timestamp: Timestamp,
    /// The number of its topic in this store.
    pub topic_id: i32,
    /// Its key.
    pub key: Key,
}

/// An event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its topic.
    pub topic: String,
    /// Its id within the topic.
    pub event_id: String,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Who says so.
    pub source: String,
    /// JSON text.
    pub payload: String,
    /// When a gateway took it.
    pub received_at: Timestamp,
}

/// A later event with the key of a stored one and other content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Its place in the list.
    pub id: i64,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// The event that was not stored.
    pub event: StoredEvent,
}

/// Something that can never be stored, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place in the list.
    pub id: i64,
    /// Its topic, where it could be told.
    pub topic: Option<String>,
    /// Its event id, where it could be told.
    pub event_id: Option<String>,
    /// Why it can't be stored.
    pub reason: String,
    /// How many events it stands for: more than one if an entry could not be decoded.
    pub events: i64,
    /// What arrived, in the queue's encoding.
    pub bytes: Vec<u8>,
    /// The batch that it came in.
    pub batch_id: Uuid,
    /// When a gateway took it.
    pub received_at: Timestamp,
    /// When it was buried.
    pub buried_at: Timestamp,
    /// When it was replayed, if it was.
    pub replayed_at: Option<Timestamp>,
}

impl DeadLetter {
    /// Its events, as a batch to record. A letter has one replay, so it has one identity.
    pub(crate) fn batch(&self) -> Batch {
        let id = u128::from(self.id.unsigned_abs()).to_be_bytes();
        let count = u32::try_from(self.events).unwrap_or(u32::MAX);
        Batch {
            id: BatchId(uuid::Builder::from_custom_bytes(id).into_uuid()),
            received_at: self.received_at,
            events: EncodedEvents::from_parts(self.bytes.clone().into(), count),
        }
    }
}

/// What became of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// Recorded, with what became of each of its events.
    Recorded(Vec<Outcome>),
    /// It still can't be stored, for this reason; nothing changed.
    StillPoison(String),
    /// It was replayed before; nothing changed.
    Already,
    /// There is no such letter.
    Missing,
}
