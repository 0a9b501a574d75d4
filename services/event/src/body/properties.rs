//! What holds of a body, whatever bytes it is made of: for the tests, and for the fuzz
//! target that looks for bytes of which it does not.

use super::{Form, MAX_REFUSALS, Parsed, detail, parse, quick_json};
use crate::{EncodedEvents, Event};

/// Panics if something does not hold of a body of these bytes.
pub fn hold_of(bytes: &[u8]) {
    for form in [Form::Json, Form::Ndjson] {
        let Ok(parsed) = parse(bytes, form) else {
            continue;
        };
        let Parsed {
            events,
            refusals,
            refused,
        } = parsed;
        assert_eq!(refusals.is_empty(), refused == 0, "{refusals:?}");
        assert!(refusals.len() <= MAX_REFUSALS);
        let encoded = EncodedEvents::join(&EncodedEvents::encode(&events, 512));
        assert_eq!(encoded.decode().expect("it was just encoded"), events);
        for event in events {
            let text = written(&event);
            let again = parse(text.as_bytes(), Form::Json).expect("an event is JSON");
            assert_eq!(again.events, [event], "{text}");
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        readings_agree(text);
    }
}

/// What the quick reading takes the slow one takes as well; of an array, the other way round
/// too. (An envelope whose first member is another is always read slowly.)
fn readings_agree(text: &str) {
    match (quick_json(text), detail::json(text)) {
        (Some(quick), slow) => {
            let slow = slow.expect("the quick reading took it");
            assert_eq!((slow.refused, slow.events), (0, quick.events));
        }
        (None, Ok(slow)) if text.trim_start().starts_with('[') => {
            assert!(slow.refused > 0, "only the quick reading refuses it");
        }
        (None, _) => {}
    }
}

/// An event as an answer gives it.
fn written(event: &Event<'_>) -> String {
    let text = |text: &str| serde_json::Value::from(text);
    format!(
        r#"{{"topic":{},"event_id":{},"timestamp":"{}","source":{},"payload":{}}}"#,
        text(event.topic.as_str()),
        text(event.event_id.as_str()),
        event.timestamp,
        text(event.source.as_str()),
        event.payload.as_str(),
    )
}
