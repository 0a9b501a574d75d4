//! From POST to the table to GET.

use serde_json::{Value, json};
use tests::Sekali;

/// An event of which only the id matters.
pub(crate) fn event(topic: &str, id: &str) -> Value {
    json!({
        "topic": topic, "event_id": id, "timestamp": "2026-01-01T00:00:00Z",
        "source": "test", "payload": {"n": 1},
    })
}

#[tokio::test]
async fn one_event_goes_from_post_to_get() {
    for sekali in [
        Sekali::embedded().await,
        Sekali::direct().await,
        Sekali::full(1).await,
    ] {
        let answer = sekali.publish(&event("orders", "a")).await;
        assert_eq!(
            answer.ok(),
            json!({"status": "queued", "count": 1, "accepted": 1})
        );
        let stats = sekali.settled().await;
        assert_eq!(
            (&stats["received"], &stats["unique_processed"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(stats["topics"], json!(["orders"]));
        let events = sekali.events("?topic=orders").await;
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["payload"], json!({"n": 1}));
        assert_eq!(sekali.get("/events/orders/a").await.ok(), events[0]);
        assert_eq!(sekali.get("/events/orders/b").await.status, 404);
    }
}

#[tokio::test]
async fn a_resend_is_dropped_and_counted() {
    for sekali in Sekali::of_each_kind().await {
        for _ in 0..3 {
            assert_eq!(sekali.publish(&event("orders", "a")).await.status, 200);
        }
        let stats = sekali.settled().await;
        assert_eq!(stats["received"], 3);
        assert_eq!(stats["unique_processed"], 1);
        assert_eq!(stats["duplicate_dropped"], 2);
        assert_eq!(sekali.events("").await.len(), 1);
    }
}
