//! The promise, while processes end and servers are away.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::Value;
use tests::{Sekali, metrics, servers, until};

use crate::path::event;
use crate::promise::counts;

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
        // The two take turns: a new one is the last of them.
        if round % 5 == 2 {
            sekali.worker(0).kill();
            sekali.replace_worker(&format!("worker-{}", round / 5 % 2));
        }
    }
    assert_eq!(counts(&sekali.settled().await), [sent, 4000, 2000, 0, 0]);
}

#[tokio::test]
async fn a_gateway_that_is_told_to_end_answers_what_it_has_begun() {
    for mut sekali in Sekali::of_each_kind().await {
        let events: Vec<_> = (0..2_000).map(|n| event("t", &n.to_string())).collect();
        let answered = Cell::new(0);
        let publish = async |one: &Value| {
            let request = sekali.client().post(sekali.url("/publish"));
            let answer = request.body(one.to_string()).send().await;
            let is_good = answer.is_ok_and(|answer| answer.status() == 200);
            answered.set(answered.get() + i64::from(is_good));
        };
        let sending = futures::stream::iter(&events)
            .map(publish)
            .buffer_unordered(16);
        tokio::join!(sending.collect::<Vec<()>>(), async {
            until("some are answered", async || answered.get() > 100).await;
            sekali.signal_gateway("TERM");
        });
        let answered = answered.get();
        assert!(answered < 2_000, "it ended after all of them");
        assert!(sekali.gateway(0).ended().await.success());
        sekali.replace_gateway().await;
        // What was taken was answered, and what was answered is there.
        let expected = [answered, answered, 0, 0, 0];
        assert_eq!(counts(&sekali.settled().await), expected);
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
    let mut unknown = i64::from(during.status == 504);
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
        let answer = sekali.publish(&event("t", "2")).await;
        unknown += i64::from(answer.status == 504);
        answer.status == 200
    })
    .await;
    let [received, unique, duplicates, ..] = counts(&sekali.settled().await);
    assert_eq!((unique, duplicates), (2, received - 2));
    assert!(
        received <= 2 + unknown,
        "a 503 has taken something: {received} with {unknown} unknown"
    );
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
async fn a_database_that_is_read_only_for_a_while_buries_nothing() {
    let mut sekali = Sekali::full(1).await;
    let url = sekali.database().to_owned();
    let (_, name) = url.rsplit_once('/').unwrap();
    let read_only = async |set: &str| {
        let alter = format!(
            "BEGIN READ WRITE;
             ALTER DATABASE {name} SET default_transaction_read_only = {set};
             COMMIT"
        );
        servers::execute(&url, &alter).await;
        servers::cut_off(&url).await;
    };
    read_only("on").await;
    for n in 0..50 {
        sekali.publish(&event("t", &n.to_string())).await.ok();
    }
    until("the worker has tried", async || {
        let told = sekali.worker_metrics(0).await;
        metrics::sum(&told, "sekali_worker_retries_total", "store") > Some(0)
    })
    .await;
    read_only("off").await;
    assert_eq!(counts(&sekali.settled().await), [50, 50, 0, 0, 0]);
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_is_prompt_and_another_does_the_rest() {
    let mut sekali = Sekali::full(1).await;
    let mut told = Instant::now();
    for round in 0..20 {
        let batch: Value = (0..300)
            .map(|n| event("t", &format!("{round}-{}", n % 200)))
            .collect();
        sekali.publish(&batch).await.ok();
        if round == 10 {
            sekali.worker(0).signal("TERM");
            told = Instant::now();
        }
    }
    assert!(sekali.worker(0).ended().await.success());
    assert!(told.elapsed() < Duration::from_secs(5));
    sekali.replace_worker("another");
    assert_eq!(counts(&sekali.settled().await), [6_000, 4_000, 2_000, 0, 0]);
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
    let mut stats = Value::Null;
    until("the known one is stored, and the other waits", async || {
        stats = sekali.stats().await;
        stats["unique_processed"] == 1 && stats["queue_depth"] == 1
    })
    .await;
    assert_eq!(stats["buried"], 0);
}

#[tokio::test]
async fn a_database_that_was_put_back_beneath_a_worker_gets_its_topics_again() {
    let sekali = Sekali::full(1).await;
    sekali.publish(&event("made-since", "1")).await.ok();
    sekali.settled().await;
    // An older copy: the same epoch, and nothing that was made since.
    let older = "TRUNCATE events, topics, counters, batches RESTART IDENTITY";
    servers::execute(sekali.database(), older).await;
    // Another topic takes the number that the worker remembers.
    let other = "INSERT INTO topics (name) VALUES ('another')";
    servers::execute(sekali.database(), other).await;
    for id in ["1", "2"] {
        sekali.publish(&event("made-since", id)).await.ok();
    }
    assert_eq!(counts(&sekali.settled().await), [2, 2, 0, 0, 0]);
    assert_eq!(sekali.events("?topic=made-since").await.len(), 2);
    assert_eq!(sekali.events("?topic=another").await.len(), 0);
}
