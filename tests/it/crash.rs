//! A process that dies, or stops, at each instant that matters, and what the books say then.
//!
//! The instants are in the code (`crash::point!`), in programs that are built for this
//! alone.

use serde_json::{Value, json};
use sqlx::Connection as _;
use tests::servers::{self, Postgres, execute};
use tests::{Proxy, Sekali, until};

use crate::path::event;
use crate::promise::counts;
use crate::verdict;

/// 300 events, of which 100 repeat others.
fn batch() -> Value {
    (0..300)
        .map(|n| event("t", &(n % 200).to_string()))
        .collect()
}

/// What the books say of [`batch`].
const BOOKS: [i64; 5] = [300, 200, 100, 0, 0];

/// Publishes through a gateway, which may die of it: the status, if there is one.
async fn publish(sekali: &Sekali, gateway: usize, path: &str, events: &Value) -> Option<u16> {
    let request = sekali.client().post(sekali.url_of(gateway, path));
    let answer = request.body(events.to_string()).send().await;
    answer.ok().map(|answer| answer.status().as_u16())
}

#[tokio::test]
async fn a_gateway_that_dies_before_the_append_has_taken_nothing() {
    let mut sekali = Sekali::full(1).await;
    sekali.add_doomed_gateway(("CRASH_AT", "append")).await;
    assert_eq!(publish(&sekali, 1, "/publish", &batch()).await, None);
    assert_eq!(counts(&sekali.settled().await), [0; 5]);
    sekali.publish(&batch()).await.ok();
    assert_eq!(counts(&sekali.settled().await), BOOKS);
}

#[tokio::test]
async fn a_gateway_that_dies_after_the_append_has_taken_all_and_a_resend_is_duplicates() {
    let mut sekali = Sekali::full(1).await;
    sekali.add_doomed_gateway(("CRASH_AT", "appended")).await;
    assert_eq!(publish(&sekali, 1, "/publish", &batch()).await, None);
    assert_eq!(counts(&sekali.settled().await), BOOKS);
    sekali.publish(&batch()).await.ok();
    assert_eq!(counts(&sekali.settled().await), [600, 200, 400, 0, 0]);
}

#[tokio::test]
async fn a_gateway_that_dies_around_the_commit_stores_all_or_nothing() {
    let twice = [600, 200, 400, 0, 0];
    for (instant, may_be) in [("commit", &[BOOKS][..]), ("committing", &[BOOKS, twice])] {
        let mut sekali = Sekali::full(1).await;
        sekali.add_doomed_gateway(("CRASH_AT", instant)).await;
        let path = "/publish?ack=stored";
        assert_eq!(publish(&sekali, 1, path, &batch()).await, None);
        // A commit that is on its way is decided before the same keys can be stored again.
        sekali.store(&batch()).await.ok();
        let books = counts(&sekali.settled().await);
        assert!(may_be.contains(&books), "{instant}: {books:?}");
    }
}

#[tokio::test]
async fn a_gateway_over_a_file_that_dies_around_the_commit_stores_all_or_nothing() {
    let twice = [600, 200, 400, 0, 0];
    for (instant, may_be) in [("commit", &[BOOKS][..]), ("committing", &[BOOKS, twice])] {
        let mut sekali = Sekali::embedded().await;
        assert!(sekali.gateway(0).terminate().await.success());
        sekali.replace_doomed_gateway(("CRASH_AT", instant)).await;
        assert_eq!(publish(&sekali, 0, "/publish", &batch()).await, None);
        sekali.replace_gateway().await;
        sekali.store(&batch()).await.ok();
        let books = counts(&sekali.settled().await);
        assert!(may_be.contains(&books), "{instant}: {books:?}");
    }
}

