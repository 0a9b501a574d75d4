//! The one encoded form in which events travel and wait.
//!
//! A batch is what a gateway hands on: to the queue, where a worker finds it, or
//! straight to a store. Its identity is recorded with its events in one transaction,
//! which is how a redelivery is recognised.
//!
//! An event is, in little-endian order: the timestamp (8 bytes), the byte lengths of
//! topic, event id and source (2 each) and payload (4), then those four texts. Events
//! follow one another without a separator, so batches are joined by joining bytes.
//! The layout is version [`FORMAT`] of the queue's entries; it is never changed, a
//! new layout is a new version.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::event::hashed;
use crate::{Event, EventId, Payload, Source, Timestamp, Topic};

/// The version of the layout that this release writes, and the only one it reads.
pub const FORMAT: u8 = 1;

const HEADER: usize = 8 + 2 + 2 + 2 + 4;

/// The identity of a batch: a UUID of version 7, made where the batch is. Where nothing made
/// one (of an entry that can't be read, or of a replay) it is derived, of version 8, so that
/// what comes again has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub Uuid);

impl BatchId {
    /// The identity of what has none, from bytes that are the same whenever it comes.
    pub fn derived(from: &[u8]) -> Self {
        Self(hashed(from))
    }
}

/// Events on their way to a store, with what is common to them.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Recorded with the events, once.
    pub id: BatchId,
    /// When the gateway took them.
    pub received_at: Timestamp,
    /// The events.
    pub events: EncodedEvents,
}

/// Events in the layout above.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EncodedEvents {
    bytes: Bytes,
    count: u32,
}

/// The bytes are not what a gateway of this version writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the entry can't be decoded: {0}")]
pub struct DecodeError(&'static str);

impl EncodedEvents {
    /// Encodes events in order into parts of at most `max_bytes` each; an event that
    /// is larger alone is a part of its own.
    pub fn encode<'e>(
        events: impl IntoIterator<Item = &'e Event<'e>> + Clone,
        max_bytes: usize,
    ) -> Vec<Self> {
        let total: usize = events.clone().into_iter().map(encoded_len).sum();
        let mut parts = Vec::with_capacity(total.div_ceil(max_bytes.max(1)));
        let mut bytes = BytesMut::with_capacity(total.min(max_bytes));
        let mut count = 0;
        let mut left = total;
        for event in events {
            let len = encoded_len(event);
            if count > 0 && bytes.len() + len > max_bytes {
                let next = BytesMut::with_capacity(left.min(max_bytes));
                parts.push(Self {
                    bytes: std::mem::replace(&mut bytes, next).freeze(),
                    count,
                });
                count = 0;
            }
            put(&mut bytes, event);
            count += 1;
            left -= len;
        }
        if count > 0 {
            parts.push(Self {
                bytes: bytes.freeze(),
                count,
            });
        }
        parts
    }

    /// Encodes events in order, however many bytes they are.
    pub fn of(events: &[Event<'_>]) -> Self {
        Self::join(&Self::encode(events, usize::MAX))
    }

    /// Takes bytes that claim to hold `count` events; [`decode`](Self::decode) finds out.
    pub fn from_parts(bytes: Bytes, count: u32) -> Self {
        Self { bytes, count }
    }

    /// How many events there are said to be.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The encoded events.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same events followed by the others'.
    pub fn join<'p>(parts: impl IntoIterator<Item = &'p Self, IntoIter: Clone>) -> Self {
        let parts = parts.into_iter();
        let mut several = parts.clone();
        if let (Some(only), None) = (several.next(), several.next()) {
            return only.clone();
        }
        let len = parts.clone().map(|part| part.bytes.len()).sum();
        let mut bytes = BytesMut::with_capacity(len);
        for part in parts.clone() {
            bytes.extend_from_slice(&part.bytes);
        }
        Self {
            bytes: bytes.freeze(),
            count: parts.map(|part| part.count).sum(),
        }
    }

    /// The events, borrowed from the bytes. All or nothing: where the layout is broken,
    /// nothing after the break can be told apart.
    pub fn decode(&self) -> Result<Vec<Event<'_>>, DecodeError> {
        let mut rest: &[u8] = &self.bytes;
        let mut events = Vec::with_capacity((self.count as usize).min(rest.len() / HEADER));
        while !rest.is_empty() {
            events.push(next(&mut rest)?);
        }
        if events.len() == self.count as usize {
            Ok(events)
        } else {
            Err(DecodeError("it does not hold as many events as it says"))
        }
    }
}

