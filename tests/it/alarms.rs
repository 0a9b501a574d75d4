//! What must never be, and is told if it is.

use redis::FromRedisValue;
use tests::{Sekali, metrics, servers, until};

use crate::path::event;

const EVENTS: &str = "sekali:{0}:events";

/// Asks Redis, as only somebody from outside would.
fn meddle<T: FromRedisValue>(sekali: &mut Sekali, command: &[&str]) -> T {
    let mut client = redis::Client::open(sekali.redis().url()).unwrap();
    let mut asked = redis::cmd(command[0]);
    asked.arg(&command[1..]).query(&mut client).unwrap()
}

async fn is_told(sekali: &Sekali, name: &str, value: i64) {
    until("the gateway tells it", async || {
        metrics::sum(&sekali.metrics(0).await, name, "") == Some(value)
    })
    .await;
}

async fn is_logged(sekali: &mut Sekali, words: &str) {
    until("the worker logs it", async || {
        let log = sekali.worker(0).log();
        log.lines()
            .any(|line| line.contains(words) && line.contains("ERROR"))
    })
    .await;
}

#[tokio::test]
async fn entries_that_no_worker_will_be_given_are_an_alarm_and_so_are_events_that_vanish() {
    let mut sekali = Sekali::full(0).await;
    for id in ["1", "2"] {
        sekali.publish(&event("t", id)).await.ok();
    }
    // Both go to somebody who is removed with them.
    let group = ["XGROUP", "CREATE", EVENTS, "workers", "0"];
    meddle::<()>(&mut sekali, &group);
    let read = [
        "XREADGROUP",
        "GROUP",
        "workers",
        "removed",
        "STREAMS",
        EVENTS,
        ">",
    ];
    meddle::<redis::Value>(&mut sekali, &read);
    is_told(&sekali, "sekali_queue_pending_entries", 2).await;
    is_told(&sekali, "sekali_queue_hidden_entries", 0).await;
    let remove = ["XGROUP", "DELCONSUMER", EVENTS, "workers", "removed"];
    assert_eq!(meddle::<i64>(&mut sekali, &remove), 2);
    is_told(&sekali, "sekali_queue_hidden_entries", 2).await;
    is_told(&sekali, "sekali_queue_lost_events", 0).await;
    sekali.add_worker("worker");
    is_logged(&mut sekali, "entries that no worker will be given").await;

    assert_eq!(
        meddle::<i64>(&mut sekali, &["XTRIM", EVENTS, "MAXLEN", "0"]),
        2
    );
    is_told(&sekali, "sekali_queue_lost_events", 2).await;
    is_logged(&mut sekali, "not all that was counted in").await;
}

#[tokio::test]
async fn books_that_do_not_balance_are_an_alarm() {
    let sekali = Sekali::direct().await;
    sekali.store(&event("t", "1")).await.ok();
    is_told(&sekali, "sekali_books_unbalanced_events", 0).await;
    // The database itself would refuse it.
    let meddle = "ALTER TABLE counters DROP CONSTRAINT counters_balance;
                  UPDATE counters SET received = received + 1";
    servers::execute(sekali.database(), meddle).await;
    is_told(&sekali, "sekali_books_unbalanced_events", 1).await;
}
