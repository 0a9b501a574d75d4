//! The promise: every event that was acknowledged is stored once, and only once.

use futures::future::join_all;
use serde_json::{Value, json};
use tests::{Program, Sekali, metrics, until};

use crate::path::event;

/// Received, unique, duplicates, conflicts, buried.
pub(crate) fn counts(stats: &Value) -> [i64; 5] {
    [
        "received",
        "unique_processed",
        "duplicate_dropped",
        "conflicts",
        "buried",
    ]
    .map(|name| stats[name].as_i64().unwrap())
}

#[tokio::test]
async fn ten_resends_at_one_instant_are_one_event() {
    for sekali in Sekali::of_each_kind().await {
        let one = event("t", "1");
        let answers = join_all((0..10).map(|_| sekali.publish(&one))).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(counts(&sekali.settled().await), [10, 1, 9, 0, 0]);
    }
}

#[tokio::test]
async fn two_hundred_at_one_instant_are_two_hundred() {
    for sekali in Sekali::of_each_kind().await {
        let events: Vec<_> = (0..200).map(|n| event("t", &n.to_string())).collect();
        let answers = join_all(events.iter().map(|one| sekali.publish(one))).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(counts(&sekali.settled().await), [200, 200, 0, 0, 0]);
    }
}

#[tokio::test]
async fn large_batches_are_counted_to_the_event() {
    for sekali in Sekali::of_each_kind().await {
        // 2,000 of which 600 repeat some of the other 1,400.
        let batch = |round: usize| -> Value {
            (0..2000)
                .map(|n| if n < 1400 { n } else { (n * 7) % 1400 })
                .map(|n| event("t", &format!("{round}-{n}")))
                .collect()
        };
        let batches: Vec<_> = (0..5).map(batch).collect();
        let answers = join_all(batches.iter().map(|batch| sekali.publish(batch))).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(
            counts(&sekali.settled().await),
            [10_000, 7_000, 3_000, 0, 0]
        );
        let stored = sekali.store(&batches[0]).await.ok();
        assert_eq!(
            (&stored["stored"], &stored["duplicates"]),
            (&json!(0), &json!(2000))
        );
    }
}

