use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use event::{Batch, BatchId, Digest, EncodedEvents, Event, Key};

use super::{Arrivals, NO_TOPIC, Outcome, Recorded, TopicIds, claimed};
use crate::{Counts, StoreError};

/// One event of a batch that is new.
pub(crate) struct Row<'a> {
    pub(crate) topic_id: i32,
    pub(crate) key: Key,
    pub(crate) digest: Digest,
    pub(crate) event: &'a Event<'a>,
    pub(crate) batch: &'a Batch,
    place: Place,
}

/// Where an event stands in what arrived.
#[derive(Clone, Copy)]
struct Place {
    arrival: usize,
    index: usize,
}

/// The rows of one key, in the order in which they arrived: a range of the plan's rows.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    rows: std::ops::Range<usize>,
    /// Offset of the row that is, or was last, offered to the database.
    candidate: usize,
    fate: Fate,
    /// Why the rows before the candidate can't be stored.
    buried: Vec<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Undecided,
    Inserted,
    /// Every row was poison.
    Buried,
}

/// What is stored under a key that was not inserted.
pub(crate) struct Winner {
    pub(crate) digest: Digest,
    pub(crate) event_id: String,
}

/// All that a transaction is going to do to the events.
pub(crate) struct Plan<'a> {
    /// Sorted by topic and key, then by arrival: writers that lock keys in one order
    /// can't deadlock, and an index filled in its order is six times faster.
    pub(crate) rows: Vec<Row<'a>>,
    pub(crate) groups: Vec<Group>,
    /// For each arrival its outcomes; none where it was recorded before.
    outcomes: Vec<Option<Vec<Outcome>>>,
    letters: Vec<Letter<'a>>,
    counts: BTreeMap<i32, Counts>,
}

/// A dead letter to write: an event, or a whole batch that can't be decoded.
pub(crate) struct Letter<'a> {
    pub(crate) topic_id: i32,
    pub(crate) batch: &'a Batch,
    pub(crate) event: Option<&'a Event<'a>>,
    pub(crate) reason: Arc<str>,
    pub(crate) events: i64,
}

impl Letter<'_> {
    /// What arrived, in the queue's encoding.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self.event {
            Some(event) => EncodedEvents::of(std::slice::from_ref(event))
                .as_bytes()
                .to_vec(),
            None => self.batch.events.as_bytes().to_vec(),
        }
    }
}

/// What is to be written besides the events, and what to tell the caller.
pub(crate) struct Judgement<'a> {
    pub(crate) recorded: Vec<Recorded>,
    /// (topic number, event) of the events that lost against other content.
    pub(crate) conflicts: Vec<(i32, &'a Event<'a>, &'a Batch)>,
    pub(crate) letters: Vec<Letter<'a>>,
    /// Sorted by topic number.
    pub(crate) counts: BTreeMap<i32, Counts>,
    /// For each new batch its events, and how many of them were stored.
    pub(crate) batches: Vec<(BatchId, i64, i64)>,
}

impl Judgement<'_> {
    /// What became of the events of a dead letter that was recorded alone. None if some still
    /// can't be stored.
    pub(crate) fn replayed(mut self) -> Option<Vec<Outcome>> {
        match self.recorded.pop() {
            Some(Recorded::Now(outcomes)) if self.letters.is_empty() => Some(outcomes),
            _ => None,
        }
    }
}

const COLLISION: &str = "another event id of this topic has the same key";

