//! Whether the books of a topic agree with what was sent to it and found in it.

use super::Verdict;
use super::judge::Found;
use crate::gateway::Books;
use crate::tally::TopicTally;

/// All that is known of one topic.
pub(super) struct Topic<'a> {
    pub(super) name: &'a str,
    pub(super) tally: TopicTally,
    /// How many events of an earlier run may have been taken since this one looked.
    pub(super) late: u64,
    pub(super) found: Found,
    pub(super) before: &'a Books,
    pub(super) after: &'a Books,
    /// Whether any were sent, now or by the earlier run.
    pub(super) has_conflicts: bool,
}

/// Enters the books into the verdict.
pub(super) fn judge(topic: &Topic<'_>, verdict: &mut Verdict) {
    let Topic { before, after, .. } = topic;
    verdict.duplicates += after.duplicates.saturating_sub(before.duplicates);
    verdict.conflicts += after.conflicts.saturating_sub(before.conflicts);
    if let Some(fault) = fault(topic) {
        verdict.books_off += 1;
        verdict.tell(|| format!("the books of {}: {fault}", topic.name));
    }
}

fn fault(topic: &Topic<'_>) -> Option<String> {
    let Topic {
        tally,
        late,
        found,
        before,
        after,
        ..
    } = topic;
    let Some(received) = after.received.checked_sub(before.received) else {
        return Some(format!(
            "{} received, after {} were before",
            after.received, before.received
        ));
    };
    if received < tally.acknowledged {
        return Some(format!(
            "{received} received, though {} were acknowledged",
            tally.acknowledged
        ));
    }
    let at_most = tally.taken_at_most.saturating_add(*late);
    if received > at_most {
        return Some(format!(
            "{received} received, though at most {at_most} can have been taken"
        ));
    }
    let settled = after.unique + after.duplicates + after.buried;
    if after.received != settled {
        return Some(format!(
            "{} received, but {} unique, {} duplicates and {} buried",
            after.received, after.unique, after.duplicates, after.buried
        ));
    }
    if after.unique != found.rows {
        let Found { rows, .. } = found;
        return Some(format!("{} unique, but {rows} are there", after.unique));
    }
    if after.buried != before.buried {
        return Some(format!("{} buried", after.buried - before.buried));
    }
    conflicts_fault(topic)
}

