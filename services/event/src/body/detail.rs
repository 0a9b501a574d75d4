//! The slow reading: every fault of every item, in words for its sender.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{BodyError, Bounded, Parsed};
use crate::{Event, EventId, Payload, Source, Timestamp, Topic};

/// The member at fault, if it is one, and what to change.
pub(super) type Fault = (Option<&'static str>, String);

pub(super) fn json(text: &str) -> Result<Parsed<'_>, BodyError> {
    if text.trim_ascii().is_empty() {
        let message = "the body is empty; send an event, an array of events, or [] for none";
        return Err(BodyError::Malformed(message.into()));
    }
    let body: &RawValue = serde_json::from_str(text)
        .map_err(|error| BodyError::Malformed(format!("the body is not JSON: {error}")))?;
    let items = match kind(body) {
        "array" => array(body)?,
        "object" => match envelope(body) {
            Some(events) if kind(events) == "array" => array(events)?,
            Some(_) => return Err(BodyError::Malformed("`events` must be an array".into())),
            None => vec![body],
        },
        other => {
            let message = format!(
                "the body must be an event, an array of events or {{\"events\": [...]}}, not a {other}"
            );
            return Err(BodyError::Malformed(message));
        }
    };
    let mut parsed = Parsed {
        events: Vec::with_capacity(items.len()),
        refusals: Vec::new(),
        refused: 0,
    };
    for (index, item) in items.into_iter().enumerate() {
        match event(item) {
            Ok(event) => parsed.events.push(event),
            Err(faults) => parsed.refuse(index, faults),
        }
    }
    Ok(parsed)
}

/// One line of NDJSON; lines are counted from 1.
pub(super) fn line(text: &str, number: usize) -> Result<Event<'_>, Vec<Fault>> {
    let item: &RawValue = serde_json::from_str(text).map_err(|error| {
        let (column, why) = (error.column(), why(&error));
        let message = format!("line {number} is not JSON at column {column}: {why}");
        vec![(None, message)]
    })?;
    event(item)
}

/// What is wrong, without the line and column, which count from where the reading began.
fn why(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rsplit_once(" at line ") {
        Some((why, _)) => why.to_owned(),
        None => message,
    }
}

fn array(value: &RawValue) -> Result<Vec<&RawValue>, BodyError> {
    let items: Bounded<&RawValue> = serde_json::from_str(value.get())
        .map_err(|error| BodyError::Malformed(format!("the body is not JSON: {error}")))?;
    if items.overflow {
        Err(BodyError::TooMany)
    } else {
        Ok(items.items)
    }
}

/// The value of `events`, in an object that has it and is no event itself.
fn envelope(object: &RawValue) -> Option<&RawValue> {
    let members: Members<'_> = serde_json::from_str(object.get()).ok()?;
    let is_event = !matches!(
        (&members.topic, &members.event_id),
        (Member::Missing, Member::Missing)
    );
    match members.events {
        Member::Once(events) if !is_event => Some(events),
        _ => None,
    }
}

/// What kind of JSON value a well-formed text is.
fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

fn event(item: &RawValue) -> Result<Event<'_>, Vec<Fault>> {
    if kind(item) != "object" {
        return Err(vec![(
            None,
            format!("an event must be a JSON object, not a {}", kind(item)),
        )]);
    }
    let members: Members<'_> = serde_json::from_str(item.get())
        .map_err(|error| vec![(None, format!("the event can't be read: {}", why(&error)))])?;
    let mut faults = Vec::new();
    let topic = take(
        &mut faults,
        "topic",
        text("topic", &members.topic, Topic::parse),
    );
    let event_id = take(
        &mut faults,
        "event_id",
        text("event_id", &members.event_id, EventId::parse),
    );
    let timestamp = take(
        &mut faults,
        "timestamp",
        text("timestamp", &members.timestamp, |text| {
            Timestamp::parse(&text)
        }),
    );
    let source = take(
        &mut faults,
        "source",
        text("source", &members.source, Source::parse),
    );
    let payload = take(
        &mut faults,
        "payload",
        members
            .payload
            .get("payload")
            .and_then(|raw| Payload::from_json(raw).map_err(|error| says("payload", error))),
    );
    match (topic, event_id, timestamp, source, payload) {
        (Some(topic), Some(event_id), Some(timestamp), Some(source), Some(payload)) => Ok(Event {
            topic,
            event_id,
            timestamp,
            source,
            payload,
        }),
        _ => Err(faults),
    }
}

fn take<T>(faults: &mut Vec<Fault>, field: &'static str, result: Result<T, String>) -> Option<T> {
    result
        .map_err(|message| faults.push((Some(field), message)))
        .ok()
}

fn says(field: &str, error: impl fmt::Display) -> String {
    format!("`{field}` {error}")
}

fn text<T, E: fmt::Display>(
    field: &str,
    member: &Member<'_>,
    parse: impl FnOnce(String) -> Result<T, E>,
) -> Result<T, String> {
    let raw = member.get(field)?;
    if kind(raw) != "string" {
        return Err(says(
            field,
            format_args!("must be a string, not a {}", kind(raw)),
        ));
    }
    let text = serde_json::from_str::<String>(raw.get()).map_err(|_| {
        says(
            field,
            "holds an escape that is no character, such as half of a surrogate pair",
        )
    })?;
    parse(text).map_err(|error| says(field, error))
}

/// A member of an object as the body has it.
#[derive(Default)]
enum Member<'a> {
    #[default]
    Missing,
    Once(&'a RawValue),
    Repeated,
}

impl<'a> Member<'a> {
    fn put(&mut self, value: &'a RawValue) {
        *self = match self {
            Self::Missing => Self::Once(value),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }

    fn get(&self, field: &str) -> Result<&'a RawValue, String> {
        match self {
            Self::Once(value) => Ok(value),
            Self::Missing => Err(says(field, "is missing")),
            Self::Repeated => Err(says(field, "must not be given twice")),
        }
    }
}

#[derive(Default)]
struct Members<'a> {
    topic: Member<'a>,
    event_id: Member<'a>,
    timestamp: Member<'a>,
    source: Member<'a>,
    payload: Member<'a>,
    events: Member<'a>,
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value::<&RawValue>()?;
            match name.as_str() {
                "topic" => members.topic.put(value),
                "event_id" => members.event_id.put(value),
                "timestamp" => members.timestamp.put(value),
                "source" => members.source.put(value),
                "payload" => members.payload.put(value),
                "events" => members.events.put(value),
                _ => {}
            }
        }
        Ok(members)
    }
}
