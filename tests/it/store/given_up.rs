//! Changes whose caller goes away while they are under way.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use event::{EventId, Topic};
use store::{Counts, Filter, Outcome, Recorded, Store};

use super::{batch, counts, event, ids, now, over_each, record};
use Outcome::Stored;

/// More than any change waits, also on a new connection. Each is given up at each several times: a
/// database that answers before it is waited for is not, that time.
const WAITS: u32 = 80;
const ROUNDS: u32 = 3 * WAITS;

#[tokio::test]
async fn what_is_recorded_after_a_delete_that_was_given_up_is_kept() {
    over_each(async |database| {
        let store = database.store(10);
        let topic = Topic::parse("t").unwrap();
        for round in 0..ROUNDS {
            let old = event("t", &format!("old-{round}"), "{}");
            record(&store, &[batch(u128::from(round) * 2, &[old])]).await;
            given_up_at(round % WAITS, Box::pin(store.delete_topic(&topic))).await;
            let new = format!("new-{round}");
            let recorded = batch(u128::from(round) * 2 + 1, &[event("t", &new, "{}")]);
            assert_eq!(
                record(&store, &[recorded]).await,
                [Recorded::Now(vec![Stored])]
            );
            assert!(is_kept(&store, "t", &new).await, "{round}");
            let counts = counts(&store).await;
            let kept = ids(&store, &Filter::default()).await.len();
            assert!(counts.balance());
            assert_eq!(counts.unique, i64::try_from(kept).unwrap());
        }
    })
    .await;
}

#[tokio::test]
async fn a_recording_that_was_given_up_counts_once_when_it_is_tried_again() {
    over_each(async |database| {
        let store = database.store(1_000);
        // It is connected, so that the first wait is for the transaction to begin.
        store.refresh_topics().await.unwrap();
        for round in 0..ROUNDS {
            let topic = format!("t{round}");
            let same = [batch(u128::from(round), &[event(&topic, "a", "{}")])];
            given_up_at(round % WAITS, Box::pin(store.record(&same, now()))).await;
            record(&store, &same).await;
            assert!(is_kept(&store, &topic, "a").await, "{round}");
            let expected = Counts {
                received: i64::from(round) + 1,
                unique: i64::from(round) + 1,
                ..Counts::default()
            };
            assert_eq!(counts(&store).await, expected, "{round}");
        }
    })
    .await;
}

/// Drops a change when it waits after so many times that it did, if it ever does: the last
/// never does, so that every wait before the end is among them.
async fn given_up_at<T>(wait: u32, mut change: Pin<Box<impl Future<Output = T>>>) {
    let mut waits = 0;
    let is_done = poll_fn(|context| {
        let is_done = change.as_mut().poll(context).is_ready();
        if is_done || waits == wait {
            return Poll::Ready(is_done);
        }
        waits += 1;
        Poll::Pending
    });
    assert!(is_done.await || wait < WAITS - 1, "it waits longer");
}

async fn is_kept(store: &Store, topic: &str, id: &str) -> bool {
    let topic = Topic::parse(topic.to_owned()).unwrap();
    let id = EventId::parse(id.to_owned()).unwrap();
    store.event(&topic, &id).await.unwrap().is_some()
}
