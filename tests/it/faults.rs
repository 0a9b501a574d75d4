//! The promise, while processes end and servers are away.

use futures::future::join_all;
use serde_json::{Value, json};
use tests::{Sekali, servers, until};

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