fn encoded_len(event: &Event<'_>) -> usize {
    HEADER
        + event.topic.as_str().len()
        + event.event_id.as_str().len()
        + event.source.as_str().len()
        + event.payload.as_str().len()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "names have at most 255 characters, payloads at most 1 MiB"
)]
fn put(bytes: &mut BytesMut, event: &Event<'_>) {
    let (topic, id) = (event.topic.as_str(), event.event_id.as_str());
    let (source, payload) = (event.source.as_str(), event.payload.as_str());
    bytes.extend_from_slice(&event.timestamp.as_micros().to_le_bytes());
    bytes.extend_from_slice(&(topic.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&(id.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&(source.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    for text in [topic, id, source, payload] {
        bytes.extend_from_slice(text.as_bytes());
    }
}

fn next<'a>(rest: &mut &'a [u8]) -> Result<Event<'a>, DecodeError> {
    let micros = i64::from_le_bytes(array(rest)?);
    let topic_len = u16::from_le_bytes(array(rest)?).into();
    let id_len = u16::from_le_bytes(array(rest)?).into();
    let source_len = u16::from_le_bytes(array(rest)?).into();
    let payload_len = u32::from_le_bytes(array(rest)?) as usize;
    Ok(Event {
        timestamp: Timestamp::from_micros(micros)
            .ok_or(DecodeError("a timestamp is out of range"))?,
        topic: Topic::parse(text(rest, topic_len)?).map_err(|_| DecodeError("a topic is none"))?,
        event_id: EventId::parse(text(rest, id_len)?)
            .map_err(|_| DecodeError("an event id is none"))?,
        source: Source::parse(text(rest, source_len)?)
            .map_err(|_| DecodeError("a source is none"))?,
        payload: Payload::trusted(text(rest, payload_len)?),
    })
}

const SHORT: DecodeError = DecodeError("it ends in the middle of an event");

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (head, tail) = rest.split_first_chunk().ok_or(SHORT)?;
    *rest = tail;
    Ok(*head)
}

fn text<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a str, DecodeError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(SHORT)?;
    *rest = tail;
    std::str::from_utf8(head).map_err(|_| DecodeError("a text is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events `a-1` and `a-2` in version 1: so they stand in queues, and in the dead letters
    /// of stores, that earlier releases have written.
    const VERSION_1: &[u8] = b"\x00\x30\x49\xd4\xad\x49\x06\x00\
        \x06\x00\x03\x00\x04\x00\x07\x00\x00\x00ordersa-1till{\"n\":1}\
        \x00\x30\x49\xd4\xad\x49\x06\x00\
        \x06\x00\x03\x00\x04\x00\x07\x00\x00\x00ordersa-2till{\"n\":1}";

    fn event(id: &str) -> Event<'static> {
        Event {
            topic: Topic::parse("orders").unwrap(),
            event_id: EventId::parse(id.to_owned()).unwrap(),
            timestamp: Timestamp::parse("2026-01-31T12:00:00Z").unwrap(),
            source: Source::parse("till").unwrap(),
            payload: Payload::trusted(r#"{"n":1}"#),
        }
    }

    #[test]
    fn the_layout_is_that_of_every_release_before() {
        assert_eq!(FORMAT, 1);
        let events = [event("a-1"), event("a-2")];
        let stored = EncodedEvents::from_parts(Bytes::from_static(VERSION_1), 2);
        assert_eq!(stored.decode().unwrap(), events);
        assert_eq!(EncodedEvents::of(&events), stored);
    }

    #[test]
    fn parts_are_bounded_and_together_hold_every_event_in_order() {
        let events: Vec<_> = (0..100).map(|n| event(&format!("id-{n}"))).collect();
        let parts = EncodedEvents::encode(&events, 256);
        assert!(parts.len() > 10);
        assert!(parts.iter().all(|part| part.as_bytes().len() <= 256));
        assert_eq!(EncodedEvents::join(&parts).decode().unwrap(), events);
        assert_eq!(EncodedEvents::encode(&events, 1).len(), 100);
        assert!(EncodedEvents::encode(&[], 256).is_empty());
    }

    #[test]
    fn broken_bytes_are_an_error_at_every_length() {
        let whole = EncodedEvents::of(&[event("a"), event("b")]);
        for len in 0..whole.as_bytes().len() {
            let cut = EncodedEvents::from_parts(whole.as_bytes().slice(..len), 2);
            assert!(cut.decode().is_err(), "{len}");
        }
        assert!(
            EncodedEvents::from_parts(whole.as_bytes().clone(), 3)
                .decode()
                .is_err()
        );
        assert!(
            EncodedEvents::from_parts(Bytes::from_static(&[0xff; 64]), 1)
                .decode()
                .is_err()
        );
    }
}
