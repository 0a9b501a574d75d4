//! An event, what makes it the same event, and what makes it the same content.

use std::fmt;

use uuid::{Uuid, Variant};

use crate::{EventId, Payload, Source, Timestamp, Topic};

/// Something that happened, as its sender tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// With the event id, the event's key.
    pub topic: Topic<'a>,
    /// Unique within the topic.
    pub event_id: EventId<'a>,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Who says so.
    pub source: Source<'a>,
    /// What happened.
    pub payload: Payload<'a>,
}

impl Event<'_> {
    /// The event id in the 16 bytes under which it is stored.
    pub fn key(&self) -> Key {
        Key::of(&self.event_id)
    }

    /// The content in 16 bytes: equal for a resend, different for a conflict.
    pub fn digest(&self) -> Digest {
        Digest::of(self)
    }
}

/// An event id in 16 bytes: the id itself where it is a UUID of version 1 to 7 in
/// canonical form, so that time-ordered ids keep their order in the index;
/// otherwise the first 128 bits of its BLAKE3 hash marked as a UUID of version 8
/// ([RFC 9562](https://www.rfc-editor.org/rfc/rfc9562#section-5.8)). The two never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Uuid);

impl Key {
    /// The key of an id.
    pub fn of(event_id: &EventId<'_>) -> Self {
        let text = event_id.as_str();
        Self(canonical_uuid(text).unwrap_or_else(|| hashed(text.as_bytes())))
    }

    /// As the UUID that the stores keep.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for Key {
    /// What a store gave back.
    fn from(stored: Uuid) -> Self {
        Self(stored)
    }
}

/// The UUID that `text` is, if it is written in the one canonical way and is of a
/// version whose bits hold no hash of ours.
fn canonical_uuid(text: &str) -> Option<Uuid> {
    if text.len() != 36 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let uuid = Uuid::try_parse(text).ok()?;
    let versioned =
        uuid.get_variant() == Variant::RFC4122 && (1..=7).contains(&uuid.get_version_num());
    versioned.then_some(uuid)
}

/// The first 128 bits of a BLAKE3 hash, marked as a UUID of version 8.
pub(crate) fn hashed(bytes: &[u8]) -> Uuid {
    uuid::Builder::from_custom_bytes(first_128_bits(blake3::hash(bytes))).into_uuid()
}

fn first_128_bits(hash: blake3::Hash) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    bytes
}

/// 128 bits of BLAKE3 over event id, timestamp, source and compact payload: it
/// takes some 2^64 tries to make two contents that look like a resend.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 16]);

impl Digest {
    fn of(event: &Event<'_>) -> Self {
        let mut hasher = blake3::Hasher::new();
        // Lengths first, so that no two contents run together into the same bytes.
        let (id, source) = (event.event_id.as_str(), event.source.as_str());
        hasher.update(&(id.len() as u64).to_le_bytes());
        hasher.update(&(source.len() as u64).to_le_bytes());
        hasher.update(&event.timestamp.as_micros().to_le_bytes());
        hasher.update(id.as_bytes());
        hasher.update(source.as_bytes());
        hasher.update(event.payload.as_str().as_bytes());
        Self(first_128_bits(hasher.finalize()))
    }

    /// As the UUID-sized value that the stores keep; it is not a UUID.
    pub fn as_uuid(self) -> Uuid {
        Uuid::from_bytes(self.0)
    }
}

impl From<Uuid> for Digest {
    /// What a store gave back.
    fn from(stored: Uuid) -> Self {
        Self(stored.into_bytes())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:x})", self.as_uuid().simple())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Form, body};

    fn key(id: &str) -> Uuid {
        Key::of(&EventId::parse(id).expect("the case is an id")).as_uuid()
    }

    #[test]
    fn a_canonical_uuid_is_its_own_key() {
        for id in [
            "018f3e2a-7c1b-7def-8abc-0123456789ab",
            "c232ab00-9414-11ec-b3c8-9f6bdeced846",
        ] {
            assert_eq!(key(id).to_string(), id);
        }
    }

    #[test]
    fn any_other_id_is_hashed_into_version_8() {
        for id in [
            "order-1",
            "018F3E2A-7C1B-7DEF-8ABC-0123456789AB",
            "018f3e2a7c1b7def8abc0123456789ab",
            "018f3e2a-7c1b-8def-8abc-0123456789ab",
            "018f3e2a-7c1b-7def-0abc-0123456789ab",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert_eq!(key(id).get_version_num(), 8, "{id}");
            assert_ne!(key(id).to_string(), id);
        }
    }

    /// Another key for an id that is stored, and it is stored a second time.
    #[test]
    fn an_id_is_hashed_as_by_every_release_before() {
        let stored = "131ba1a0-efe8-8eb4-af0c-5037de234611";
        assert_eq!(key("order-1").to_string(), stored);
    }

    const SENT: &str = r#"{"topic":"t","event_id":"a","timestamp":"2026-01-31T12:00:00Z","source":"s","payload":{"n":1}}"#;

    fn digest(body: &str) -> Digest {
        let parsed = body::parse(body.as_bytes(), Form::Json).expect("the case is well formed");
        parsed.events[0].digest()
    }

    /// Another digest of what is stored, and each resend of it is a conflict.
    #[test]
    fn content_is_digested_as_by_every_release_before() {
        let stored = 0x5732_ee17_9644_61b9_8691_4cbd_201a_47bb;
        assert_eq!(digest(SENT).as_uuid().as_u128(), stored);
    }

    #[test]
    fn a_reformatted_resend_has_the_same_digest_and_other_content_has_not() {
        let reformatted = r#"{"payload": {"n" : 1}, "source":"\u0073", "timestamp":"2026-01-31T13:00:00+01:00",
                              "event_id":"a","topic":"t","extra":[]}"#;
        assert_eq!(digest(SENT), digest(reformatted));
        for (from, to) in [
            ("\"n\":1", "\"n\":1.0"),
            (":00Z", ":01Z"),
            ("\"s\"", "\"s2\""),
            ("\"a\"", "\"b\""),
        ] {
            assert_ne!(
                digest(SENT),
                digest(&SENT.replace(from, to)),
                "{from} to {to}"
            );
        }
    }
}
