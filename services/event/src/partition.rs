//! Which events may meet the same key.
//!
//! Two transactions that insert one key at one time wait for each other until the first
//! has committed. Resends come soon after their originals, so without more ado nearly any
//! two deliveries would share a key, and two workers would take turns. Instead, a gateway
//! sorts events into a few partitions by their key: those of different partitions are
//! recorded at the same time and never wait. It saves work and decides nothing: an event
//! in the wrong partition is stored once all the same.

use crate::Event;

/// One of [`Partition::COUNT`] parts of all events; the copies of a key are in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Partition(u8);

impl Partition {
    /// How many there are. Each is a transaction and a connection of a worker: more keep
    /// more cores of a database busy, with fewer events, and so more syncs, in each.
    pub const COUNT: usize = 4;

    /// Where an event belongs. Releases may differ here: it costs waits and no more.
    pub fn of(event: &Event<'_>) -> Self {
        let (high, low) = event.key().as_uuid().as_u64_pair();
        // The top bits of a product with the golden ratio depend on all bits below, wherever
        // in a UUID its version counts (Knuth, The Art of Computer Programming 3, 6.4).
        let spread = high.wrapping_add(low).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self::from_number(u32::try_from(spread >> 40).expect("24 bits are left"))
    }

    /// The one of a number; those beyond the last begin anew.
    pub fn from_number(number: u32) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "less than the number of partitions"
        )]
        Self((number % Self::COUNT as u32) as u8)
    }

    /// Its number, from 0.
    pub fn number(self) -> usize {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Form, body};

    fn partition(id: &str) -> usize {
        let body = format!(
            r#"{{"topic":"t","event_id":"{id}","timestamp":"2026-01-31T12:00:00Z","source":"s","payload":{{}}}}"#
        );
        let parsed = body::parse(body.as_bytes(), Form::Json).unwrap();
        Partition::of(&parsed.events[0]).number()
    }

    #[test]
    fn ids_of_every_form_are_spread_over_all_partitions() {
        let forms: [fn(u32) -> String; 3] = [
            |n| format!("order-{n}"),
            // Version 1, of one node: all but its beginning is the same.
            |n| format!("{n:08x}-9414-11ec-b3c8-9f6bdeced846"),
            |n| format!("018f3e2a-7c1b-7{:03x}-8abc-{n:012x}", n % 4096),
        ];
        for form in forms {
            let mut counts = [0; Partition::COUNT];
            for n in 0..4_000 {
                counts[partition(&form(n))] += 1;
            }
            assert!(
                counts.iter().all(|count| (700..1_300).contains(count)),
                "{counts:?}"
            );
        }
    }
}
