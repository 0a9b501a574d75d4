//! What a gateway holds, and for how long: bodies and connections within their bounds.

use std::time::Duration;

use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use serde_json::{Value, json};
use tests::wire::Wire;
use tests::{Proxy, Sekali, until};
use tokio::io::AsyncWriteExt as _;

use crate::contract::{JSON, NDJSON, is_problem};
use crate::keys::key;
use crate::path::event;

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

#[tokio::test]
async fn a_compressed_body_may_be_in_pieces_and_is_taken_to_its_end() {
    let sekali = Sekali::embedded().await;
    let lines = ["1", "2"].map(|id| format!("{}\n", event("t", id)).into_bytes());
    let [first, second] = &lines;
    // RFC 8878, 3.1.2: a frame that is skipped, of four bytes.
    let skipped = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4].to_vec();
    let gzip = [gzip(first).await, gzip(second).await];
    let zstd = [zstd(first).await, zstd(second).await];
    let torn = |pieces: &[Vec<u8>; 2]| {
        let whole = pieces.concat();
        whole[..whole.len() - 6].to_vec()
    };
    for (name, encoding, body, status) in [
        ("gzip", "gzip", gzip.concat(), 200),
        ("torn gzip", "gzip", torn(&gzip), 422),
        ("zstd", "zstd", zstd.concat(), 200),
        ("torn zstd", "zstd", torn(&zstd), 422),
        (
            "zstd after a skipped frame",
            "zstd",
            [skipped, zstd.concat()].concat(),
            200,
        ),
    ] {
        let request = sekali.client().post(sekali.url("/publish?ack=stored"));
        let request = request
            .header("content-encoding", encoding)
            .header("content-type", NDJSON);
        let answer = sekali.ask(request.body(body)).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
        if status == 200 {
            assert_eq!(answer.json()["count"], 2, "{name}");
        }
    }
    assert_eq!(sekali.events("").await.len(), 2);
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
    let directory = tests::directory();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, key("writer", "write") + &key("reader", "read")).unwrap();
    let flags = [
        "--max-body-bytes=8000000",
        "--api-keys-file",
        keys.to_str().unwrap(),
    ];
    let body = " ".repeat(8_000_001);
    let head = |path: &str, lines: &str| {
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{lines}\r\n")
    };
    let (writer, reader) = (
        "authorization: Bearer writer\r\n",
        "authorization: Bearer reader\r\n",
    );
    for sekali in Sekali::of_each_kind_with(&flags).await {
        for (path, lines, status) in [
            ("/publish", writer.to_owned(), "413"),
            (
                "/publish",
                format!("{writer}content-encoding: br\r\n"),
                "415",
            ),
            (
                "/publish",
                format!("{writer}content-type: text/plain\r\n"),
                "415",
            ),
            ("/publish?ack=maybe", writer.to_owned(), "422"),
            ("/publish", String::new(), "401"),
            ("/publish", reader.to_owned(), "403"),
        ] {
            let mut wire = Wire::connect(sekali.address(0)).await;
            assert!(wire.send(head(path, &lines)).await);
            assert!(wire.send(&body).await, "{status}: the body is not read");
            let answer = wire.answers(1).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer}"
            );
        }
        for (bearer, status) in [(writer, "413"), (reader, "403")] {
            let mut wire = Wire::connect(sekali.address(0)).await;
            wire.send(head(
                "/publish",
                &format!("{bearer}expect: 100-continue\r\n"),
            ))
            .await;
            let answer = wire.answers(1).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "asked for nothing: {answer}"
            );
        }
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
async fn what_is_held_for_those_who_hung_up_is_within_the_budget() {
    let flags = [
        "--max-body-bytes",
        "4194304",
        "--body-budget-bytes",
        "8388608",
    ];
    let mut sekali = Sekali::full_with(0, &flags).await;
    let line = Proxy::to(sekali.redis().address()).await;
    let database = sekali.database().to_owned();
    sekali.lead(line.address(), &database);
    sekali.replace_gateway().await;
    let mut client = redis::Client::open(sekali.redis().url()).unwrap();
    let mut appended = || -> i64 {
        let mut count = redis::cmd("GET");
        count.arg("sekali:{0}:in").query(&mut client).unwrap_or(0)
    };
    // What is appended is held on to until Redis says that it was.
    line.mute();
    let mut wires = Vec::new();
    for request in 1..=2 {
        let mut wire = Wire::connect(sekali.address(0)).await;
        wire.send(large_request(request)).await;
        until("it is on its way", async || appended() == request * 8).await;
        wires.push(wire);
    }
    for wire in wires {
        wire.hang_up().await;
    }
    let answer = sekali.publish(&event("t", "1")).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    is_problem(&answer, "overloaded");
    assert!(answer.body.contains("overloaded"), "{}", answer.body);
    line.mend();
    until("the budget is given back", async || {
        sekali.publish(&event("t", "1")).await.status == 200
    })
    .await;
}

/// Eight events in a body of 4 MiB.
fn large_request(number: i64) -> String {
    let event = |n: usize| {
        let mut event = event("t", &format!("{number}-{n}"));
        event["payload"] = json!({"filler": "x".repeat(500_000)});
        event
    };
    let body = (0..8).map(event).collect::<Value>().to_string();
    let padding = " ".repeat(4_194_304 - body.len());
    format!("POST /publish HTTP/1.1\r\nhost: x\r\ncontent-length: 4194304\r\n\r\n{body}{padding}")
}

#[tokio::test]
async fn ten_thousand_idle_connections_are_no_burden() {
    // This process needs as many files itself.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let mut sekali = Sekali::embedded().await;
    let before = sekali.gateway(0).memory();
    let address = sekali.address(0);
    let mut idle = Vec::new();
    for _ in 0..10_000 {
        match tokio::net::TcpStream::connect(address).await {
            Ok(connection) => idle.push(connection),
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
async fn a_request_that_cannot_be_taken_apart_gets_a_status_and_no_more() {
    let sekali = Sekali::embedded().await;
    let many = "x: y\r\n".repeat(101);
    for (request, status) in [
        ("hello\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nno header\r\n\r\n".to_owned(), "400"),
        (
            "POST /publish HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n".to_owned(),
            "400",
        ),
        (
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(16_384)),
            "431",
        ),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "431"),
    ] {
        let mut wire = Wire::connect(sekali.address(0)).await;
        wire.send(request).await;
        let answer = wire.rest().await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert!(!head.contains("content-type"), "{head}");
        assert_eq!(body, "");
    }
}
