//! Connections that die without a word.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tests::servers::{self, Postgres};
use tests::{Proxy, Sekali, metrics, until};

use crate::contract::is_problem;
use crate::path::event;
use crate::promise::counts;

/// Over a line to a PostgreSQL of its own.
async fn over_a_line() -> (Postgres, Proxy, String) {
    let server = Postgres::start(&[]).await;
    let database = server.database().await;
    let line = Proxy::to(server.address()).await;
    let (_, name) = database.rsplit_once('/').unwrap();
    let through = format!("postgres://postgres@{}/{name}", line.address());
    (server, line, through)
}

/// Somebody else, who locks the table of topics until this is dropped.
async fn lock_topics(url: &str, mode: &str) -> PgConnection {
    let mut outsider = PgConnection::connect(url).await.unwrap();
    let lock = format!("BEGIN; LOCK TABLE topics IN {mode} MODE");
    let lock = sqlx::raw_sql(AssertSqlSafe(lock));
    lock.execute(&mut outsider).await.unwrap();
    outsider
}

/// A statement is under way when its connection dies: nobody ever answers it.
#[tokio::test]
async fn a_worker_whose_connection_dies_while_it_waits_for_an_answer_goes_on_over_another() {
    let (server, line, through) = over_a_line().await;
    let sekali = Sekali::full_over(through, 1).await;
    sekali.publish(&event("known", "1")).await.ok();
    sekali.settled().await;
    // A new topic needs a number first.
    let (_, name) = sekali.database().rsplit_once('/').unwrap();
    let outsider = lock_topics(&server.url(name), "ACCESS EXCLUSIVE").await;
    sekali.publish(&event("new", "1")).await.ok();
    // The gateway's looks at the topics wait as well.
    until("the worker waits for the lock", async || {
        servers::somebody_waits_to(&server.url(name), "INSERT INTO topics").await
    })
    .await;
    line.strand();
    let stranded = Instant::now();
    drop(outsider);
    // The gateway's own connections are dead as well, so that it takes a moment, too.
    until("both are stored", async || {
        let stats = sekali.get("/stats").await;
        stats.status == 200 && counts(&stats.json()) == [2, 2, 0, 0, 0]
    })
    .await;
    // An answer is waited for for 15 seconds, and then there is another attempt.
    assert!(stranded.elapsed() < Duration::from_secs(25));
}

#[tokio::test]
async fn a_gateway_whose_connections_all_died_answers_after_a_moment() {
    let (_server, line, through) = over_a_line().await;
    let sekali = Sekali::full_over(through, 1).await;
    let ask = || sekali.get("/stats");
    // Some at once, so that there are several idle connections.
    let asked = futures::future::join_all((0..8).map(|_| ask())).await;
    assert!(asked.iter().all(|answer| answer.status == 200));
    line.strand();
    let began = Instant::now();
    until("the statistics can be read", async || {
        ask().await.status == 200
    })
    .await;
    // A second for each of eight, and as much again for a busy machine.
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(16), "{waited:?}");
    let stored = sekali.store(&event("t", "1")).await.ok();
    assert_eq!(stored["stored"], json!(1));
}

/// A server is lost without a word while it is asked something on every connection.
#[tokio::test]
async fn a_gateway_whose_connections_died_under_as_many_questions_has_others_soon_after() {
    let (server, line, through) = over_a_line().await;
    let sekali = Sekali::full_over(through, 0).await;
    sekali.store(&event("t", "1")).await.ok();
    let (_, name) = sekali.database().rsplit_once('/').unwrap();
    let mut outsider = lock_topics(&server.url(name), "ACCESS EXCLUSIVE").await;
    let asked = futures::future::join_all((0..8).map(|_| sekali.get("/topics")));
    let strand = async {
        until("all its connections wait", async || {
            let waiting = sqlx::query_scalar("SELECT count(*) FROM pg_locks WHERE NOT granted");
            let waiting: i64 = waiting.fetch_one(&mut outsider).await.unwrap();
            waiting >= 8
        })
        .await;
        line.strand();
        Instant::now()
    };
    let (answers, stranded) = tokio::join!(asked, strand);
    assert!(answers.iter().all(|answer| answer.status == 503));
    drop(outsider);
    until("the topics can be read", async || {
        sekali.get("/topics").await.status == 200
    })
    .await;
    // An answer is waited for for 15 seconds.
    let waited = stranded.elapsed();
    assert!(waited < Duration::from_secs(30), "{waited:?}");
}

/// The connection dies while the store is asked to delete, and nobody ever answers.
#[tokio::test]
async fn who_can_not_be_told_whether_a_topic_is_gone_is_told_to_look() {
    let (server, line, through) = over_a_line().await;
    let sekali = Sekali::full_over(through, 0).await;
    sekali.store(&event("t", "1")).await.ok();
    let (_, name) = sekali.database().rsplit_once('/').unwrap();
    let _outsider = lock_topics(&server.url(name), "SHARE").await;
    let delete = sekali.ask(sekali.client().delete(sekali.url("/topics/t")));
    let strand = async {
        until("the gateway waits for the lock", async || {
            servers::somebody_waits(&server.url(name)).await
        })
        .await;
        line.strand();
    };
    let (answer, ()) = tokio::join!(delete, strand);
    assert_eq!(answer.status, 504, "{}", answer.body);
    is_problem(&answer, "a topic");
    assert!(answer.body.contains("look before"), "{}", answer.body);
}

/// Of each connection, in bytes a second.
const NARROW: u32 = 160_000;

/// An event whose payload is so long.
fn long_event(id: &str, bytes: usize) -> Value {
    let mut long = event("t", id);
    long["payload"] = json!({"text": "x".repeat(bytes)});
    long
}

async fn retries(sekali: &mut Sekali) -> i64 {
    let told = sekali.worker_metrics(0).await;
    let name = "sekali_worker_retries_total";
    metrics::sum(&told, name, "dependency=\"store\"").unwrap()
}

/// The server takes what it waits for to be idle until all of it has come.
#[tokio::test]
async fn a_worker_on_a_narrow_line_stores_what_takes_seconds_to_be_sent() {
    let (_server, line, through) = over_a_line().await;
    let mut sekali = Sekali::full_over(through, 1).await;
    // So that what follows is of a topic that is known.
    sekali.publish(&event("t", "0")).await.ok();
    sekali.settled().await;
    line.narrow(NARROW);
    // Two seconds and a half, of one event.
    sekali.publish(&long_event("1", 400_000)).await.ok();
    assert_eq!(counts(&sekali.settled().await), [2, 2, 0, 0, 0]);
    assert_eq!(retries(&mut sekali).await, 0);
    // Twelve seconds and a half, of eight, which is too long for one transaction.
    let long: Vec<_> = (2..10)
        .map(|n| long_event(&n.to_string(), 250_000))
        .collect();
    sekali.publish(&json!(long)).await.ok();
    assert_eq!(counts(&sekali.settled().await), [10, 10, 0, 0, 0]);
    assert_ne!(retries(&mut sekali).await, 0);
}
