//! What was counted, in the same transactions as it was stored.

use event::Timestamp;

/// Counts of events. Once the queue is empty, `received = unique + duplicates + buried`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Events that were taken out of batches.
    pub received: i64,
    /// Events that are stored.
    pub unique: i64,
    /// Events whose key was stored already.
    pub duplicates: i64,
    /// Of the duplicates, those with other content than the stored event.
    pub conflicts: i64,
    /// Events that can never be stored and became dead letters.
    pub buried: i64,
}

impl Counts {
    /// Whether every event that was received is accounted for once.
    pub fn balance(&self) -> bool {
        self.unbalanced() == 0
    }

    /// How many of the events that were received are accounted for nowhere.
    pub fn unbalanced(&self) -> i64 {
        self.received - self.unique - self.duplicates - self.buried
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.unique += other.unique;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.buried += other.buried;
    }
}

/// The books of everything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Books {
    /// Over all topics, and what has no topic.
    pub counts: Counts,
    /// The names of the topics, sorted.
    pub topics: Vec<String>,
    /// Events stored, a second, over the last minute.
    pub stored_rate: f64,
    /// Events stored or dropped, a second, over the last minute.
    pub recorded_rate: f64,
}

/// The books of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicBooks {
    /// Its name.
    pub topic: String,
    /// Its counts.
    pub counts: Counts,
    /// The oldest event's timestamp; none if no event is stored.
    pub first_timestamp: Option<Timestamp>,
    /// The newest event's timestamp.
    pub last_timestamp: Option<Timestamp>,
}

/// A rate from what a minute brought.
#[expect(
    clippy::cast_precision_loss,
    reason = "a rate is shown to a few digits"
)]
pub(crate) fn a_second(of_a_minute: i64) -> f64 {
    of_a_minute as f64 / 60.0
}