#[tokio::test]
async fn a_gateway_over_a_file_that_is_killed_under_load_has_lost_and_doubled_nothing() {
    let mut sekali = Sekali::embedded().await;
    let line = Proxy::to(sekali.address(0)).await;
    let url = format!("http://{}", line.address());
    let flags = ["--events=20000", "--batch=20", "--rate=4000", "--seed=1"];
    let publishing = verdict::publish_to(&url, &flags);
    let killing = async {
        for events in [2_000, 5_000, 8_000, 11_000, 14_000] {
            until("it is under load", async || {
                sekali.stats().await["received"].as_i64() > Some(events)
            })
            .await;
            sekali.gateway(0).kill();
            sekali.replace_gateway().await;
            line.lead_to(sekali.address(0));
        }
    };
    let ((good, log), ()) = tokio::join!(publishing, killing);
    assert!(good, "{log}");
}

#[tokio::test]
async fn a_worker_that_dies_at_any_instant_is_followed_by_one_of_its_name_and_nothing_shows() {
    for instant in ["delivered", "commit", "committing", "acknowledge"] {
        let mut sekali = Sekali::full(0).await;
        sekali.add_doomed_worker("one", ("CRASH_AT", instant));
        sekali.publish(&batch()).await.ok();
        assert!(!sekali.worker(0).ended().await.success(), "{instant}");
        sekali.add_worker("one");
        assert_eq!(counts(&sekali.settled().await), BOOKS, "{instant}");
    }
}

#[tokio::test]
async fn a_worker_that_dies_while_it_takes_over_from_a_dead_one_is_taken_over_from() {
    let mut sekali = Sekali::full(0).await;
    sekali.add_doomed_worker("one", ("CRASH_AT", "acknowledge"));
    sekali.publish(&batch()).await.ok();
    sekali.worker(0).ended().await;
    sekali.add_doomed_worker("two", ("CRASH_AT", "claimed"));
    assert!(!sekali.worker(1).ended().await.success());
    sekali.add_worker("three");
    assert_eq!(counts(&sekali.settled().await), BOOKS);
}

#[tokio::test]
async fn a_worker_that_stops_inside_its_transaction_is_taken_over_from_and_wakes_in_vain() {
    for instant in ["delivered", "commit", "acknowledge"] {
        let mut sekali = Sekali::full(0).await;
        sekali.add_doomed_worker("one", ("STOP_AT", instant));
        sekali.publish(&batch()).await.ok();
        until("it has stopped", async || sekali.worker(0).is_stopped()).await;
        sekali.add_worker("two");
        assert_eq!(counts(&sekali.settled().await), BOOKS, "{instant}");
        sekali.worker(0).signal("CONT");
        // What it had begun is known by now; what it takes next is not.
        sekali.worker(1).kill();
        sekali.publish(&event("t", "next")).await.ok();
        let [received, unique, duplicates, ..] = BOOKS;
        let expected = [received + 1, unique + 1, duplicates, 0, 0];
        assert_eq!(counts(&sekali.settled().await), expected, "{instant}");
    }
}

#[tokio::test]
async fn a_worker_that_dies_in_its_drain_leaves_nothing_undone() {
    let mut sekali = Sekali::full(0).await;
    sekali.add_doomed_worker("one", ("CRASH_AT", "drain"));
    for round in 0..20 {
        let one = event("t", &round.to_string());
        sekali.publish(&one).await.ok();
    }
    sekali.worker(0).signal("TERM");
    assert!(!sekali.worker(0).ended().await.success());
    sekali.add_worker("one");
    assert_eq!(counts(&sekali.settled().await), [20, 20, 0, 0, 0]);
}

