//! A queue that is full.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Sekali, until};

use crate::path::event;
use crate::promise::counts;

fn ask<T: redis::FromRedisValue>(sekali: &mut Sekali, words: &[&str]) -> T {
    let mut client = redis::Client::open(sekali.redis().url()).unwrap();
    redis::cmd(words[0])
        .arg(&words[1..])
        .query(&mut client)
        .unwrap()
}

/// A request of a hundred events of a kilobyte.
fn request(number: usize) -> Value {
    let event = |n: usize| {
        let mut event = event("t", &format!("{number}-{n}"));
        event["payload"] = json!({"filler": "x".repeat(1_000)});
        event
    };
    (0..100).map(event).collect()
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_keeps_nothing_of_it_and_a_worker_empties_it() {
    let mut sekali = Sekali::full(0).await;
    ask::<()>(&mut sekali, &["CONFIG", "SET", "maxmemory", "16mb"]);
    let mut taken = 0;
    let refused = loop {
        let answer = sekali.publish(&request(taken)).await;
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
    };
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.json()["type"], "urn:sekali:queue-full");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(sekali.get("/readyz").await.status, 200, "it is not broken");

    until("the log says so", async || {
        sekali
            .gateway(0)
            .log()
            .contains("the queue is full; senders")
    })
    .await;

    let counted = |sekali: &mut Sekali| -> (u64, u64) {
        let entries = ask(sekali, &["XLEN", "sekali:{0}:events"]);
        (entries, ask(sekali, &["GET", "sekali:{0}:in"]))
    };
    let before = counted(&mut sekali);
    let memory = sekali.gateway(0).memory();
    let mut times = Vec::new();
    for number in 0..300 {
        let body = request(1_000_000 + number);
        let began = Instant::now();
        let status = sekali.publish(&body).await.status;
        times.push(began.elapsed());
        assert_eq!(status, 503);
    }
    times.sort();
    // Half of them, since this machine may be busy with other tests; `docs/reliability.md`
    // has the slowest of a hundred.
    assert!(times[150] < Duration::from_millis(10), "{:?}", times[150]);
    println!(
        "refused within {:?} (p50), {:?} (p99)",
        times[150], times[297]
    );
    assert_eq!(counted(&mut sekali), before, "nothing of it was taken");
    let grown = sekali.gateway(0).memory().saturating_sub(memory);
    assert!(grown < 32 * 1024 * 1024, "{grown} bytes more");

    sekali.add_worker("one");
    let stored = i64::try_from(taken).unwrap() * 100;
    assert_eq!(counts(&sekali.settled().await), [stored, stored, 0, 0, 0]);
    sekali.publish(&request(taken)).await.ok();
    let stored = stored + 100;
    assert_eq!(counts(&sekali.settled().await), [stored, stored, 0, 0, 0]);
}