/// Whether the conflicts can be those that were sent. What differs from what is stored under its
/// key is one each time that it is taken, and what is the same never is.
fn conflicts_fault(topic: &Topic<'_>) -> Option<String> {
    let Topic {
        tally,
        late,
        found,
        before,
        after,
        has_conflicts,
        ..
    } = topic;
    let counted = after.conflicts;
    if counted > 0 && !has_conflicts {
        return Some(format!("{counted} conflicts, but none was sent"));
    }
    let at_least = before.conflicts + found.conflicts;
    if counted < at_least {
        return Some(format!("{counted} conflicts, though {at_least} were sent"));
    }
    // Of an attempt whose outcome is unknown, and of an earlier run, any could be.
    let unknown = tally.taken_at_most.saturating_sub(tally.acknowledged);
    let at_most = at_least.saturating_add(unknown).saturating_add(*late);
    if counted > at_most {
        return Some(format!(
            "{counted} conflicts, though at most {at_most} can have been taken"
        ));
    }
    let conflicts = counted - before.conflicts;
    let duplicates = after.duplicates.saturating_sub(before.duplicates);
    (conflicts > duplicates)
        .then(|| format!("{conflicts} conflicts, which is more than {duplicates} duplicates"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(received: u64, unique: u64, duplicates: u64, conflicts: u64, buried: u64) -> Books {
        Books {
            topic: "t".into(),
            received,
            unique,
            duplicates,
            conflicts,
            buried,
        }
    }

    fn check(before: &Books, after: &Books, tally: (u64, u64), rows: u64) -> Option<String> {
        check_late(0, before, after, tally, rows)
    }

    fn check_late(
        late: u64,
        before: &Books,
        after: &Books,
        tally: (u64, u64),
        rows: u64,
    ) -> Option<String> {
        fault(&Topic {
            late,
            has_conflicts: false,
            ..topic(before, after, tally, (rows, 0))
        })
    }

    /// What of it was acknowledged and taken at most, and what was found: rows and conflicts.
    fn topic<'a>(
        before: &'a Books,
        after: &'a Books,
        (acknowledged, taken_at_most): (u64, u64),
        (rows, conflicts): (u64, u64),
    ) -> Topic<'a> {
        Topic {
            name: "t",
            tally: TopicTally {
                acknowledged,
                taken_at_most,
            },
            late: 0,
            found: Found { rows, conflicts },
            before,
            after,
            has_conflicts: true,
        }
    }

    #[test]
    fn books_that_agree_are_good_and_those_of_an_earlier_run_are_taken_off() {
        let none = Books::default();
        assert_eq!(check(&none, &none, (0, 0), 0), None);
        assert_eq!(check(&none, &books(10, 7, 3, 0, 0), (10, 10), 7), None);
        assert_eq!(check(&none, &books(12, 7, 5, 0, 0), (10, 14), 7), None);
        let before = books(10, 7, 3, 0, 0);
        assert_eq!(check(&before, &books(20, 7, 13, 0, 0), (10, 10), 7), None);
        let before = books(12, 7, 3, 0, 2);
        assert_eq!(check(&before, &books(22, 7, 13, 0, 2), (10, 10), 7), None);
    }

    #[test]
    fn what_a_killed_run_had_under_way_may_be_taken_late() {
        let (before, after) = (books(10, 7, 3, 0, 0), books(22, 7, 15, 0, 0));
        assert_eq!(check_late(2, &before, &after, (10, 10), 7), None);
        let fault = check_late(1, &before, &after, (10, 10), 7);
        assert!(fault.is_some_and(|fault| fault.contains("at most 11")));
        assert_eq!(check_late(u64::MAX, &before, &after, (10, 10), 7), None);
    }

    #[test]
    fn every_disagreement_is_told() {
        let none = Books::default();
        for (after, tally, rows, expected) in [
            (
                books(9, 7, 2, 0, 0),
                (10, 10),
                7,
                "9 received, though 10 were",
            ),
            (books(11, 7, 4, 0, 0), (10, 10), 7, "at most 10"),
            (
                books(10, 7, 2, 0, 0),
                (10, 10),
                7,
                "10 received, but 7 unique",
            ),
            (
                books(10, 7, 3, 0, 0),
                (10, 10),
                6,
                "7 unique, but 6 are there",
            ),
            (books(10, 7, 2, 0, 1), (10, 10), 7, "1 buried"),
            (books(10, 7, 3, 1, 0), (10, 10), 7, "1 conflicts"),
        ] {
            let fault = check(&none, &after, tally, rows).expect(expected);
            assert!(fault.contains(expected), "{fault}");
        }
        let shrunk = check(&books(10, 7, 3, 0, 0), &none, (0, 0), 0);
        assert!(shrunk.is_some_and(|fault| fault.contains("after 10 were before")));
    }

    #[test]
    fn conflicts_are_as_many_as_differ_from_what_is_stored() {
        let none = Books::default();
        // An earlier run left two conflicts of five duplicates.
        let earlier = books(12, 7, 5, 2, 0);
        for (before, after, tally, expected) in [
            (&none, books(10, 7, 3, 2, 0), (10, 10), None),
            (&none, books(10, 7, 3, 1, 0), (10, 10), Some("though 2")),
            (&none, books(10, 7, 3, 0, 0), (10, 10), Some("though 2")),
            (&none, books(10, 7, 3, 3, 0), (10, 10), Some("at most 2")),
            // Two events came again, or not.
            (&none, books(10, 7, 3, 2, 0), (10, 12), None),
            (&none, books(12, 7, 5, 4, 0), (10, 12), None),
            (&none, books(12, 7, 5, 5, 0), (10, 12), Some("at most 4")),
            (&none, books(10, 7, 3, 4, 0), (10, 12), Some("more than 3")),
            (&earlier, books(22, 7, 15, 4, 0), (10, 10), None),
            (&earlier, books(22, 7, 15, 3, 0), (10, 10), Some("though 4")),
            (
                &earlier,
                books(22, 7, 15, 5, 0),
                (10, 10),
                Some("at most 4"),
            ),
        ] {
            let fault = fault(&topic(before, &after, tally, (7, 2)));
            let is_expected = match (&fault, expected) {
                (Some(fault), Some(expected)) => fault.contains(expected),
                (fault, expected) => fault.is_none() && expected.is_none(),
            };
            assert!(is_expected, "{after:?}: {fault:?}");
        }
        let after = books(23, 7, 16, 5, 0);
        let late = Topic {
            late: 1,
            ..topic(&earlier, &after, (10, 10), (7, 2))
        };
        assert_eq!(fault(&late), None);
    }
}
