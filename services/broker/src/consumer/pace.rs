//! How many entries to ask for: entries are of all sizes, and Redis counts only entries.

use crate::Delivery;

/// Entries of one read. A read after small entries may bring as many large ones: 32 MiB of
/// those that gateways join, 128 MiB of single events of 1 MiB. Then reads get shorter, whether
/// that one arrived or took too long.
const MAX_COUNT: usize = 128;

/// What is aimed at for one read, in bytes.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// What is expected of entries until some were seen: the most that gateways join, in bytes,
/// and as many small events as that holds.
const LARGE_ENTRY: usize = 256 * 1024;
const MANY_EVENTS: usize = 512;

/// What entries have been like lately.
#[derive(Debug)]
pub(super) struct Pace {
    bytes: usize,
    events: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            bytes: LARGE_ENTRY,
            events: MANY_EVENTS,
        }
    }
}

impl Pace {
    /// How many entries will hold about so many events, within what a read may hold.
    pub(super) fn count(&self, events: usize) -> usize {
        let by_events = events.div_ceil(self.events);
        by_events.min(READ_BYTES / self.bytes).clamp(1, MAX_COUNT)
    }

    /// After a read that failed: what it would have brought may be more than arrives in time.
    pub(super) fn failed(&mut self) {
        self.bytes = (self.bytes.max(LARGE_ENTRY) * 2).min(READ_BYTES);
    }

    /// Learns: up at once, as the mean or as the last entry says, after which more of its
    /// kind may come; down by halves.
    pub(super) fn saw(&mut self, read: &[Delivery]) {
        let Some(last) = read.last() else {
            return;
        };
        let (bytes, events) = size(read);
        let (last_bytes, last_events) = size(std::slice::from_ref(last));
        let bytes = last_bytes.max(bytes / read.len());
        let events = last_events.max(events / read.len());
        self.bytes = bytes.max(self.bytes / 2).max(1);
        self.events = events.max(self.events / 2).max(1);
    }
}

/// The bytes and the events of deliveries.
pub(super) fn size(deliveries: &[Delivery]) -> (usize, usize) {
    deliveries
        .iter()
        .map(|delivery| &delivery.batch.events)
        .fold((0, 0), |(bytes, events), batch| {
            (
                bytes + batch.as_bytes().len(),
                events + batch.count() as usize,
            )
        })
}

#[cfg(test)]
mod tests {
    use event::{Batch, BatchId, EncodedEvents, Partition, Timestamp};
    use uuid::Uuid;

    use super::*;
    use crate::EntryId;

    fn read(entries: usize, bytes: usize, events: u32) -> Vec<Delivery> {
        let delivery = Delivery {
            entry: EntryId {
                id: "1-1".into(),
                events: 0,
            },
            batch: Batch {
                id: BatchId(Uuid::nil()),
                received_at: Timestamp::MIN,
                events: EncodedEvents::from_parts(vec![0; bytes].into(), events),
            },
            partition: Partition::default(),
            traceparents: Vec::new(),
        };
        vec![delivery; entries]
    }

    #[test]
    fn reads_hold_about_as_many_events_as_are_wanted() {
        let mut pace = Pace::default();
        assert_eq!(pace.count(2_000), 4, "nothing is known yet");
        for _ in 0..10 {
            pace.saw(&read(4, 400, 1));
        }
        assert_eq!((pace.count(2_000), pace.count(7)), (MAX_COUNT, 7));
        pace.saw(&read(10, 40_000, 100));
        assert_eq!((pace.count(2_000), pace.count(1)), (20, 1));
    }

    #[test]
    fn a_large_entry_shortens_reads_at_once_and_small_ones_lengthen_them_again() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.saw(&read(1, 400, 1));
        }
        pace.saw(&read(1, 8 * 1024 * 1024, 1));
        assert_eq!(pace.count(2_000), 1);
        for _ in 0..30 {
            pace.saw(&read(1, 0, 0));
        }
        assert_eq!(pace.count(2_000), MAX_COUNT);
        pace.saw(&[]);
        assert_eq!(pace.count(0), 1);
    }

    #[test]
    fn each_read_that_fails_makes_the_next_one_shorter() {
        let mut pace = Pace::default();
        for _ in 0..30 {
            pace.saw(&read(1, 0, 1));
        }
        let mut counts = Vec::new();
        for _ in 0..5 {
            pace.failed();
            counts.push(pace.count(2_000));
        }
        assert_eq!(counts, [8, 4, 2, 1, 1]);
    }
}