impl<'a> Plan<'a> {
    /// Plans the arrivals for which `is_new` holds.
    pub(crate) fn new(
        arrivals: &'a Arrivals<'a>,
        is_new: impl Fn(usize) -> bool,
        topics: &TopicIds,
    ) -> Self {
        let mut plan = Self {
            rows: Vec::new(),
            groups: Vec::new(),
            outcomes: Vec::new(),
            letters: Vec::new(),
            counts: BTreeMap::new(),
        };
        let over_limit: Arc<str> =
            "the limit on the number of topics leaves no room for this one".into();
        let nul: Arc<str> = "the payload holds a NUL byte, which is no JSON".into();
        for (at, arrival) in arrivals.0.iter().enumerate() {
            if !is_new(at) {
                plan.outcomes.push(None);
                continue;
            }
            let batch = arrival.batch;
            match &arrival.events {
                Ok(events) => {
                    // Until it is judged an event counts as what can't be missed.
                    plan.outcomes
                        .push(Some(vec![Outcome::Buried; events.len()]));
                    for (index, event) in events.iter().enumerate() {
                        let place = Place { arrival: at, index };
                        let Some(topic_id) = topics.get(event.topic.as_str()).copied().flatten()
                        else {
                            plan.bury(NO_TOPIC, batch, Some(event), over_limit.clone(), 1);
                            continue;
                        };
                        if event.payload.as_str().contains('\0') {
                            plan.bury(topic_id, batch, Some(event), nul.clone(), 1);
                            continue;
                        }
                        plan.rows.push(Row {
                            topic_id,
                            key: event.key(),
                            digest: event.digest(),
                            event,
                            batch,
                            place,
                        });
                    }
                }
                Err(reason) => {
                    let events = claimed(&batch.events);
                    // No outcomes: nobody can say of which events, nor trust how many.
                    plan.outcomes.push(Some(Vec::new()));
                    plan.bury(NO_TOPIC, batch, None, reason.as_str().into(), events);
                }
            }
        }
        // Stable, so that rows of one key stay in the order in which they arrived.
        plan.rows.sort_by_key(|row| (row.topic_id, row.key));
        plan.groups = groups(&plan.rows);
        plan
    }

    fn bury(
        &mut self,
        topic_id: i32,
        batch: &'a Batch,
        event: Option<&'a Event<'a>>,
        reason: Arc<str>,
        events: i64,
    ) {
        let counts = self.counts.entry(topic_id).or_default();
        counts.received += events;
        counts.buried += events;
        self.letters.push(Letter {
            topic_id,
            batch,
            event,
            reason,
            events,
        });
    }

