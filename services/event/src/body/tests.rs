use proptest::prelude::*;

use super::*;
use crate::EncodedEvents;

const EVENT: &str = r#"{"topic":"t","event_id":"a","timestamp":"2026-01-31T12:00:00Z","source":"s","payload":{"n":1}}"#;

fn refusals(body: &str, form: Form) -> Vec<(usize, Option<&'static str>, String)> {
    let parsed = parse(body.as_bytes(), form).expect("the case can be taken apart");
    parsed
        .refusals
        .into_iter()
        .map(|refusal| (refusal.index, refusal.field, refusal.message))
        .collect()
}

fn count(body: &str) -> usize {
    let parsed = parse(body.as_bytes(), Form::Json).expect("the case can be taken apart");
    assert_eq!(parsed.refused, 0, "{:?}", parsed.refusals);
    parsed.events.len()
}

#[test]
fn every_form_of_body_is_read() {
    assert_eq!(count(EVENT), 1);
    assert_eq!(count(&format!(" [{EVENT},\n{EVENT}] ")), 2);
    assert_eq!(count("[]"), 0);
    assert_eq!(count(&format!(r#"{{"events":[{EVENT}]}}"#)), 1);
    assert_eq!(count(&format!(r#"{{"note":1,"events":[{EVENT}]}}"#)), 1);
    assert_eq!(count(&format!(r#"{{"events":[{EVENT}],"note":1}}"#)), 1);
    for events in ["[1]", "[]", &format!("[{EVENT},{EVENT}]")] {
        let event = EVENT.replacen('{', &format!(r#"{{"events":{events},"#), 1);
        let parsed = parse(event.as_bytes(), Form::Json).unwrap();
        assert_eq!((parsed.events.len(), parsed.refused), (1, 0), "{event}");
        assert_eq!(parsed.events[0].payload.as_str(), r#"{"n":1}"#, "{event}");
    }
    let lines = format!("{EVENT}\r\n\n{EVENT}");
    let parsed = parse(lines.as_bytes(), Form::Ndjson).unwrap();
    assert_eq!(parsed.events.len(), 2);
}

#[test]
fn each_fault_names_its_item_and_field() {
    let second = |event: &str| refusals(&format!("[{EVENT},{event}]"), Form::Json);
    for (from, to, field, message) in [
        (r#""topic":"t","#, "", "topic", "`topic` is missing"),
        (r#""t""#, r#""""#, "topic", "`topic` must not be empty"),
        (
            r#""t""#,
            "null",
            "topic",
            "`topic` must be a string, not a null",
        ),
        (
            r#""a""#,
            "7",
            "event_id",
            "`event_id` must be a string, not a number",
        ),
        (
            r#""a""#,
            r#""\u0000""#,
            "event_id",
            "`event_id` must not contain control characters",
        ),
        (
            r#""a""#,
            r#""a","event_id":"b""#,
            "event_id",
            "`event_id` must not be given twice",
        ),
        (
            r#"{"n":1}"#,
            "[]",
            "payload",
            "`payload` must be a JSON object",
        ),
    ] {
        let found = second(&EVENT.replace(from, to));
        assert_eq!(found, [(1, Some(field), message.to_owned())], "{to}");
    }
    assert!(
        second(&EVENT.replace(r#""s""#, r#""\ud800""#))[0]
            .2
            .contains("surrogate")
    );
    assert!(
        second(&EVENT.replace("2026", "0000"))[0]
            .2
            .contains("ISO 8601")
    );
    assert_eq!(
        second("3"),
        [(
            1,
            None,
            "an event must be a JSON object, not a number".to_owned()
        )]
    );
    assert_eq!(second("{}").len(), 5, "all five at once");
}

#[test]
fn a_fault_is_placed_in_the_body_or_not_at_all() {
    let event = EVENT.replacen('{', r#"{"\ud800":1,"#, 1);
    let found = refusals(&format!("[{EVENT},\n{event}]"), Form::Json);
    let why = "the event can't be read: unexpected end of hex escape";
    assert_eq!(found, [(1, None, why.to_owned())]);
}

#[test]
fn an_array_is_no_event_in_any_form() {
    let values = r#"["t","a","2026-01-31T12:00:00Z","s",{"n":1}]"#;
    for (body, form) in [
        (&*format!("[{values}]"), Form::Json),
        (&*format!(r#"{{"events":[{values}]}}"#), Form::Json),
        (values, Form::Ndjson),
    ] {
        let found = refusals(body, form);
        assert_eq!(found.len(), 1, "{body}");
        assert!(found[0].2.contains("must be a JSON object"), "{found:?}");
    }
}

#[test]
fn a_broken_line_is_refused_alone() {
    let body = format!("{EVENT}\n{{\"topic\":\n{EVENT}");
    let parsed = parse(body.as_bytes(), Form::Ndjson).unwrap();
    assert_eq!((parsed.events.len(), parsed.refused), (2, 1));
    assert_eq!(parsed.refusals[0].index, 1);
    let why = "line 2 is not JSON at column 9: EOF while parsing a value";
    assert_eq!(parsed.refusals[0].message, why);
}

#[test]
fn what_holds_no_items_is_malformed() {
    for body in [
        "",
        " ",
        "nonsense",
        "[",
        "{\"events\":",
        "1",
        "null",
        "\"text\"",
        r#"{"events":{}}"#,
        "[] []",
    ] {
        let result = parse(body.as_bytes(), Form::Json);
        assert!(
            matches!(result, Err(BodyError::Malformed(_))),
            "{body}: {result:?}"
        );
    }
    let invalid = parse(b"[\"\xff\"]", Form::Json).unwrap_err();
    assert_eq!(invalid.to_string(), "the body is not valid UTF-8 at byte 2");
}

#[test]
fn the_number_of_events_and_of_refusals_is_bounded() {
    let many = |item: &str, n: usize| format!("[{}]", vec![item; n].join(","));
    assert_eq!(count(&many(EVENT, MAX_EVENTS)), MAX_EVENTS);
    for item in [EVENT, "1"] {
        let result =
            parse(many(item, MAX_EVENTS + 1).as_bytes(), Form::Json).map(|parsed| parsed.refused);
        assert_eq!(result, Err(BodyError::TooMany));
    }
    let body = many("1", 5000);
    let parsed = parse(body.as_bytes(), Form::Json).unwrap();
    assert_eq!(
        (parsed.refused, parsed.refusals.len()),
        (5000, MAX_REFUSALS)
    );
}

#[test]
fn deep_nesting_never_overflows_the_stack() {
    let deep = "[".repeat(4_000_000);
    assert!(parse(deep.as_bytes(), Form::Json).is_err());
    let closed = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert_eq!(parse(closed.as_bytes(), Form::Json).unwrap().refused, 1);
    let ignored = EVENT.replacen('{', &format!(r#"{{"x":{closed},"#), 1);
    assert_eq!(count(&ignored), 1);
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// An item that is an event more often than not.
fn item() -> impl Strategy<Value = serde_json::Value> {
    let text =
        || prop_oneof![4 => "[a-zA-Z0-9é \"\\\\]{1,20}".prop_map(Into::into), 1 => json_value()];
    let timestamp = prop_oneof![
        4 => (0_u64..4_000_000_000).prop_map(|second| {
            jiff::Timestamp::from_second(i64::try_from(second).unwrap()).unwrap().to_string().into()
        }),
        1 => json_value(),
    ];
    let payload = prop_oneof![
        4 => prop::collection::hash_map(any::<String>(), json_value(), 0..4)
            .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        1 => json_value(),
    ];
    (text(), text(), timestamp, text(), payload).prop_map(|(topic, event_id, timestamp, source, payload)| {
        serde_json::json!({
            "topic": topic, "event_id": event_id, "timestamp": timestamp, "source": source, "payload": payload,
        })
    })
}

/// The values of an item's members, in the order in which `Wire` has them.
fn values(item: &serde_json::Value) -> serde_json::Value {
    ["topic", "event_id", "timestamp", "source", "payload"]
        .map(|name| item[name].clone())
        .into_iter()
        .collect()
}

/// What may stand beside `events`.
fn further() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![item(), Just(serde_json::json!({"note": 1}))]
}

proptest! {
    #[test]
    fn what_is_to_hold_does_of_bodies_that_are_nearly_right(
        items in prop::collection::vec(prop_oneof![
            8 => item(),
            1 => item().prop_map(|item| values(&item)),
        ], 0..5),
        further in further(), pretty: bool,
    ) {
        let written = |value: &serde_json::Value| {
            let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
            text.unwrap()
        };
        let items = written(&serde_json::Value::Array(items));
        properties::hold_of(items.as_bytes());
        properties::hold_of(format!(r#"{{"events":{items}}}"#).as_bytes());
        let further = written(&further);
        let beside = further.replacen('{', &format!(r#"{{"events":{items},"#), 1);
        properties::hold_of(beside.as_bytes());
    }

    #[test]
    fn what_is_to_hold_does_of_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        properties::hold_of(&bytes);
        let _ = EncodedEvents::from_parts(bytes.into(), 1).decode();
    }
}

#[test]
fn what_is_to_hold_does_of_what_fuzzing_has_met() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/body");
    let mut met = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        properties::hold_of(&std::fs::read(entry.unwrap().path()).unwrap());
        met += 1;
    }
    assert!(met > 0, "the corpus is empty");
}

#[test]
fn what_the_caller_refuses_keeps_the_index_it_had_in_the_body() {
    let item = |topic| {
        format!(
            r#"{{"topic":"{topic}","event_id":"1","timestamp":"2026-01-01T00:00:00Z","source":"s","payload":{{}}}}"#
        )
    };
    let body = format!("{}\nbroken\n{}\n{}", item("a"), item("full"), item("b"));
    let mut parsed = parse(body.as_bytes(), Form::Ndjson).unwrap();
    parsed.refuse_where("topic", |event| {
        (event.topic.as_str() == "full").then(|| "no room".into())
    });
    let indices: Vec<_> = parsed
        .refusals
        .iter()
        .map(|refusal| refusal.index)
        .collect();
    assert_eq!((indices, parsed.refused), (vec![1, 2], 2));
    let topics: Vec<_> = parsed
        .events
        .iter()
        .map(|event| event.topic.as_str())
        .collect();
    assert_eq!(topics, ["a", "b"]);
}
