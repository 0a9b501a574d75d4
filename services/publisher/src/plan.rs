//! What is sent, and in which request: a pure function of the seed and the position.
//!
//! Positions count the events as they are sent, from 0; requests of `batch` positions
//! each are numbered from 0 too. At each position stands either an event that was never
//! sent before, or a resend of an earlier one, byte for byte, or a conflict: the key of
//! an earlier one with content of its own. Resends reach back by any distance, each power
//! of two as often as the next: some stand beside the original in its batch, some are on
//! their way through another connection at the same moment, and some come long after it.
//!
//! A malformed request is refused as a whole. What stands in it is sent nowhere else, so
//! that any of it in the store is a fault.

use std::ops::Range;

use crate::draw::{For, Seed, Share};

/// What stands at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    /// The position that first sent this key: topic and event id follow from it.
    pub(crate) key: u64,
    /// The position that the content follows from: timestamp, source and payload.
    /// Equal to the key, but for a conflict.
    pub(crate) version: u64,
}

/// How many of which events.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: Seed,
    /// Positions in a request, at least 1.
    pub(crate) batch: u64,
    /// Positions in all; without it, there is no end.
    pub(crate) events: Option<u64>,
    pub(crate) duplicates: Share,
    pub(crate) duplicates_or_conflicts: Share,
    pub(crate) malformed: Share,
}

impl Plan {
    /// Whether any key is sent with two contents.
    pub(crate) fn has_conflicts(&self) -> bool {
        self.duplicates_or_conflicts > self.duplicates
    }

    /// How many requests there are.
    pub(crate) fn requests(&self) -> u64 {
        self.events
            .map_or(u64::MAX, |events| events.div_ceil(self.batch))
    }

    /// What a request holds.
    pub(crate) fn positions(&self, request: u64) -> Range<u64> {
        let begin = request.saturating_mul(self.batch);
        let end = begin.saturating_add(self.batch);
        begin..self.events.map_or(end, |events| end.min(events))
    }

    /// Whether a request is to be refused. The first one never is: without any key, there
    /// would be nothing to resend.
    pub(crate) fn is_malformed(&self, request: u64) -> bool {
        self.malformed != Share::NONE
            && request > 0
            && self.malformed.has(self.seed.draw(For::Malformed, request))
    }

    /// What stands at a position.
    pub(crate) fn item(&self, position: u64) -> Item {
        let first = Item {
            key: position,
            version: position,
        };
        if self.is_first_of_its_key(position) || self.is_malformed(position / self.batch) {
            return first;
        }
        let key = self.earlier(position);
        if self.duplicates.has(self.seed.draw(For::Kind, position)) {
            Item { key, version: key }
        } else {
            Item { key, ..first }
        }
    }

    /// Whether what stands there is sent for the first time, and is not refused.
    pub(crate) fn is_first_of_its_key(&self, position: u64) -> bool {
        let is_new = || {
            let draw = self.seed.draw(For::Kind, position);
            !self.duplicates_or_conflicts.has(draw)
        };
        position == 0 || (is_new() && !self.is_malformed(position / self.batch))
    }

