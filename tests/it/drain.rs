//! What may hold up the end of a process, and what may not.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::Sekali;
use tests::wire::Wire;

use crate::path::event;

/// Events of a megabyte each, far beyond what the kernel takes ahead of a reader.
const EVENTS: usize = 32;

#[tokio::test]
async fn a_follower_that_stalls_holds_no_drain_up() {
    let mut sekali = Sekali::embedded().await;
    let mut follower = Wire::connect(sekali.address(0)).await;
    let follow = "GET /events/stream HTTP/1.1\r\nhost: x\r\n\r\n";
    assert!(follower.send(follow).await);
    let head = follower.answers(1).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let payload = json!({"filler": "x".repeat(1_000_000)});
    for number in 0..EVENTS {
        let mut event = event("t", &number.to_string());
        event["payload"] = payload.clone();
        sekali.store(&event).await.ok();
    }

    let begun = Instant::now();
    let status = sekali.gateway(0).terminate().await;
    let took = begun.elapsed();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    drop(follower);
}
