//! The promise: every event that was acknowledged is stored once, and only once.

use futures::future::join_all;
use serde_json::{Value, json};
use tests::{Program, Sekali, servers, until};

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
async fn every_gateway_tells_the_same_and_a_restart_changes_nothing() {
    let mut sekali = Sekali::full(2).await;
    sekali.add_gateway().await;
    let batch: Value = (0..500)
        .map(|n| event("t", &(n % 400).to_string()))
        .collect();
    sekali.publish(&batch).await.ok();
    let told = sekali.settled().await;
    let ask = async |sekali: &Sekali, gateway: usize| -> Value {
        let url = sekali.url_of(gateway, "/stats");
        let mut stats = sekali.ask(sekali.client().get(url)).await.ok();
        for changing in ["uptime", "uptime_seconds", "throughput", "recorded_rate"] {
            assert!(stats.as_object_mut().unwrap().remove(changing).is_some());
        }
        stats
    };
    let before = ask(&sekali, 0).await;
    assert_eq!(before["received"], told["received"]);
    assert_eq!(ask(&sekali, 1).await, before);
    sekali.restart_everything().await;
    assert_eq!(ask(&sekali, 0).await, before);
    assert_eq!(ask(&sekali, 1).await, before);
    assert_eq!(counts(&before), [500, 400, 100, 0, 0]);
}

#[tokio::test]
async fn pages_are_stable_while_others_write() {
    for sekali in Sekali::of_each_kind().await {
        let at = |n: usize| {
            let mut event = event(&format!("t{}", n % 3), &n.to_string());
            event["timestamp"] = json!(format!("2026-01-01T00:{:02}:00Z", n % 60));
            event
        };
        let old: Value = (0..1000).map(at).collect();
        sekali.publish(&old).await.ok();
        sekali.settled().await;
        let mut seen = Vec::new();
        let mut path = "/events?limit=70".to_owned();
        for page in 1000.. {
            let answer = sekali.get(&path).await;
            let events = answer.ok();
            seen.extend(events.as_array().unwrap().iter().map(|event| {
                (
                    event["timestamp"].as_str().unwrap().to_owned(),
                    event["event_id"]
                        .as_str()
                        .unwrap()
                        .parse::<usize>()
                        .unwrap(),
                )
            }));
            // Someone writes between two pages.
            sekali.store(&at(page)).await.ok();
            let Some(next) = next(answer.header("link")) else {
                break;
            };
            path = next;
        }
        assert!(seen.is_sorted_by(|a, b| a.0 >= b.0), "newest first");
        let mut old: Vec<_> = seen.iter().map(|(_, n)| *n).filter(|n| *n < 1000).collect();
        old.sort_unstable();
        assert_eq!(old, (0..1000).collect::<Vec<_>>(), "each once");
        let lines = sekali
            .ask(
                sekali
                    .client()
                    .get(sekali.url("/events?limit=10000"))
                    .header("accept", "application/x-ndjson"),
            )
            .await;
        let all: Vec<Value> = lines
            .body
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            Value::from(all),
            sekali.get("/events?limit=10000").await.ok()
        );
    }
}

/// The path of the next page.
fn next(link: &str) -> Option<String> {
    let (path, _) = link.strip_prefix('<')?.split_once('>')?;
    Some(path.to_owned())
}

#[tokio::test]
async fn filters_choose_what_they_say() {
    for sekali in Sekali::of_each_kind().await {
        let body: Value = (0..20)
            .map(|n| {
                let mut event = event(if n % 2 == 0 { "even" } else { "odd" }, &n.to_string());
                event["timestamp"] = json!(format!("2026-01-01T00:00:{n:02}Z"));
                event["source"] = json!(format!("s{}", n % 5));
                event
            })
            .collect();
        sekali.publish(&body).await.ok();
        sekali.settled().await;
        for (query, expected) in [
            ("?topic=even&limit=3", vec!["18", "16", "14"]),
            ("?source=s1", vec!["16", "11", "6", "1"]),
            ("?topic=odd&source=s1", vec!["11", "1"]),
            ("?from=2026-01-01T00:00:17Z", vec!["19", "18", "17"]),
            ("?to=2026-01-01T00:00:02Z", vec!["1", "0"]),
            (
                "?from=2026-01-01T07:00:03+07:00&to=2026-01-01T00:00:05Z",
                vec!["4", "3"],
            ),
            (
                "?topic=even&from=2026-01-01T00:00:05Z&to=2026-01-01T00:00:08Z",
                vec!["6"],
            ),
        ] {
            let events = sekali.events(query).await;
            let ids: Vec<_> = events
                .iter()
                .map(|event| event["event_id"].as_str().unwrap())
                .collect();
            assert_eq!(ids, expected, "{query}");
        }
    }
}

#[tokio::test]
async fn a_worker_that_is_killed_loses_nothing_and_counts_nothing_twice() {
    let mut sekali = Sekali::full(2).await;
    let mut sent = 0;
    for round in 0..20 {
        let batch: Value = (0..300)
            .map(|n| event("t", &format!("{round}-{}", n % 200)))
            .collect();
        sekali.publish(&batch).await.ok();
        sent += 300;
        if round % 5 == 2 {
            sekali.worker(round % 2).kill();
            let name = format!("worker-{}", round % 2);
            sekali.add_worker(&name);
        }
    }
    assert_eq!(counts(&sekali.settled().await), [sent, 4000, 2000, 0, 0]);
}