#[tokio::test]
async fn the_same_id_in_two_topics_is_two_events() {
    for sekali in Sekali::of_each_kind().await {
        sekali
            .publish(&json!([event("a", "1"), event("b", "1")]))
            .await
            .ok();
        assert_eq!(counts(&sekali.settled().await), [2, 2, 0, 0, 0]);
        let topics = sekali.get("/topics").await.ok();
        assert_eq!(topics[1]["topic"], "b");
        assert_eq!(
            (&topics[1]["received"], &topics[1]["unique"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(topics[1]["first_timestamp"], "2026-01-01T00:00:00Z");
    }
}

#[tokio::test]
async fn the_first_commit_wins_and_other_content_is_listed_but_other_white_space_is_not() {
    for sekali in Sekali::of_each_kind().await {
        let one = r#"{"topic":"t","event_id":"1","timestamp":"2026-01-01T00:00:00Z","source":"s","payload":{"a":1,"b":[2]}}"#;
        let reformatted = r#"{ "source": "s", "payload" : { "a" : 1, "b": [ 2 ] }, "timestamp":"2026-01-01T07:00:00+07:00", "event_id":"1", "topic":"t", "more": 1 }"#;
        let other = one.replace("[2]", "[3]");
        for body in [one, reformatted, &other] {
            let answer = sekali
                .publish_bytes("", "application/json", body.to_owned())
                .await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            sekali.settled().await;
        }
        assert_eq!(counts(&sekali.settled().await), [3, 1, 2, 1, 0]);
        let kept = sekali.get("/events/t/1").await.ok();
        assert_eq!(kept["payload"], json!({"a": 1, "b": [2]}));
        let conflicts = sekali.get("/conflicts?topic=t").await.ok();
        assert_eq!(conflicts.as_array().unwrap().len(), 1);
        assert_eq!(conflicts[0]["event"]["payload"], json!({"a": 1, "b": [3]}));
    }
}

#[tokio::test]
async fn what_can_never_be_stored_is_listed_replayed_and_dropped() {
    // Room for one topic; the worker learns of others from events that slip by.
    let mut sekali = Sekali::full(1).await;
    sekali.publish(&event("t", "1")).await.ok();
    sekali.settled().await;
    let mut client = redis::Client::open(sekali.redis().url()).unwrap();
    let add = |fields: &[&str]| {
        let mut command = redis::cmd("XADD");
        command.arg("sekali:{0}:events").arg("*").arg(fields);
        command
    };
    let mut entries = redis::pipe();
    entries.atomic();
    entries
        .add_command(add(&["v", "1", "n", "2", "garbled", "x"]))
        .ignore();
    entries.cmd("INCRBY").arg("sekali:{0}:in").arg(2).ignore();
    let _: () = entries.query(&mut client).unwrap();
    let stats = sekali.settled().await;
    assert_eq!(counts(&stats), [3, 1, 0, 0, 2]);
    let told = sekali.worker_metrics(0).await;
    let buried = "outcome=\"buried\"";
    let buried = metrics::sum(&told, "sekali_store_recorded_events_total", buried);
    assert_eq!(buried, Some(2), "{told}");
    let letters = sekali.get("/dead-letters").await.ok();
    let letter = &letters[0];
    assert_eq!(
        (&letter["events"], &letter["topic"]),
        (&json!(2), &Value::Null)
    );
    assert!(
        letter["reason"].as_str().unwrap().contains("decoded"),
        "{letter}"
    );
    let path = format!("/dead-letters/{}", letter["id"]);
    let replay = sekali.client().post(sekali.url(&format!("{path}/replay")));
    let answer = sekali.ask(replay).await;
    assert_eq!(answer.status, 409, "{}", answer.body);
    let delete = || sekali.client().delete(sekali.url(&path));
    assert_eq!(sekali.ask(delete()).await.status, 204);
    assert_eq!(sekali.ask(delete()).await.status, 404);
    assert_eq!(counts(&sekali.settled().await), counts(&stats));
}

#[tokio::test]
async fn topics_beyond_the_limit_are_refused_and_those_that_exist_go_on() {
    for sekali in Sekali::of_each_kind_with(&["--max-topics", "1"]).await {
        sekali.store(&event("a", "1")).await.ok();
        until("the limit is known", async || {
            sekali.publish(&event("b", "1")).await.status == 422
        })
        .await;
        let answer = sekali
            .publish(&json!([event("a", "2"), event("b", "2")]))
            .await;
        assert_eq!(answer.status, 422);
        assert_eq!(answer.json()["errors"][0]["index"], 1);
        assert_eq!(answer.json()["errors"][0]["field"], "topic");
        sekali.publish(&event("a", "3")).await.ok();
    }
}

#[tokio::test]
async fn the_ids_of_a_deleted_topic_are_new_again() {
    for sekali in Sekali::of_each_kind().await {
        sekali
            .store(&json!([event("a", "1"), event("b", "1")]))
            .await
            .ok();
        let delete = sekali.client().delete(sekali.url("/topics/a"));
        assert_eq!(sekali.ask(delete).await.status, 204);
        assert_eq!(counts(&sekali.settled().await), [1, 1, 0, 0, 0]);
        assert_eq!(sekali.events("?topic=a").await, Vec::<Value>::new());
        let again = sekali.store(&event("a", "1")).await.ok();
        assert_eq!(again["stored"], 1);
        assert_eq!(sekali.events("?topic=a").await.len(), 1);
    }
}

#[tokio::test]
async fn what_cannot_be_meant_ends_at_once_with_64_and_one_line() {
    for (binary, arguments, word) in [
        (
            "sekali-aggregator",
            &["--database-url", "mysql://x:hunter2@y"][..],
            "postgres://",
        ),
        (
            "sekali-aggregator",
            &["--broker-url", "redis://127.0.0.1:1"],
            "SQLite",
        ),
        (
            "sekali-aggregator",
            &["--api-keys-file", "/nonexistent"],
            "error: --api-keys-file: read",
        ),
        (
            "sekali-aggregator",
            &["--broker-password-file", "/nonexistent"],
            "--broker-url",
        ),
        (
            "sekali-aggregator",
            &["--max-body-bytes", "100000000"],
            "--body-budget-bytes",
        ),
        ("sekali-aggregator", &["--http-addr", "here"], "--http-addr"),
        (
            "sekali-worker",
            &["--broker-url", "redis://x"],
            "--database-url",
        ),
        (
            "sekali-worker",
            &["--broker-url", "redis://x", "--database-url", "sqlite://x"],
            "SQLite",
        ),
        (
            "sekali-worker",
            &[
                "--broker-url",
                "tcp://:hunter2@x",
                "--database-url",
                "postgres://x",
            ],
            "redis://",
        ),
    ] {
        let mut program = Program::start(binary, arguments);
        let status = program.ended().await;
        let log = program.log();
        assert_eq!(status.code(), Some(64), "{arguments:?}: {log}");
        assert!(log.contains(word), "{arguments:?}: {log}");
        assert!(!log.contains("hunter2"), "{arguments:?}: {log}");
    }
}
