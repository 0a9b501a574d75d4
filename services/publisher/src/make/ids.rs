//! Event ids, each of which holds the position of its key.

use std::io::Write as _;

use bytes::{BufMut as _, BytesMut};
use uuid::{Uuid, Variant};

use super::time::Calendar;
use crate::draw::{For, Seed, Shuffle};

/// See `--ids`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum IdForm {
    /// Random UUIDs, as most senders make them: hard on an index.
    V4,
    /// Time-ordered UUIDs.
    V7,
    /// Text that is no UUID.
    Text,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    seed: Seed,
    form: IdForm,
    calendar: Calendar,
    shuffle: Shuffle,
}

/// The bits of a UUID below its variant: all that a v7 leaves to chance within a
/// millisecond. The position is hidden in them.
const LOW_BITS: u32 = 62;
const LOW_MASK: u64 = (1 << LOW_BITS) - 1;
const VARIANT: u128 = 0b10 << LOW_BITS;

const TEXT_PREFIX: &str = "order-";

impl Ids {
    pub(super) fn new(seed: Seed, form: IdForm, calendar: Calendar) -> Self {
        Self {
            seed,
            form,
            calendar,
            shuffle: Shuffle::new(seed),
        }
    }

    pub(super) fn write(self, key: u64, out: &mut BytesMut) {
        match self.form {
            IdForm::V4 => write_uuid(self.v4(key), out),
            IdForm::V7 => write_uuid(self.v7(key), out),
            IdForm::Text => {
                let check = self.seed.draw(For::Id, key) >> 32;
                write!(out.writer(), "{TEXT_PREFIX}{key}-{check:08x}").expect("a buffer takes all");
            }
        }
    }

    pub(super) fn key_of(self, event_id: &str) -> Option<u64> {
        if self.form == IdForm::Text {
            let (key, _check) = event_id.strip_prefix(TEXT_PREFIX)?.split_once('-')?;
            return key.parse().ok();
        }
        let uuid = Uuid::try_parse(event_id).ok()?;
        let (_, low) = uuid.as_u64_pair();
        (uuid.get_variant() == Variant::RFC4122).then(|| self.shuffle.find(low & LOW_MASK))
    }

    fn v4(self, key: u64) -> Uuid {
        let random = self.seed.draw(For::Id, key) & !0xf000;
        self.uuid(random | 0x4000, key)
    }

    /// The milliseconds of the run's calendar, and what is left below one in the twelve
    /// bits after the version, as RFC 9562 suggests (section 6.2, method 3): so the ids of
    /// one run are in the order of their keys.
    fn v7(self, key: u64) -> Uuid {
        let micros = self.calendar.clock(key).cast_unsigned();
        let below = micros % 1_000 * 4_096 / 1_000;
        self.uuid((micros / 1_000) << 16 | 0x7000 | below, key)
    }

    fn uuid(self, high: u64, key: u64) -> Uuid {
        let low = u128::from(self.shuffle.hide(key & LOW_MASK));
        Uuid::from_u128(u128::from(high) << 64 | VARIANT | low)
    }
}

fn write_uuid(uuid: Uuid, out: &mut BytesMut) {
    let mut text = Uuid::encode_buffer();
    out.put_slice(uuid.hyphenated().encode_lower(&mut text).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(form: IdForm) -> Vec<String> {
        let ids = Ids::new(Seed(7), form, Calendar::new(Seed(7)));
        let write = |key| {
            let mut out = BytesMut::new();
            ids.write(key, &mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        (0..1_000).map(write).collect()
    }

    #[test]
    fn ids_are_of_the_form_that_was_asked_for() {
        for (form, version) in [(IdForm::V4, 4), (IdForm::V7, 7)] {
            for id in ids(form) {
                let uuid = Uuid::try_parse(&id).unwrap();
                assert_eq!(uuid.get_version_num(), version, "{id}");
                assert_eq!(uuid.get_variant(), Variant::RFC4122, "{id}");
            }
        }
        assert!(
            ids(IdForm::Text)
                .iter()
                .all(|id| Uuid::try_parse(id).is_err())
        );
    }

    #[test]
    fn v7_ids_are_in_the_order_of_their_keys_and_v4_ids_are_not() {
        assert!(ids(IdForm::V7).is_sorted());
        assert!(!ids(IdForm::V4).is_sorted());
    }

    #[test]
    fn no_two_keys_share_an_id() {
        for form in [IdForm::V4, IdForm::V7, IdForm::Text] {
            let mut ids = ids(form);
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), 1_000);
        }
    }

    #[test]
    fn what_is_no_id_of_a_run_has_no_key() {
        for form in [IdForm::V4, IdForm::Text] {
            let ids = Ids::new(Seed(7), form, Calendar::new(Seed(7)));
            for text in [
                "",
                "order-",
                "order-x-1",
                "00000000-0000-0000-0000-000000000000",
            ] {
                assert_eq!(ids.key_of(text), None, "{text}");
            }
        }
    }
}
