//! The HTTP contract: what each body and each question gets, in both modes the same.

use std::time::Duration;

use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use serde_json::{Value, json};
use tests::wire::Wire;
use tests::{Answer, Sekali, until};
use tokio::io::AsyncWriteExt as _;

use crate::path::event;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

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

fn is_problem(answer: &Answer, name: &str) {
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
async fn compressed_bodies_are_unpacked_within_the_limit() {
    for sekali in Sekali::of_each_kind_with(&["--max-body-bytes", "1048576"]).await {
        let body = event("t", "1").to_string();
        let bomb = vec![b' '; 64 << 20];
        for (encoding, good, bad) in [
            ("gzip", gzip(body.as_bytes()).await, gzip(&bomb).await),
            ("zstd", zstd(body.as_bytes()).await, zstd(&bomb).await),
        ] {
            let send = async |body: Vec<u8>| {
                let request = sekali.client().post(sekali.url("/publish"));
                let request = request.header("content-encoding", encoding);
                sekali.ask(request.body(body)).await
            };
            assert_eq!(send(good).await.status, 200, "{encoding}");
            let answer = send(bad).await;
            assert_eq!(answer.status, 413, "{encoding}: {}", answer.body);
            is_problem(&answer, encoding);
            let answer = send(b"not compressed".to_vec()).await;
            assert_eq!(answer.status, 422, "{encoding}");
            assert!(answer.body.contains(encoding), "{}", answer.body);
        }
        let request = sekali.client().post(sekali.url("/publish"));
        let answer = sekali
            .ask(request.header("content-encoding", "br").body(body))
            .await;
        assert_eq!(answer.status, 415);
        is_problem(&answer, "br");
        assert_eq!(sekali.settled().await["received"], 2);
    }
}

async fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzipEncoder::new(Vec::new());
    encoder.write_all(bytes).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

async fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZstdEncoder::new(Vec::new());
    encoder.write_all(bytes).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_with_and_without_a_length() {
    let sekali = Sekali::embedded_with(&["--max-body-bytes", "65536"]).await;
    let large = vec![b' '; 65_537];
    let answer = sekali.publish_bytes("", JSON, large.clone()).await;
    assert_eq!(answer.status, 413);
    is_problem(&answer, "with a length");
    assert!(answer.body.contains("65536"));

    let mut wire = Wire::connect(sekali.address(0)).await;
    let head = "POST /publish HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n10001\r\n";
    wire.send(head).await;
    wire.send(&large).await;
    let answer = wire.answers(1).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let exact = format!("{}{}", event("t", "1"), " ".repeat(65_536));
    let answer = sekali
        .publish_bytes("", JSON, exact[..65_536].to_owned())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn who_sends_all_of_a_body_before_reading_still_reads_why_it_was_refused() {
    for sekali in Sekali::of_each_kind_with(&["--max-body-bytes=8000000"]).await {
        let head = |lines: &str| format!("POST /publish HTTP/1.1\r\nhost: x\r\n{lines}\r\n");
        let body = " ".repeat(8_000_001);
        let length = format!("content-length: {}\r\n", body.len());
        for (lines, status) in [
            (length.clone(), "413"),
            (format!("{length}content-encoding: br\r\n"), "415"),
        ] {
            let mut wire = Wire::connect(sekali.address(0)).await;
            assert!(wire.send(head(&lines)).await);
            assert!(wire.send(&body).await, "the body is not read");
            let answer = wire.answers(1).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer}"
            );
        }
        let mut wire = Wire::connect(sekali.address(0)).await;
        wire.send(head(&format!("{length}expect: 100-continue\r\n")))
            .await;
        let answer = wire.answers(1).await;
        assert!(
            answer.starts_with("HTTP/1.1 413"),
            "asked for nothing: {answer}"
        );
    }
}

#[tokio::test]
async fn a_body_that_trickles_in_is_given_up() {
    let sekali = Sekali::embedded_with(&["--body-timeout-ms", "300"]).await;
    let mut wire = Wire::connect(sekali.address(0)).await;
    wire.send("POST /publish HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
        .await;
    let answer = wire.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.contains("body-too-slow"), "{answer}");
}

