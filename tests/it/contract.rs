//! The HTTP contract: what each body and each question gets, in both modes the same.

use serde_json::{Value, json};
use tests::{Answer, Sekali};

use crate::keys::operations;
use crate::path::event;

pub(crate) const JSON: &str = "application/json";
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// What a body is to get.
enum Gets {
    Taken(usize),
    /// The status, and words that the answer must hold.
    Refused(u16, &'static [&'static str]),
}

use Gets::{Refused, Taken};

/// An event with one member in place of another.
fn with(member: &str, value: Value) -> String {
    let mut event = event("bad", "1");
    event[member] = value;
    event.to_string()
}

fn without(member: &str) -> String {
    let mut event = event("bad", "1");
    event.as_object_mut().unwrap().remove(member);
    event.to_string()
}

/// An event whose member is this text, which need not be JSON that a library would write.
fn raw(member: &str, text: &str) -> Vec<u8> {
    with(member, json!("@")).replace("\"@\"", text).into_bytes()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn bodies() -> Vec<(&'static str, &'static str, Vec<u8>, Gets)> {
    let case = |name, body: &str, gets| (name, JSON, body.as_bytes().to_vec(), gets);
    let field = |name, member, value, words| {
        (
            name,
            JSON,
            with(member, value).into_bytes(),
            Refused(422, words),
        )
    };
    let payload = |name, text: &str| {
        (
            name,
            JSON,
            raw("payload", &format!("{{\"x\":{text}}}")),
            Taken(1),
        )
    };
    let time = |name, text: &str, gets| (name, JSON, with("timestamp", json!(text)).into(), gets);
    let mut good: Vec<_> = (0..1000).map(|n| event("many", &n.to_string())).collect();
    let whole = Value::from(good.clone()).to_string();
    good[700]["source"] = json!(7);
    let one_bad = Value::from(good).to_string();
    let lines = [event("lines", "1"), event("lines", "2")].map(|event| event.to_string());
    let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    vec![
        case("not JSON", "hello", Refused(422, &["not JSON"])),
        case(
            "a truncated object",
            "{\"topic\":\"a\"",
            Refused(422, &["malformed-body"]),
        ),
        case("an empty body", "", Refused(422, &["empty"])),
        case("only white space", " \n", Refused(422, &["empty"])),
        case("a number", "7", Refused(422, &["not a number"])),
        case("two documents", "{} {}", Refused(422, &["malformed-body"])),
        case("deep nesting", &deep, Refused(422, &[])),
        (
            "a deep payload",
            JSON,
            raw("payload", &format!("{{\"x\":{deep}}}")),
            Refused(422, &[]),
        ),
        case("an empty array", "[]", Taken(0)),
        case("an empty envelope", "{\"events\":[]}", Taken(0)),
        case("a thousand good ones", &whole, Taken(1000)),
        case(
            "one bad among a thousand",
            &one_bad,
            Refused(422, &["\"index\":700", "source"]),
        ),
        case(
            "an array of numbers",
            "[1,2]",
            Refused(422, &["\"index\":1"]),
        ),
        (
            "a member twice",
            JSON,
            with("source", json!("a"))
                .replace("\"source\"", "\"source\":\"b\",\"source\"")
                .into(),
            Refused(422, &["source"]),
        ),
        case(
            "no topic",
            &without("topic"),
            Refused(422, &["topic", "missing"]),
        ),
        case(
            "no event_id",
            &without("event_id"),
            Refused(422, &["event_id", "missing"]),
        ),
        case(
            "no timestamp",
            &without("timestamp"),
            Refused(422, &["timestamp", "missing"]),
        ),
        case(
            "no source",
            &without("source"),
            Refused(422, &["source", "missing"]),
        ),
        case(
            "no payload",
            &without("payload"),
            Refused(422, &["payload", "missing"]),
        ),
        field("a null topic", "topic", Value::Null, &["topic"]),
        field("an empty topic", "topic", json!(""), &["topic", "empty"]),
        field(
            "a topic of 256",
            "topic",
            json!("é".repeat(256)),
            &["topic", "255"],
        ),
        case(
            "a topic of 255",
            &with("topic", json!("é".repeat(255))),
            Taken(1),
        ),
        field(
            "a topic with a line break",
            "topic",
            json!("a\nb"),
            &["topic", "control"],
        ),
        field(
            "a NUL in an id",
            "event_id",
            json!("a\0b"),
            &["event_id", "control"],
        ),
        field("a number as an id", "event_id", json!(1), &["event_id"]),
        field(
            "a payload that is an array",
            "payload",
            json!([]),
            &["payload", "object"],
        ),
        field(
            "a payload that is a text",
            "payload",
            json!("{}"),
            &["payload", "object"],
        ),
        (
            "a lone surrogate in an id",
            JSON,
            raw("event_id", r#""\ud800""#),
            Refused(422, &[]),
        ),
        (
            "invalid UTF-8",
            JSON,
            raw("source", "\"\u{1}\"")
                .iter()
                .map(|byte| if *byte == 1 { 0xff } else { *byte })
                .collect(),
            Refused(422, &["UTF-8"]),
        ),
        payload("a lone surrogate in a payload", r#""\ud800""#),
        payload("NUL in a payload", r#""\u0000""#),
        payload("a number of 400 digits", &"9".repeat(400)),
        payload("1e999", "1e999"),
        time("yesterday", "yesterday", Refused(422, &["timestamp"])),
        time("only a date", "2026-01-01", Refused(422, &["timestamp"])),
        time(
            "the 13th month",
            "2026-13-01T00:00:00Z",
            Refused(422, &["timestamp"]),
        ),
        time(
            "year 0",
            "0000-01-01T00:00:00Z",
            Refused(422, &["timestamp"]),
        ),
        time(
            "year 10000",
            "10000-01-01T00:00:00Z",
            Refused(422, &["timestamp"]),
        ),
        time(
            "before year 1 in UTC",
            "0001-01-01T00:00:00+01:00",
            Refused(422, &["timestamp"]),
        ),
        time("without an offset", "2026-01-01T00:00:00.123456", Taken(1)),
        time("with an offset", "2026-01-01T00:00:00+07:00", Taken(1)),
        time("a leap second", "2016-12-31T23:59:60Z", Taken(1)),
        ("lines", NDJSON, lines.join("\n").into(), Taken(2)),
        (
            "lines with blank ones",
            NDJSON,
            format!("\n{}\r\n\r\n{}\n", lines[0], lines[1]).into(),
            Taken(2),
        ),
        ("no lines", NDJSON, Vec::new(), Taken(0)),
        (
            "a broken line between",
            NDJSON,
            format!("{}\n{{\n{}", lines[0], lines[1]).into(),
            Refused(422, &["\"index\":1", "line 2"]),
        ),
        (
            "too many",
            NDJSON,
            format!("{}\n", lines[0]).repeat(10_001).into(),
            Refused(422, &["10000"]),
        ),
        (
            "a form",
            "application/x-www-form-urlencoded",
            b"a=b".to_vec(),
            Refused(415, &["application/json"]),
        ),
    ]
}

pub(crate) fn is_problem(answer: &Answer, name: &str) {
    assert_eq!(
        answer.header("content-type"),
        "application/problem+json",
        "{name}"
    );
    let problem = answer.json();
    for member in ["type", "title", "detail"] {
        assert!(problem[member].is_string(), "{name}: {problem}");
    }
    assert_eq!(problem["status"], answer.status, "{name}");
    // Nothing of the inside.
    for inside in ["src/", "panick", "sqlx", "SELECT", "/rustc/"] {
        assert!(!answer.body.contains(inside), "{name}: {}", answer.body);
    }
}

#[tokio::test]
async fn every_body_gets_what_the_table_says() {
    for sekali in Sekali::of_each_kind().await {
        let mut taken = 0;
        for (name, kind, body, gets) in bodies() {
            let answer = sekali.publish_bytes("", kind, body).await;
            match gets {
                Taken(count) => {
                    assert_eq!(answer.status, 200, "{name}: {}", answer.body);
                    let expected = json!({"status": "queued", "count": count, "accepted": count});
                    assert_eq!(answer.json(), expected, "{name}");
                    taken += count;
                }
                Refused(status, words) => {
                    assert_eq!(answer.status, status, "{name}: {}", answer.body);
                    is_problem(&answer, name);
                    for word in words {
                        assert!(answer.body.contains(word), "{name}: {}", answer.body);
                    }
                }
            }
        }
        // Nothing of what was refused is there, and all of what was taken is.
        let stats = sekali.settled().await;
        assert_eq!(stats["received"], taken);
    }
}

#[tokio::test]
async fn the_valid_part_is_taken_when_asked_for() {
    for sekali in Sekali::of_each_kind().await {
        let body = json!([event("t", "1"), {"topic": "t"}, event("t", "2"), 7]);
        let answer = sekali
            .publish_bytes("?partial=true", JSON, body.to_string())
            .await
            .ok();
        assert_eq!(
            (&answer["count"], &answer["accepted"]),
            (&json!(4), &json!(2))
        );
        assert_eq!(answer["refused"], 2);
        assert_eq!(answer["errors"][0]["index"], 1);
        assert_eq!(sekali.settled().await["received"], 2);
        let none = sekali
            .publish_bytes("?partial=true", JSON, "[7]")
            .await
            .ok();
        assert_eq!(
            (&none["accepted"], &none["refused"]),
            (&json!(0), &json!(1))
        );
    }
}

#[tokio::test]
async fn an_answer_after_the_commit_says_what_became_of_each() {
    for sekali in [
        Sekali::embedded().await,
        Sekali::direct().await,
        Sekali::full(1).await,
    ] {
        let mut other = event("t", "1");
        other["payload"] = json!({"n": 2});
        let body = json!([event("t", "1"), event("t", "1"), other, event("u", "1")]);
        let answer = sekali.store(&body).await.ok();
        assert_eq!(
            answer,
            json!({
                "status": "stored", "count": 4, "stored": 2, "duplicates": 2, "conflicts": 1,
                "results": [
                    {"topic": "t", "event_id": "1", "outcome": "stored"},
                    {"topic": "t", "event_id": "1", "outcome": "duplicate"},
                    {"topic": "t", "event_id": "1", "outcome": "conflict"},
                    {"topic": "u", "event_id": "1", "outcome": "stored"},
                ],
            })
        );
        // Committed: there without waiting for anything.
        assert_eq!(sekali.events("").await.len(), 2);
        let empty = sekali.store(&json!([])).await.ok();
        assert_eq!(
            (&empty["count"], &empty["results"]),
            (&json!(0), &json!([]))
        );
    }
}

#[tokio::test]
async fn payloads_come_back_as_they_were_sent() {
    let sent = r#"{"z": 1e999, "a": "\u0000é\ud83d\ude00", "big": 123456789012345678901234567890, "a2": [1.0, 1.00, -0], "t": "a\/b"}"#;
    let expected = r#"{"z":1e999,"a":"\u0000é\ud83d\ude00","big":123456789012345678901234567890,"a2":[1.0,1.00,-0],"t":"a\/b"}"#;
    for sekali in Sekali::of_each_kind().await {
        let body = raw("payload", sent);
        assert_eq!(sekali.publish_bytes("", JSON, body).await.status, 200);
        sekali.settled().await;
        for path in ["/events", "/events/bad/1"] {
            let answer = sekali.get(path).await;
            assert!(answer.body.contains(expected), "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_parameter_that_is_not_known_is_refused_everywhere_and_nothing_is_done() {
    for sekali in Sekali::of_each_kind().await {
        sekali.publish(&event("t", "1")).await.ok();
        sekali.settled().await;
        let api = sekali.get("/openapi.json").await.ok();
        let mut asked = 0;
        for (method, path) in operations(&api) {
            let described = &api["paths"][path][method]["responses"]["422"];
            assert!(described.is_object(), "{method} {path}");
            let path = path
                .replace("{topic}", "t")
                .replace("{event_id}", "1")
                .replace("{id}", "1");
            let url = sekali.url(&format!("{path}?dry_run=true"));
            let method = method.to_uppercase().parse().unwrap();
            let request = sekali.client().request(method, url);
            let answer = sekali.ask(request.body("[]")).await;
            assert_eq!(answer.status, 422, "{path}: {}", answer.body);
            is_problem(&answer, &path);
            assert_eq!(answer.json()["type"], "urn:sekali:invalid-parameter");
            asked += 1;
        }
        assert!(asked > 10, "{asked}");
        sekali.get("/events/t/1").await.ok();
    }
}