#[tokio::test]
async fn a_worker_that_dies_while_it_forgets_identities_leaves_the_books_alone() {
    let mut sekali = Sekali::full(1).await;
    sekali.publish(&batch()).await.ok();
    sekali.settled().await;
    let old = "INSERT INTO batches (id, recorded_at, events, stored)
         SELECT gen_random_uuid(), now() - interval '8 days', 1, 1
         FROM generate_series(1, 20000)";
    execute(sekali.database(), old).await;
    sekali.add_doomed_worker("two", ("CRASH_AT", "forgetting"));
    assert!(!sekali.worker(1).ended().await.success());
    assert_eq!(counts(&sekali.settled().await), BOOKS);
    sekali.add_worker("two");
    sekali.publish(&batch()).await.ok();
    assert_eq!(counts(&sekali.settled().await), [600, 200, 400, 0, 0]);
}

#[tokio::test]
async fn a_process_that_dies_while_it_migrates_leaves_that_to_the_next() {
    let server = Postgres::start(&[]).await;
    let database = server.database().await;
    // Someone makes a table of that name and does not commit, so that the migration waits.
    let mut outsider = sqlx::PgConnection::connect(&database).await.unwrap();
    sqlx::raw_sql("BEGIN; CREATE TABLE counters (n int)")
        .execute(&mut outsider)
        .await
        .unwrap();
    let arguments = ["--http-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"];
    let url = format!("--database-url={database}");
    let mut migrates =
        tests::Program::start("sekali-aggregator", &[&url, arguments[0], arguments[1]]);
    until("it waits in the migration", async || {
        servers::somebody_waits(&database).await
    })
    .await;
    migrates.kill();
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut outsider)
        .await
        .unwrap();
    let sekali = Sekali::full_over(database, 1).await;
    sekali.publish(&batch()).await.ok();
    assert_eq!(counts(&sekali.settled().await), BOOKS);
}

#[tokio::test]
async fn an_answer_that_is_lost_after_the_append_is_504_and_the_resend_is_counted() {
    let mut sekali = Sekali::full(1).await;
    let queue = Proxy::to(sekali.redis().address()).await;
    let database = sekali.database().to_owned();
    sekali.lead(queue.address(), &database);
    sekali.add_gateway().await;
    let one = event("t", "1");
    assert_eq!(publish(&sekali, 1, "/publish", &one).await, Some(200));
    queue.mute();
    assert_eq!(publish(&sekali, 1, "/publish", &one).await, Some(504));
    queue.mend();
    until("the gateway gets through again", async || {
        publish(&sekali, 1, "/publish", &json!([])).await == Some(200)
            && sekali
                .ask(sekali.client().get(sekali.url_of(1, "/stats")))
                .await
                .status
                == 200
    })
    .await;
    assert_eq!(counts(&sekali.settled().await), [2, 1, 1, 0, 0]);
    assert_eq!(publish(&sekali, 1, "/publish", &one).await, Some(200));
    assert_eq!(counts(&sekali.settled().await), [3, 1, 2, 0, 0]);
}

#[tokio::test]
async fn an_answer_that_is_lost_after_the_commit_is_504_and_the_resend_is_counted() {
    let mut sekali = Sekali::full(1).await;
    let (_, rest) = sekali.database().split_once('@').unwrap();
    let (server, name) = rest.split_once('/').unwrap();
    let line = Proxy::to(server.parse().unwrap()).await;
    let database = format!("postgres://postgres@{}/{name}", line.address());
    let queue = sekali.redis().address();
    sekali.lead(queue, &database);
    sekali.add_doomed_gateway(("STOP_AT", "commit")).await;
    let one = event("t", "1");
    let path = "/publish?ack=stored";
    let (status, ()) = tokio::join!(publish(&sekali, 1, path, &one), async {
        until("it stops before the commit", async || {
            sekali.is_gateway_stopped(1)
        })
        .await;
        line.mute();
        sekali.signal(1, "CONT");
    });
    assert_eq!(status, Some(504));
    line.mend();
    assert_eq!(counts(&sekali.settled().await), [1, 1, 0, 0, 0]);
    let again = sekali.store(&one).await.ok();
    assert_eq!(again["duplicates"], 1);
    assert_eq!(counts(&sekali.settled().await), [2, 1, 1, 0, 0]);
}