#[tokio::test]
async fn a_gateway_that_is_told_to_end_answers_what_it_has_begun() {
    for mut sekali in Sekali::of_each_kind().await {
        let events: Vec<_> = (0..50).map(|n| event("t", &n.to_string())).collect();
        let publish = async |one: &Value| {
            let request = sekali
                .client()
                .post(sekali.url("/publish"))
                .body(one.to_string());
            request
                .send()
                .await
                .is_ok_and(|answer| answer.status() == 200)
        };
        let (answers, ()) = tokio::join!(join_all(events.iter().map(publish)), async {
            sekali.signal_gateway("TERM");
        });
        let acknowledged = answers.iter().filter(|good| **good).count();
        assert!(sekali.gateway(0).ended().await.success());
        sekali.replace_gateway().await;
        let stats = sekali.settled().await;
        assert!(stats["unique_processed"].as_u64().unwrap() >= acknowledged as u64);
        for (one, good) in events.iter().zip(answers) {
            if good {
                let path = format!("/events/t/{}", one["event_id"].as_str().unwrap());
                assert_eq!(sekali.get(&path).await.status, 200);
            }
        }
    }
}

#[tokio::test]
async fn a_file_that_its_gateway_has_closed_is_whole_by_itself() {
    let mut sekali = Sekali::embedded().await;
    sekali.publish(&event("t", "1")).await.ok();
    assert!(sekali.gateway(0).terminate().await.success());
    let file = sekali.database().strip_prefix("sqlite://").unwrap();
    assert!(!std::path::Path::new(&format!("{file}-wal")).exists());
    sekali.replace_gateway().await;
    assert_eq!(counts(&sekali.settled().await), [1, 1, 0, 0, 0]);
}

#[tokio::test]
async fn a_redis_that_dies_at_three_in_the_morning_costs_nothing() {
    let mut sekali = Sekali::full(1).await;
    sekali.publish(&event("t", "1")).await.ok();
    sekali.redis().program().kill();
    let during = sekali.publish(&event("t", "2")).await;
    assert!([503, 504].contains(&during.status), "{}", during.body);
    assert_eq!(during.header("retry-after"), "1");
    let after = sekali.publish(&event("t", "2")).await;
    assert_eq!(after.status, 503, "{}", after.body);
    until("the gateway is not ready", async || {
        sekali.get("/readyz").await.status == 503
    })
    .await;
    assert_eq!(sekali.get("/livez").await.status, 200);
    let stats = sekali.get("/stats").await;
    assert_eq!(stats.status, 503, "never half a truth");
    assert!(stats.body.contains("queue"), "{}", stats.body);

    sekali.redis().restart().await;
    until("the gateway is ready", async || {
        sekali.get("/readyz").await.status == 200
    })
    .await;
    until("the sender gets through", async || {
        sekali.publish(&event("t", "2")).await.status == 200
    })
    .await;
    let stats = sekali.settled().await;
    assert_eq!(stats["unique_processed"], 2);
}

#[tokio::test]
async fn without_its_database_a_worker_waits_and_the_queue_takes() {
    let mut server = servers::Postgres::start(&[]).await;
    let database = server.database().await;
    let mut sekali = Sekali::full_over(database, 1).await;
    sekali.publish(&event("t", "1")).await.ok();
    sekali.settled().await;
    server.program().kill();
    for n in 2..50 {
        sekali.publish(&event("t", &n.to_string())).await.ok();
    }
    assert_eq!(sekali.get("/stats").await.status, 503);
    assert_eq!(sekali.get("/readyz").await.status, 200, "it can still take");
    assert!(!sekali.worker(0).has_ended());
    server.restart().await;
    assert_eq!(counts(&sekali.settled().await), [49, 49, 0, 0, 0]);
}

#[tokio::test]
async fn what_is_stored_is_told_to_those_who_follow() {
    for sekali in Sekali::of_each_kind().await {
        sekali.settled().await;
        let mut stream = sekali
            .client()
            .get(sekali.url("/events/stream?topic=t"))
            .send()
            .await
            .unwrap();
        let mut heard = String::new();
        let mut sent = 0;
        until("an event is told", async || {
            // With a queue a listener is known after a moment.
            let events = json!([
                event("other", &sent.to_string()),
                event("t", &sent.to_string())
            ]);
            sekali.publish(&events).await.ok();
            sent += 1;
            let next = tokio::time::timeout(std::time::Duration::from_millis(200), stream.chunk());
            if let Ok(Ok(Some(chunk))) = next.await {
                heard.push_str(std::str::from_utf8(&chunk).unwrap());
            }
            heard.contains("event: stored\ndata: {\"topic\":\"t\"")
        })
        .await;
        assert!(!heard.contains("other"), "{heard}");
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
async fn an_entry_of_a_later_release_waits_for_a_worker_that_knows_it() {
    let mut sekali = Sekali::full(1).await;
    let mut client = redis::Client::open(sekali.redis().url()).unwrap();
    let mut add = redis::cmd("XADD");
    add.arg("sekali:{0}:events").arg("*");
    add.arg(&["v", "2", "n", "1", "new", "x"]);
    let _: String = add.query(&mut client).unwrap();
    let _: i64 = redis::cmd("INCR")
        .arg("sekali:{0}:in")
        .query(&mut client)
        .unwrap();
    sekali.publish(&event("t", "1")).await.ok();
    until("the known one is stored", async || {
        let stats = sekali.get("/stats").await;
        stats.status == 200 && stats.json()["unique_processed"] == 1
    })
    .await;
    let stats = sekali.stats().await;
    assert_eq!(
        (&stats["queue_depth"], &stats["buried"]),
        (&json!(1), &json!(0))
    );
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
            "--api-keys-file",
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
        until("it has said why", async || program.log().contains("error")).await;
        let log = program.log();
        assert_eq!(status.code(), Some(64), "{arguments:?}: {log}");
        assert!(log.contains(word), "{arguments:?}: {log}");
        assert!(!log.contains("hunter2"), "{arguments:?}: {log}");
    }
}
