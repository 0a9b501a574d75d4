//! From an [`Item`] to the bytes of an event, and from an event id back to its key.
//!
//! Everything is written by hand into one buffer: the load must cost less than what it
//! measures. What is written is meant to be awkward: identifiers of every form, the same
//! instant in other zones, escapes, NUL and numbers of thirty digits in payloads.
//!
//! A payload begins with the position that its content follows from, and an event id holds
//! the position of its key: so whoever reads an event back can say from the event alone
//! what it must look like.

pub(crate) mod fault;
mod ids;
mod payload;
mod time;

use bytes::{BufMut as _, BytesMut};

use crate::draw::{For, Seed};
use crate::plan::Item;
use fault::Fault;
pub(crate) use ids::IdForm;
use ids::Ids;
pub(crate) use payload::{MAX_BYTES as MAX_PAYLOAD, MIN_BYTES as MIN_PAYLOAD};
use time::Calendar;

/// Writes the events of a run.
#[derive(Debug, Clone)]
pub(crate) struct Maker {
    seed: Seed,
    topics: Vec<String>,
    ids: Ids,
    calendar: Calendar,
    payload_bytes: usize,
}

/// What an event is made of, for whoever compares one that was read back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expected<'a> {
    pub(crate) topic: usize,
    pub(crate) event_id: &'a str,
    pub(crate) micros: i64,
    pub(crate) source: &'static str,
    pub(crate) payload: &'a str,
}

/// Who says that it happened.
const SOURCES: [&str; 8] = [
    "till-1",
    "till-2",
    "web",
    "mobile app",
    "gudang/Jakarta",
    "caf\u{e9}",
    "sensor \u{2602}",
    "back-office",
];

impl Maker {
    pub(crate) fn new(seed: Seed, topics: Vec<String>, form: IdForm, payload_bytes: usize) -> Self {
        let calendar = Calendar::new(seed);
        Self {
            seed,
            topics,
            ids: Ids::new(seed, form, calendar),
            calendar,
            payload_bytes,
        }
    }

    /// The names of the run's topics.
    pub(crate) fn topics(&self) -> &[String] {
        &self.topics
    }

    /// The topic of a key, as an index into [`topics`](Self::topics).
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the remainder is less than a length"
    )]
    pub(crate) fn topic_of(&self, key: u64) -> usize {
        (self.seed.draw(For::Topic, key) % self.topics.len() as u64) as usize
    }

    /// The key that an event id of this run was made from; none if it can't be one. An id
    /// that only looks like one gives a key whose id is another.
    pub(crate) fn key_of(&self, event_id: &str) -> Option<u64> {
        self.ids.key_of(event_id)
    }

    /// The version that a payload of this run was made from.
    pub(crate) fn version_of(payload: &str) -> Option<u64> {
        payload::version_of(payload)
    }

    /// What an item looks like. `scratch` holds its texts.
    pub(crate) fn expected<'a>(&self, item: Item, scratch: &'a mut BytesMut) -> Expected<'a> {
        scratch.clear();
        self.ids.write(item.key, scratch);
        let id_len = scratch.len();
        payload::write(self.seed, item.version, self.payload_bytes, scratch);
        let text = std::str::from_utf8(scratch).expect("only whole characters were written");
        let (event_id, payload) = text.split_at(id_len);
        Expected {
            topic: self.topic_of(item.key),
            event_id,
            micros: self.calendar.micros(item.version),
            source: self.source(item.version),
            payload,
        }
    }

    /// Appends an item as a JSON object.
    pub(crate) fn write(&self, item: Item, out: &mut BytesMut) {
        // So that what follows never grows the buffer piece by piece.
        out.reserve(self.payload_bytes + 512);
        out.put_slice(b"{\"topic\":\"");
        out.put_slice(self.topics[self.topic_of(item.key)].as_bytes());
        out.put_slice(b"\",\"event_id\":\"");
        self.ids.write(item.key, out);
        out.put_slice(b"\",\"timestamp\":\"");
        self.calendar.write(item.version, out);
        out.put_slice(b"\",\"source\":\"");
        out.put_slice(self.source(item.version).as_bytes());
        out.put_slice(b"\",\"payload\":");
        payload::write(self.seed, item.version, self.payload_bytes, out);
        out.put_slice(b"}");
    }

    /// Appends what looks like the item and is no event.
    pub(crate) fn write_broken(&self, item: Item, fault: Fault, out: &mut BytesMut) {
        let mut whole = BytesMut::new();
        self.write(item, &mut whole);
        let whole = std::str::from_utf8(&whole).expect("only whole characters were written");
        out.put_slice(fault.break_event(whole).as_bytes());
    }

    fn source(&self, version: u64) -> &'static str {
        let draw = self.seed.draw(For::Content, version) >> 32;
        SOURCES[(draw % SOURCES.len() as u64) as usize]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use event::{Form, body};

    use super::*;

    pub(crate) fn maker(form: IdForm) -> Maker {
        let topics = (0..4).map(|n| format!("run-7-{n}")).collect();
        Maker::new(Seed(7), topics, form, 300)
    }

    const FORMS: [IdForm; 3] = [IdForm::V4, IdForm::V7, IdForm::Text];

    fn item(key: u64, version: u64) -> Item {
        Item { key, version }
    }

    #[test]
    fn what_is_written_is_an_event_and_the_one_expected() {
        let (mut body, mut scratch) = (BytesMut::new(), BytesMut::new());
        for form in FORMS {
            let maker = maker(form);
            for key in 0..300 {
                let item = item(key, key + key % 2);
                body.clear();
                maker.write(item, &mut body);
                let parsed = body::parse(&body, Form::Json).unwrap();
                assert_eq!(parsed.refusals, []);
                let event = &parsed.events[0];
                let expected = maker.expected(item, &mut scratch);
                assert_eq!(event.topic.as_str(), maker.topics()[expected.topic]);
                assert_eq!(event.event_id.as_str(), expected.event_id);
                assert_eq!(event.timestamp.as_micros(), expected.micros);
                assert_eq!(event.source.as_str(), expected.source);
                assert_eq!(event.payload.as_str(), expected.payload);
                assert_eq!(maker.key_of(expected.event_id), Some(key));
                assert_eq!(Maker::version_of(expected.payload), Some(item.version));
            }
        }
    }

    #[test]
    fn a_resend_is_the_same_bytes_and_a_conflict_the_same_key_with_other_content() {
        let maker = maker(IdForm::V4);
        let write = |item| {
            let mut out = BytesMut::new();
            maker.write(item, &mut out);
            out
        };
        assert_eq!(write(item(5, 5)), write(item(5, 5)));
        let (original, conflict) = (write(item(5, 5)), write(item(5, 9)));
        let original = body::parse(&original, Form::Json).unwrap();
        let conflict = body::parse(&conflict, Form::Json).unwrap();
        let (original, conflict) = (&original.events[0], &conflict.events[0]);
        assert_eq!(original.topic, conflict.topic);
        assert_eq!(original.key(), conflict.key());
        assert_ne!(original.digest(), conflict.digest());
    }

    #[test]
    fn every_topic_gets_its_share() {
        let maker = maker(IdForm::V4);
        let mut counts = [0; 4];
        for key in 0..10_000 {
            counts[maker.topic_of(key)] += 1;
        }
        assert!(
            counts.iter().all(|n| (2_300..2_700).contains(n)),
            "{counts:?}"
        );
    }
}
