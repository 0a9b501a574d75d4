//! What is stored, told to those who follow.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::servers::Redis;
use tests::{Proxy, Sekali, until};

use crate::path::event;

#[tokio::test]
async fn what_is_stored_is_told_to_those_who_follow() {
    for sekali in Sekali::of_each_kind().await {
        sekali.settled().await;
        let mut stream = follow(&sekali, "?topic=t").await;
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
            heard.push_str(&hear(&mut stream).await);
            heard.contains("event: stored\ndata: {\"topic\":\"t\"")
        })
        .await;
        assert!(!heard.contains("other"), "{heard}");
    }
}

async fn follow(sekali: &Sekali, query: &str) -> reqwest::Response {
    let url = sekali.url(&format!("/events/stream{query}"));
    sekali.client().get(url).send().await.unwrap()
}

/// What is told next, if that is within a moment.
async fn hear(stream: &mut reqwest::Response) -> String {
    let next = tokio::time::timeout(Duration::from_millis(200), stream.chunk());
    match next.await {
        Ok(Ok(Some(chunk))) => String::from_utf8(chunk.to_vec()).unwrap(),
        _ => String::new(),
    }
}

#[tokio::test]
async fn those_who_follow_hold_up_no_answer_even_if_the_queue_is_silent() {
    let (sekali, line) = behind_a_line().await;
    let mut stream = follow(&sekali, "").await;
    hear_of_one(&sekali, &mut stream, "old").await;
    line.stall();
    let began = Instant::now();
    sekali.store(&event("t", "last")).await.ok();
    // An answer of Redis is waited for for five seconds.
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(3), "{waited:?}");
}

#[tokio::test]
async fn those_who_follow_hear_of_what_is_stored_after_another_redis_took_over() {
    let (mut sekali, line) = behind_a_line().await;
    let mut stream = follow(&sekali, "").await;
    hear_of_one(&sekali, &mut stream, "old").await;
    let new = Redis::start().await;
    // Nobody is there, so that it has nothing to load. Its connections stay open.
    sekali.redis().command(&["REPLICAOF", "127.0.0.1", "1"]);
    line.lead_to(new.address());
    until("who follows is let go", async || {
        sekali.store(&event("meanwhile", "1")).await.ok();
        has_ended(&mut stream).await
    })
    .await;
    let mut stream = follow(&sekali, "").await;
    hear_of_one(&sekali, &mut stream, "new").await;
}

/// Whether the stream has an end, as of a moment.
async fn has_ended(stream: &mut reqwest::Response) -> bool {
    let next = tokio::time::timeout(Duration::from_millis(200), stream.chunk());
    matches!(next.await, Ok(Ok(None)))
}

/// A Sekali that reaches its Redis by way of a proxy.
async fn behind_a_line() -> (Sekali, Proxy) {
    let mut sekali = Sekali::full(0).await;
    let line = Proxy::to(sekali.redis().address()).await;
    let database = sekali.database().to_owned();
    sekali.lead(line.address(), &database);
    sekali.replace_gateway().await;
    (sekali, line)
}

/// Stores events of the topic until one of them is told.
async fn hear_of_one(sekali: &Sekali, stream: &mut reqwest::Response, topic: &str) {
    let told = format!("event: stored\ndata: {{\"topic\":\"{topic}\"");
    let mut sent = 0;
    until("an event is told", async || {
        sekali.store(&event(topic, &sent.to_string())).await.ok();
        sent += 1;
        hear(stream).await.contains(&told)
    })
    .await;
}
