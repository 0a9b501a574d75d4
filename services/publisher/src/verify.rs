//! The verdict: whether all that was acknowledged is there, once, and as it was sent.
//!
//! The seed says what was sent; nothing of it was kept. Every event that is read back names
//! the positions that it was made from, is made anew from them and compared. Two bits
//! for each event are all that has to be remembered, ten million take some megabytes, and
//! of the few keys that a conflict won its position.
//!
//! Of a request that was not acknowledged, any part may be there or not. What a 429 or a
//! 503 answered must not have been taken, so it does not widen what the books may say.

mod bits;
mod books;
mod judge;

use std::collections::HashMap;

use serde::Serialize;

use crate::gateway::{Books, Gateway};
use crate::load::{Load, Sent};
use judge::Judge;

/// How many faults are told of in words; the others are counted.
const MAX_EXAMPLES: usize = 5;

/// What was found. Counts are of events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) good: bool,
    /// The same in a sentence.
    pub(crate) words: String,
    /// Keys that were acknowledged: so many must be there.
    pub(crate) expected: u64,
    /// There, each key once.
    pub(crate) stored: u64,
    /// Taken, and dropped as duplicates, by the books.
    pub(crate) duplicates: u64,
    /// Those of them with other content, by the books.
    pub(crate) conflicts: u64,
    /// Acknowledged and not there.
    pub(crate) missing: u64,
    /// Keys that are there again.
    pub(crate) doubled: u64,
    /// There and never sent, or refused.
    pub(crate) foreign: u64,
    /// There with other content than was sent.
    pub(crate) altered: u64,
    /// There from an earlier run of the same seed that went further than this one.
    pub(crate) earlier: u64,
    /// Topics whose books don't agree with what was sent and found.
    pub(crate) books_off: u64,
    /// The first faults, in words.
    pub(crate) examples: Vec<String>,
}

/// What there was before the run.
pub(crate) struct Before {
    /// The books of the run's topics.
    pub(crate) books: Vec<Books>,
    /// Whether the queue was empty. If not, an earlier run of the same name may have left
    /// events in it that were counted since.
    pub(crate) is_settled: bool,
}

impl Before {
    /// Nothing: the run's name is a new one.
    pub(crate) fn none(topics: usize) -> Self {
        Self {
            books: vec![Books::default(); topics],
            is_settled: true,
        }
    }
}

/// The books of the run's topics, in their order; without events there are none.
pub(crate) async fn books(gateway: &mut Gateway, topics: &[String]) -> anyhow::Result<Vec<Books>> {
    let all = gateway.topics().await?;
    let mut all: HashMap<_, _> = all
        .into_iter()
        .map(|books| (books.topic.clone(), books))
        .collect();
    let of_run = topics
        .iter()
        .map(|topic| all.remove(topic).unwrap_or_default());
    Ok(of_run.collect())
}

/// Reads everything back and judges it. The queue must be empty.
pub(crate) async fn verify(
    gateway: &mut Gateway,
    load: &Load,
    sent: &Sent,
    before: &Before,
) -> anyhow::Result<Verdict> {
    let ran_before = !before.is_settled || before.books.iter().any(|books| books.received > 0);
    let mut judge = Judge::new(&load.plan, &load.maker, sent.end(&load.plan), ran_before);
    for (index, topic) in load.maker.topics().iter().enumerate() {
        let mut each = |line: &[u8]| {
            judge.take(index, line);
            load.metrics.read_back.inc();
            Ok(())
        };
        gateway.events(topic, &mut each).await?;
    }
    let (mut verdict, found) = judge.finish(&sent.not_acknowledged);
    let after = books(gateway, load.maker.topics()).await?;
    let late = match (before.is_settled, ran_before) {
        (false, _) => u64::MAX,
        (true, true) => under_way(load),
        (true, false) => 0,
    };
    for (index, topic) in load.maker.topics().iter().enumerate() {
        let topic = books::Topic {
            name: topic,
            tally: sent.tally.topics[index],
            late,
            found: found[index],
            before: &before.books[index],
            after: &after[index],
            has_conflicts: load.plan.has_conflicts(),
        };
        books::judge(&topic, &mut verdict);
    }
    conclude(&mut verdict, sent);
    Ok(verdict)
}

/// How many events an earlier run may have had under way when it was killed: a request on each
/// of its connections. A gateway that waits for its queue takes that in when it can.
fn under_way(load: &Load) -> u64 {
    let connections = u64::try_from(load.connections).unwrap_or(u64::MAX);
    connections.saturating_mul(load.plan.batch)
}

/// Sums up.
fn conclude(verdict: &mut Verdict, sent: &Sent) {
    let faults = [
        (verdict.missing, "lost"),
        (verdict.doubled, "doubled"),
        (verdict.foreign, "that nobody sent or that were refused"),
        (verdict.altered, "altered"),
        (verdict.books_off, "topics with wrong books"),
    ];
    let found: Vec<_> = faults
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    verdict.good = found.is_empty();
    let Verdict {
        stored,
        duplicates,
        conflicts,
        ..
    } = *verdict;
    let mut words = if found.is_empty() {
        format!(
            "GOOD: {} sent, {stored} stored once, {duplicates} duplicates dropped, nothing lost, \
             nothing doubled",
            sent.tally.sent,
        )
    } else {
        format!(
            "BAD: {}; {} sent, {stored} stored, {duplicates} duplicates dropped",
            found.join(", "),
            sent.tally.sent,
        )
    };
    for (count, what) in [
        (conflicts, "conflicts counted"),
        (sent.tally.refused, "malformed refused"),
        (verdict.earlier, "stored by an earlier run"),
    ] {
        if count > 0 {
            words = format!("{words}, {count} {what}");
        }
    }
    if let Some(example) = verdict.examples.first() {
        words = format!("{words}; for example: {example}");
    }
    verdict.words = words;
}

impl Verdict {
    fn tell(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < MAX_EXAMPLES {
            // Names have up to 255 characters, and a report must stay short.
            self.examples.push(example().chars().take(200).collect());
        }
    }
}
