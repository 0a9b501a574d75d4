//! Where a page lies, and how the topics' parts of it become one.

use std::collections::HashMap;

use event::{Key, Timestamp};
use uuid::Uuid;

use super::{Filter, Position};
use crate::StoreError;

/// The ends between which a page may lie.
pub(crate) struct Bounds {
    /// Only what comes after this position, which means: is older.
    after: Position,
    /// Nothing older than this.
    from: Timestamp,
}

impl Bounds {
    pub(crate) fn of(filter: &Filter<'_>, after: Option<Position>) -> Self {
        // Topic numbers lie between these two, so that keys need not be compared.
        let (first, last) = (i32::MAX, 0);
        let start = match filter.to {
            None => Position {
                timestamp: Timestamp::MAX,
                topic_id: first,
                key: Key::from(Uuid::max()),
            },
            // All that has this very timestamp is left out.
            Some(to) => Position {
                timestamp: to,
                topic_id: last,
                key: Key::from(Uuid::nil()),
            },
        };
        let after = after.map_or(start, |after| after.min(start));
        Self {
            after,
            from: filter.from.unwrap_or(Timestamp::MIN),
        }
    }
}

/// A page of positions, newest first.
pub(crate) struct Page {
    pub(crate) positions: Vec<Position>,
    /// Whether it is as long as was wanted, or ends because there are no more.
    pub(crate) complete: bool,
}

/// Makes one page of the newest positions of several topics, of each of which at most
/// `per_topic` were read. Where a topic gave as many, it may have more below its last:
/// nothing below that is certain, so the page ends there and is not complete.
pub(crate) fn merge(mut positions: Vec<Position>, per_topic: usize, wanted: usize) -> Page {
    let mut of_topic = HashMap::<i32, (usize, Position)>::new();
    for position in &positions {
        let (count, last) = of_topic.entry(position.topic_id).or_insert((0, *position));
        *count += 1;
        *last = (*last).min(*position);
    }
    let cut_off = of_topic
        .values()
        .filter(|(count, _)| *count >= per_topic)
        .map(|(_, last)| *last);
    let horizon = cut_off.max();
    positions.sort_unstable_by(|a, b| b.cmp(a));
    if let Some(horizon) = horizon {
        positions.retain(|position| *position >= horizon);
    }
    let complete = positions.len() >= wanted || horizon.is_none();
    positions.truncate(wanted);
    Page {
        positions,
        complete,
    }
}

/// How many positions the first round of a page reads of each topic, and by how much more each
/// further one does: where few topics fill a page, few rounds do.
pub(crate) const DEPTH: usize = 64;
const DEEPER: usize = 8;

/// What a round may read of all topics together, if that is more than [`DEPTH`] of each.
pub(crate) const ROUND: usize = 65_536;

/// How many positions a round of this depth reads of each of so many topics: twice its share of
/// what is wanted, at least, and never more than that. `OF_ALL_TOPICS` in `postgres/query.rs`
/// says the same.
pub(crate) fn per_topic(wanted: usize, topics: usize, depth: usize) -> usize {
    let topics = topics.max(1);
    let deep = depth.min((ROUND / topics).max(DEPTH));
    wanted.min(deep.max(2 * wanted / topics))
}

/// Puts a page together of rounds, each of which is asked for so many positions after one and
/// from a time on, to a depth. Also whether there are more.
pub(crate) async fn gather<R>(
    bounds: Bounds,
    wanted: usize,
    round: impl Fn(Position, Timestamp, usize, usize) -> R,
) -> Result<(Vec<Position>, bool), StoreError>
where
    R: Future<Output = Result<Page, StoreError>>,
{
    // One more tells whether there are more.
    let limit = wanted + 1;
    let mut positions = Vec::<Position>::new();
    let mut exhausted = false;
    let mut depth = DEPTH;
    while positions.len() < limit && !exhausted {
        let after = positions.last().copied().unwrap_or(bounds.after);
        let page = round(after, bounds.from, limit - positions.len(), depth).await?;
        depth = depth.saturating_mul(DEEPER);
        // A page that is not complete ends with a position, from which to go on.
        exhausted = page.complete || page.positions.is_empty();
        positions.extend(page.positions);
    }
    let more = positions.len() == limit;
    positions.truncate(wanted);
    Ok((positions, more))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn position(topic_id: i32, micros: i64) -> Position {
        Position {
            timestamp: Timestamp::from_micros(micros).unwrap(),
            topic_id,
            key: Key::from(Uuid::from_u128(1)),
        }
    }

    #[test]
    fn what_may_be_below_a_cut_off_topic_is_not_told() {
        let read = vec![
            position(1, 9),
            position(1, 8),
            position(2, 7),
            position(1, 5),
            position(2, 1),
        ];
        let page = merge(read, 3, 10);
        assert_eq!(
            page.positions,
            [
                position(1, 9),
                position(1, 8),
                position(2, 7),
                position(1, 5)
            ]
        );
        assert!(!page.complete);
    }

    #[test]
    fn a_page_is_complete_when_it_is_full_or_nothing_was_cut_off() {
        let read = || vec![position(1, 9), position(2, 7), position(1, 5)];
        assert!(merge(read(), 3, 10).complete);
        let full = merge(read(), 2, 2);
        assert_eq!(full.positions, [position(1, 9), position(2, 7)]);
        assert!(full.complete);
    }

    /// The rounds that a page over so many topics takes, and what they read, where all of it
    /// is of the first topic and the others have as many older ones.
    async fn rounds(wanted: usize, topics: i32) -> (usize, usize) {
        let count = i64::try_from(wanted).unwrap() + 1;
        let of = |topic: i32, n: i64| position(topic, if topic == 1 { n + count } else { n });
        let (rounds, read) = (Cell::new(0), Cell::new(0));
        let bounds = Bounds::of(&Filter::default(), None);
        let page = gather(bounds, wanted, |after, _, wanted, depth| {
            let per_topic = per_topic(wanted, usize::try_from(topics).unwrap(), depth);
            let newest = |topic| {
                let all = (0..count).rev().map(move |n| of(topic, n));
                all.filter(|one| *one < after).take(per_topic)
            };
            let part: Vec<_> = (1..=topics).flat_map(newest).collect();
            rounds.set(rounds.get() + 1);
            read.set(read.get() + part.len());
            std::future::ready(Ok(merge(part, per_topic, wanted)))
        });
        let (positions, more) = page.await.unwrap();
        assert_eq!((positions.len(), more), (wanted, true));
        assert!(positions.iter().all(|one| one.topic_id == 1));
        (rounds.get(), read.get())
    }

    #[tokio::test]
    async fn a_page_that_one_topic_fills_takes_few_rounds() {
        assert_eq!(rounds(50, 20).await, (1, 20 * 51));
        assert_eq!(rounds(10_000, 1).await.0, 1);
        // 1,000 and 900, which is twice its share; then a twentieth of what a round may read.
        assert_eq!(rounds(10_000, 20).await.0, 5);
        // No round reads more of many topics than the first.
        assert_eq!(per_topic(10_001, 2_000, 4_096), DEPTH);
    }
}