    /// The row that a group offers to the database.
    pub(crate) fn candidate(&self, group: usize) -> &Row<'a> {
        let group = &self.groups[group];
        &self.rows[group.rows.start + group.candidate]
    }

    /// The groups whose candidate was not inserted: those to look up.
    pub(crate) fn undecided(&self) -> impl Iterator<Item = usize> + '_ {
        let undecided = |&group: &usize| self.groups[group].fate == Fate::Undecided;
        (0..self.groups.len()).filter(undecided)
    }

    /// The candidate of a group is a new row.
    pub(crate) fn inserted(&mut self, group: usize) {
        self.groups[group].fate = Fate::Inserted;
    }

    /// The candidate of a group can't be stored. True if the group has another to offer.
    pub(crate) fn poisoned(&mut self, group: usize, reason: &str) -> bool {
        let group = &mut self.groups[group];
        group.buried.push(reason.into());
        group.candidate += 1;
        if group.candidate == group.rows.len() {
            group.fate = Fate::Buried;
            return false;
        }
        true
    }

    /// Decides every event. `winners` holds what is stored under the undecided keys.
    pub(crate) fn judge(
        mut self,
        arrivals: &Arrivals<'_>,
        winners: &HashMap<(i32, Key), Winner>,
    ) -> Result<Judgement<'a>, StoreError> {
        let rows = std::mem::take(&mut self.rows);
        let mut conflicts = Vec::new();
        for group in std::mem::take(&mut self.groups) {
            let kept = (group.fate == Fate::Inserted).then_some(group.candidate);
            let winner = match (group.fate, kept.map(|at| &rows[group.rows.start + at])) {
                (Fate::Inserted, Some(row)) => Some((row.digest, row.event.event_id.as_str())),
                (Fate::Buried, _) => None,
                _ => {
                    let first = &rows[group.rows.start];
                    let winner = winners.get(&(first.topic_id, first.key)).ok_or_else(|| {
                        StoreError::Unbalanced("a key was neither inserted nor found".into())
                    })?;
                    Some((winner.digest, winner.event_id.as_str()))
                }
            };
            for (at, row) in rows[group.rows.clone()].iter().enumerate() {
                let outcome = match winner {
                    _ if at < group.buried.len() => {
                        self.bury_row(row, group.buried[at].clone());
                        continue;
                    }
                    _ if kept == Some(at) => Outcome::Stored,
                    Some((digest, _)) if digest == row.digest => Outcome::Duplicate,
                    Some((_, event_id)) if event_id == row.event.event_id.as_str() => {
                        conflicts.push((row.topic_id, row.event, row.batch));
                        Outcome::Conflict
                    }
                    _ => {
                        self.bury_row(row, COLLISION.into());
                        continue;
                    }
                };
                self.count(row, outcome);
            }
        }
        self.conclude(arrivals, conflicts)
    }

    fn bury_row(&mut self, row: &Row<'a>, reason: Arc<str>) {
        self.bury(row.topic_id, row.batch, Some(row.event), reason, 1);
    }

    fn count(&mut self, row: &Row<'_>, outcome: Outcome) {
        let counts = self.counts.entry(row.topic_id).or_default();
        counts.received += 1;
        match outcome {
            Outcome::Stored => counts.unique += 1,
            Outcome::Duplicate => counts.duplicates += 1,
            Outcome::Conflict => {
                counts.duplicates += 1;
                counts.conflicts += 1;
            }
            Outcome::Buried => counts.buried += 1,
        }
        if let Some(outcomes) = &mut self.outcomes[row.place.arrival] {
            outcomes[row.place.index] = outcome;
        }
    }

    fn conclude(
        self,
        arrivals: &Arrivals<'_>,
        conflicts: Vec<(i32, &'a Event<'a>, &'a Batch)>,
    ) -> Result<Judgement<'a>, StoreError> {
        let mut batches = Vec::new();
        let mut recorded = Vec::new();
        for (arrival, outcomes) in arrivals.0.iter().zip(self.outcomes) {
            let Some(outcomes) = outcomes else {
                recorded.push(Recorded::Again);
                continue;
            };
            let stored = outcomes
                .iter()
                .filter(|outcome| **outcome == Outcome::Stored)
                .count();
            let events = match &arrival.events {
                Ok(events) => to_i64(events.len()),
                Err(_) => claimed(&arrival.batch.events),
            };
            batches.push((arrival.batch.id, events, to_i64(stored)));
            recorded.push(Recorded::Now(outcomes));
        }
        // The counts came from groups, the sums from arrivals: they must agree.
        let mut total = Counts::default();
        self.counts.values().for_each(|counts| total += *counts);
        let events: i64 = batches.iter().map(|(_, events, _)| events).sum();
        let stored: i64 = batches.iter().map(|(_, _, stored)| stored).sum();
        if !total.balance() || total.received != events || total.unique != stored {
            return Err(StoreError::Unbalanced(format!(
                "{total:?} for {events} events, {stored} of them stored"
            )));
        }
        Ok(Judgement {
            recorded,
            conflicts,
            letters: self.letters,
            counts: self.counts,
            batches,
        })
    }
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).expect("a batch of events fits in memory")
}

fn groups(rows: &[Row<'_>]) -> Vec<Group> {
    let mut groups = Vec::with_capacity(rows.len());
    let mut start = 0;
    for same in rows.chunk_by(|a, b| (a.topic_id, a.key) == (b.topic_id, b.key)) {
        let rows = start..start + same.len();
        start = rows.end;
        groups.push(Group {
            rows,
            candidate: 0,
            fate: Fate::Undecided,
            buried: Vec::new(),
        });
    }
    groups
}

#[cfg(test)]
mod tests;