#[tokio::test]
async fn large_bodies_at_once_are_held_within_a_budget() {
    let flags = [
        "--max-body-bytes",
        "4194304",
        "--body-budget-bytes",
        "8388608",
    ];
    let sekali = Sekali::embedded_with(&flags).await;
    let mut wires = Vec::new();
    // Each says that it will send 4 MiB, and two may.
    for _ in 0..3 {
        let mut wire = Wire::connect(sekali.address(0)).await;
        wire.send("POST /publish HTTP/1.1\r\nhost: x\r\ncontent-length: 4194304\r\n\r\n{")
            .await;
        wires.push(wire);
    }
    let mut overloaded = Vec::new();
    until("one of three is turned away", async || {
        for wire in &mut wires {
            if !wire.is_silent(Duration::from_millis(20)).await {
                overloaded.push(());
            }
        }
        overloaded.len() == 1
    })
    .await;
    // Small ones are turned away too while the budget is taken, and are told when to come.
    let answer = sekali.publish(&event("t", "1")).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.header("retry-after"), "1");
    is_problem(&answer, "overloaded");
    drop(wires);
    until("the budget is given back", async || {
        sekali.publish(&event("t", "1")).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_idle_connections_are_no_burden() {
    let mut sekali = Sekali::embedded().await;
    let before = sekali.gateway(0).memory();
    let address = sekali.address(0);
    let mut idle = Vec::new();
    for _ in 0..10_000 {
        match tokio::net::TcpStream::connect(address).await {
            Ok(connection) => idle.push(connection),
            // This process needs as many files itself.
            Err(error) => panic!("{error} after {}: raise ulimit -n", idle.len()),
        }
    }
    assert_eq!(sekali.publish(&event("t", "1")).await.status, 200);
    let after = sekali.gateway(0).memory();
    assert!(after - before < 200 << 20, "{} MiB", (after - before) >> 20);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    for sekali in Sekali::of_each_kind().await {
        let body = event("t", "1").to_string();
        let post = format!(
            "POST /publish HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let get = "GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut wire = Wire::connect(sekali.address(0)).await;
        wire.send(format!("{post}{get}{post}{get}")).await;
        let answers = wire.answers(4).await;
        let statuses: Vec<_> = answers
            .match_indices("HTTP/1.1 ")
            .map(|(at, _)| &answers[at + 9..at + 12])
            .collect();
        assert_eq!(statuses, ["200", "404", "200", "404"]);
        assert_eq!(sekali.settled().await["received"], 2);
    }
}

#[tokio::test]
async fn questions_that_cannot_be_meant_are_refused_by_name() {
    for sekali in Sekali::of_each_kind().await {
        sekali.settled().await;
        for (path, word) in [
            ("/events?limit=0", "limit"),
            ("/events?limit=10001", "limit"),
            ("/events?limit=x", "limit"),
            ("/events?cursor=forged", "cursor"),
            ("/events?cursor=", "cursor"),
            ("/events?from=yesterday", "from"),
            ("/events?to=10000-01-01T00:00:00Z", "to"),
            ("/events?topic=", "topic"),
            ("/events?topic=a%00b", "topic"),
            ("/events?topics=a", "topic, source"),
            ("/events?limit=1&limit=2", "limit"),
            ("/conflicts?cursor=x", "cursor"),
            ("/dead-letters?limit=0", "limit"),
            ("/stats?x=1", "query"),
        ] {
            let answer = sekali.get(path).await;
            assert_eq!(answer.status, 422, "{path}: {}", answer.body);
            is_problem(&answer, path);
            assert!(answer.body.contains(word), "{path}: {}", answer.body);
        }
        let answer = sekali.publish_bytes("?ack=maybe", JSON, "[]").await;
        assert_eq!(answer.status, 422);
        assert!(answer.body.contains("queued or stored"), "{}", answer.body);
        assert_eq!(sekali.events("?topic=unknown").await, Vec::<Value>::new());
    }
}

#[tokio::test]
async fn a_wrong_method_or_path_is_told_what_is_right() {
    let sekali = Sekali::embedded().await;
    for (method, path, allow) in [
        ("GET", "/publish", "POST"),
        ("DELETE", "/events", "GET,HEAD"),
        ("PATCH", "/topics/a", "DELETE"),
        ("POST", "/stats", "GET,HEAD"),
    ] {
        let method = method.parse().unwrap();
        let answer = sekali
            .ask(sekali.client().request(method, sekali.url(path)))
            .await;
        assert_eq!(answer.status, 405, "{path}");
        assert_eq!(answer.header("allow"), allow, "{path}");
        is_problem(&answer, path);
    }
    for path in ["/nothing", "/events/a", "/dead-letters/x/replay/y"] {
        let answer = sekali.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        is_problem(&answer, path);
    }
    for path in ["/topics/none", "/dead-letters/7", "/dead-letters/x"] {
        let answer = sekali.ask(sekali.client().delete(sekali.url(path))).await;
        assert_eq!(answer.status, 404, "{path}");
        is_problem(&answer, path);
    }
}

#[tokio::test]
async fn a_key_opens_what_its_scope_says_and_a_new_file_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    let line = |name: &str, scope: &str| {
        use sha2::Digest as _;
        let hash = sha2::Sha256::digest(name);
        let halves = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let digits: String = halves
            .map(|half| char::from_digit(half.into(), 16).unwrap())
            .collect();
        format!("{name} {scope} {digits}\n")
    };
    let keys = line("writer", "write") + &line("reader", "read") + &line("boss", "admin");
    std::fs::write(&file, &keys).unwrap();
    let sekali = Sekali::embedded_with(&["--api-keys-file", file.to_str().unwrap()]).await;
    let status = async |method: &str, path: &str, key: &str| {
        let method = method.parse().unwrap();
        let request = sekali.client().request(method, sekali.url(path));
        let request = if key.is_empty() {
            request
        } else {
            request.bearer_auth(key)
        };
        let answer = sekali.ask(request.body("[]")).await;
        if answer.status >= 400 {
            is_problem(&answer, path);
        }
        answer.status
    };
    for (method, path, open_to) in [
        ("POST", "/publish", "writer"),
        ("GET", "/events", "reader"),
        ("GET", "/stats", "reader"),
        ("GET", "/topics", "reader"),
        ("DELETE", "/topics/none", "boss"),
        ("POST", "/dead-letters/1/replay", "boss"),
    ] {
        assert_eq!(status(method, path, "").await, 401, "{path}");
        assert_eq!(status(method, path, "stranger").await, 401, "{path}");
        for key in ["writer", "reader", "boss"] {
            let got = status(method, path, key).await;
            if key == open_to || key == "boss" {
                assert!([200, 404].contains(&got), "{path} {key}: {got}");
            } else {
                assert_eq!(got, 403, "{path} {key}");
            }
        }
    }
    for path in [
        "/livez",
        "/readyz",
        "/healthz",
        "/metrics",
        "/",
        "/docs",
        "/openapi.json",
    ] {
        assert_eq!(status("GET", path, "").await, 200, "{path}");
    }
    std::fs::write(&file, keys + &line("newcomer", "read")).unwrap();
    until("the new key is known", async || {
        status("GET", "/stats", "newcomer").await == 200
    })
    .await;
}

#[tokio::test]
async fn what_is_here_is_described() {
    let sekali = Sekali::embedded().await;
    let index = sekali.get("/").await.ok();
    assert_eq!(index["name"], "sekali");
    let page = sekali
        .ask(
            sekali
                .client()
                .get(sekali.url("/"))
                .header("accept", "text/html"),
        )
        .await;
    assert!(page.header("content-type").starts_with("text/html"));
    let docs = sekali.get("/docs").await;
    for page in [&page, &docs] {
        assert!(
            page.header("content-security-policy")
                .contains("default-src 'none'")
        );
        assert!(!page.body.contains("https://"), "nothing from outside");
    }
    let api = sekali.get("/openapi.json").await.ok();
    for place in index["places"].as_array().unwrap() {
        let (method, path) = (
            place["method"].as_str().unwrap(),
            place["path"].as_str().unwrap(),
        );
        if path.contains('{') || method != "GET" {
            let described = &api["paths"][path][method.to_lowercase()];
            assert!(described.is_object(), "{method} {path}");
        }
    }
    let health = sekali.get("/healthz").await.ok();
    assert_eq!(health, json!({"status": "ok", "checks": {"store": "ok"}}));
    let metrics = sekali.get("/metrics").await;
    assert!(
        metrics.body.contains("sekali_http_requests_total"),
        "{}",
        metrics.body
    );
}
