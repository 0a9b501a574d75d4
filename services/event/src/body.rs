//! From the bytes of a request to events, or to the reasons why not.
//!
//! A body that is all valid is read in one pass that borrows from it. Only when
//! that fails is it read again, slowly, to tell the sender which item and field is
//! wrong: [`detail`] holds that second reading. Both accept the same bodies, which
//! a property test holds them to.

mod detail;
#[cfg(any(test, feature = "fuzz"))]
pub mod properties;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::{Event, EventId, Payload, Source, Timestamp, Topic};

/// The most events in one request. At some 300 bytes each that is a third of the
/// default body limit; past it a sender gains nothing and a failed request costs more.
pub const MAX_EVENTS: usize = 10_000;

/// The most reasons that one answer lists: enough to see the pattern.
pub const MAX_REFUSALS: usize = 100;

/// How the bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One event, an array of events, or `{"events": [...]}`.
    Json,
    /// One event a line; blank lines mean nothing.
    Ndjson,
}

/// What a body held.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// The valid events, in order.
    pub events: Vec<Event<'a>>,
    /// Why the others are none, in order; at most [`MAX_REFUSALS`].
    pub refusals: Vec<Refusal>,
    /// How many items were no events.
    pub refused: usize,
}

impl Parsed<'_> {
    /// Refuses further events for a reason that only the caller can know.
    pub fn refuse_where(
        &mut self,
        field: &'static str,
        reason: impl Fn(&Event<'_>) -> Option<String>,
    ) {
        // What was refused before has left no event behind. Where not all of that is
        // listed, the list is full, and no index is needed any more.
        let before: BTreeSet<usize> = self.refusals.iter().map(|refusal| refusal.index).collect();
        let mut indices = (0..).filter(|index| !before.contains(index));
        let (refusals, refused) = (&mut self.refusals, &mut self.refused);
        self.events.retain(|event| {
            let index = indices.next().expect("the natural numbers don't end");
            let Some(message) = reason(event) else {
                return true;
            };
            *refused += 1;
            if refusals.len() < MAX_REFUSALS {
                refusals.push(Refusal {
                    index,
                    field: Some(field),
                    message,
                });
            }
            false
        });
        self.refusals.sort_by_key(|refusal| refusal.index);
    }
}

/// One thing that is wrong with one item.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    /// The item, counted from 0.
    pub index: usize,
    /// The event's member at fault, if it is one.
    pub field: Option<&'static str>,
    /// What to change.
    pub message: String,
}

/// Why a body could not be taken apart into items at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not UTF-8, not JSON, or neither an object nor an array.
    #[error("{0}")]
    Malformed(String),
    /// More than [`MAX_EVENTS`].
    #[error("the body holds more than {MAX_EVENTS} events; send them in several requests")]
    TooMany,
}

/// Reads a body. An empty array, or no lines, are no events.
pub fn parse(body: &[u8], form: Form) -> Result<Parsed<'_>, BodyError> {
    // Once for the whole body, rather than again for each string in it.
    let text = std::str::from_utf8(body).map_err(|error| {
        BodyError::Malformed(format!(
            "the body is not valid UTF-8 at byte {}",
            error.valid_up_to()
        ))
    })?;
    match form {
        Form::Json => quick_json(text).map_or_else(|| detail::json(text), Ok),
        Form::Ndjson => ndjson(text),
    }
}

/// The whole body, if every item of it is an event.
fn quick_json(text: &str) -> Option<Parsed<'_>> {
    let items = match text.trim_start().as_bytes().first()? {
        b'[' => serde_json::from_str::<Bounded<Object<Wire<'_>>>>(text).ok()?,
        _ if starts_with_events(text) => serde_json::from_str::<Envelope<'_>>(text).ok()?.events,
        _ => Bounded {
            items: vec![serde_json::from_str(text).ok()?],
            overflow: false,
        },
    };
    if items.overflow {
        return None;
    }
    let events = items
        .items
        .into_iter()
        .map(|Object(wire)| wire.validate())
        .collect::<Option<Vec<_>>>()?;
    Some(Parsed {
        events,
        refusals: Vec::new(),
        refused: 0,
    })
}

/// Whether the first member is `events`: then it is tried as an envelope first.
fn starts_with_events(text: &str) -> bool {
    text.trim_start()
        .strip_prefix('{')
        .is_some_and(|rest| rest.trim_start().starts_with("\"events\""))
}

fn ndjson(text: &str) -> Result<Parsed<'_>, BodyError> {
    let mut parsed = Parsed {
        events: Vec::new(),
        refusals: Vec::new(),
        refused: 0,
    };
    for (number, line) in text.split('\n').enumerate() {
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() {
            continue;
        }
        let index = parsed.events.len() + parsed.refused;
        if index == MAX_EVENTS {
            return Err(BodyError::TooMany);
        }
        let quick = serde_json::from_str(line).ok();
        if let Some(event) = quick.and_then(|Object(wire): Object<Wire<'_>>| wire.validate()) {
            parsed.events.push(event);
            continue;
        }
        match detail::line(line, number + 1) {
            Ok(event) => parsed.events.push(event),
            Err(faults) => parsed.refuse(index, faults),
        }
    }
    Ok(parsed)
}

impl Parsed<'_> {
    fn refuse(&mut self, index: usize, faults: Vec<detail::Fault>) {
        self.refused += 1;
        let room = MAX_REFUSALS - self.refusals.len();
        self.refusals.extend(
            faults
                .into_iter()
                .take(room)
                .map(|(field, message)| Refusal {
                    index,
                    field,
                    message,
                }),
        );
    }
}

/// An event as it stands in a body. Unknown members are ignored, repeated ones are not.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl<'a> Wire<'a> {
    fn validate(self) -> Option<Event<'a>> {
        Some(Event {
            topic: Topic::parse(self.topic).ok()?,
            event_id: EventId::parse(self.event_id).ok()?,
            timestamp: Timestamp::parse(&self.timestamp).ok()?,
            source: Source::parse(self.source).ok()?,
            payload: Payload::from_json(self.payload).ok()?,
        })
    }
}

/// An object with this one member. One with further members may be an event, whose `events`
/// mean nothing: the slow reading, which sees all of them, tells.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    events: Bounded<Object<Wire<'a>>>,
}

/// What is read from a JSON object only: a struct's own reading takes an array of its members'
/// values as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// An array of at most [`MAX_EVENTS`]: what is beyond is skipped, not collected, so
/// that eight megabytes of `1,1,1` do not become a hundred of items.
struct Bounded<T> {
    items: Vec<T>,
    overflow: bool,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

struct BoundedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedVisitor<T> {
    type Value = Bounded<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bounded<T>, A::Error> {
        let mut items = Vec::new();
        while items.len() < MAX_EVENTS {
            match seq.next_element()? {
                Some(item) => items.push(item),
                None => {
                    return Ok(Bounded {
                        items,
                        overflow: false,
                    });
                }
            }
        }
        let mut overflow = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            overflow = true;
        }
        Ok(Bounded { items, overflow })
    }
}

#[cfg(test)]
mod tests;