    /// The key that a resend or a conflict takes up: a distance is drawn, and from there
    /// the search goes further back. Position 0 ends it at the latest.
    fn earlier(&self, position: u64) -> u64 {
        let mut draws = self.seed.stream(For::Distance, position);
        let powers = u64::from(position.ilog2()) + 1;
        let power = draws.next() % powers;
        let at_least = 1_u64 << power;
        let width = at_least.min(position - at_least + 1);
        let mut key = position - at_least - draws.next() % width;
        while !self.is_first_of_its_key(key) {
            key -= 1;
        }
        key
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use super::*;

    pub(crate) fn plan(duplicates: f64, conflicts: f64, malformed: f64, batch: u64) -> Plan {
        Plan {
            seed: Seed(7),
            batch,
            events: Some(100_000),
            duplicates: Share::new(duplicates),
            duplicates_or_conflicts: Share::new(duplicates + conflicts),
            malformed: Share::new(malformed),
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_items_in_any_order() {
        let forwards: Vec<_> = (0..10_000)
            .map(|p| plan(0.3, 0.1, 0.1, 10).item(p))
            .collect();
        let again = plan(0.3, 0.1, 0.1, 10);
        for position in (0..10_000).rev() {
            assert_eq!(
                again.item(position),
                forwards[usize::try_from(position).unwrap()]
            );
        }
        let other = Plan {
            seed: Seed(8),
            ..again
        };
        assert_ne!(
            (0..100).map(|p| other.item(p)).collect::<Vec<_>>(),
            forwards[..100]
        );
    }

    #[test]
    fn the_shares_are_those_that_were_asked_for() {
        let plan = plan(0.3, 0.1, 0.05, 10);
        let sound = (0..100_000_u64).filter(|p| !plan.is_malformed(p / 10));
        let (mut resends, mut conflicts, mut all) = (0, 0, 0);
        for position in sound {
            let item = plan.item(position);
            all += 1;
            resends += u32::from(item.key != position && item.version == item.key);
            conflicts += u32::from(item.key != position && item.version == position);
        }
        let permille = |count: u32| count * 1_000 / all;
        assert!(
            (290..310).contains(&permille(resends)),
            "{resends} of {all}"
        );
        assert!(
            (93..107).contains(&permille(conflicts)),
            "{conflicts} of {all}"
        );
        assert!((94_000..96_000).contains(&all), "{all}");
    }

    #[test]
    fn a_resend_or_conflict_takes_up_a_key_that_was_sent_before_it() {
        let plan = plan(0.5, 0.2, 0.2, 7);
        for position in 0..20_000 {
            let Item { key, version } = plan.item(position);
            assert!(key <= position);
            assert!(version == key || version == position);
            if key != position {
                assert!(plan.is_first_of_its_key(key));
                assert_eq!(plan.item(key), Item { key, version: key });
            }
        }
    }

    #[test]
    fn what_stands_in_a_malformed_request_is_sent_nowhere_else() {
        let plan = plan(0.5, 0.2, 0.3, 10);
        let keys: HashSet<_> = (0..50_000)
            .filter(|p| !plan.is_malformed(p / 10))
            .map(|p| plan.item(p).key)
            .collect();
        let mut refused = (0..50_000).filter(|p| plan.is_malformed(p / 10));
        assert!(refused.all(|p| plan.item(p).key == p && !keys.contains(&p)));
        assert!(!plan.is_malformed(0));
    }

    #[test]
    fn resends_stand_beside_the_original_and_near_it_and_far_from_it() {
        let plan = plan(0.3, 0.0, 0.0, 100);
        let distances: Vec<_> = (50_000..100_000)
            .map(|p| p - plan.item(p).key)
            .filter(|distance| *distance > 0)
            .collect();
        let share = |of: Range<u64>| {
            let within = distances.iter().filter(|d| of.contains(d)).count();
            within * 100 / distances.len()
        };
        assert!((3..15).contains(&share(1..2)), "at once: {}", share(1..2));
        assert!((25..50).contains(&share(1..100)), "near: {}", share(1..100));
        assert!(
            (20..50).contains(&share(100..5_000)),
            "{}",
            share(100..5_000)
        );
        assert!((10..40).contains(&share(5_000..100_000)), "late");
    }

    #[test]
    fn requests_hold_every_position_once() {
        let plan = Plan {
            events: Some(25),
            ..plan(0.3, 0.0, 0.0, 10)
        };
        let requests: Vec<_> = (0..plan.requests()).map(|r| plan.positions(r)).collect();
        assert_eq!(requests, [0..10, 10..20, 20..25]);
        let endless = Plan {
            events: None,
            ..plan
        };
        assert_eq!(endless.requests(), u64::MAX);
        assert_eq!(endless.positions(1), 10..20);
    }

    #[test]
    fn the_largest_shares_still_come_to_an_end() {
        let plan = plan(0.9, 0.09, 0.99, 1);
        assert!((0..2_000).all(|position| plan.item(position).key <= position));
    }
}
