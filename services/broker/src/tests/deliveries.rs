//! What is delivered, to whom, and when again.

use std::time::{Duration, Instant};

use ::redis::Value;
use ::tests::until;

use super::redis::Redis;
use super::{NEVER, WAIT, acknowledge, append, ids};
use crate::Delivery;

const STREAM: &str = "test:{0}:events";

#[tokio::test]
async fn a_delivery_holds_about_as_many_events_as_were_asked_for() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    append(&broker, 0..500, 1).await;
    append(&broker, 500..600, 100).await;
    let mut consumer = broker.consumer("one", NEVER);
    let mut all = Vec::new();
    let mut sizes = Vec::new();
    while all.len() < 600 {
        let delivered = consumer.next(200, WAIT).await.unwrap();
        let events = |delivery: &Delivery| delivery.batch.events.count();
        sizes.push(delivered.iter().map(events).sum::<u32>());
        all.extend(ids(&delivered));
    }
    assert_eq!(all, (0..600).collect::<Vec<_>>());
    // Where entries change, a delivery may be of what the last ones were like.
    assert!(sizes[..2].iter().all(|events| *events == 200), "{sizes:?}");
    assert!(sizes[2] < 128 * 100, "{sizes:?}");
    assert!(sizes[3..].iter().all(|events| *events <= 200), "{sizes:?}");
}

#[tokio::test]
async fn what_was_given_to_a_name_is_given_to_it_again() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    append(&broker, 1..3, 1).await;
    let mut before = broker.consumer("one", NEVER);
    assert_eq!(ids(&before.next(100, WAIT).await.unwrap()), [1, 2]);
    append(&broker, 3..4, 1).await;

    let mut after = broker.consumer("one", NEVER);
    let again = after.next(100, WAIT).await.unwrap();
    assert_eq!(ids(&again), [1, 2]);
    acknowledge(&mut after, &again).await;
    assert_eq!(ids(&after.next(100, WAIT).await.unwrap()), [3]);
}

#[tokio::test]
async fn what_was_delivered_to_a_read_that_was_given_up_is_read_again() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    let mut consumer = broker.consumer("one", NEVER);
    for id in 0..20 {
        // Dropped while it waits, at whatever moment.
        let given_up = consumer.next(100, Duration::from_secs(1));
        let gave_up = tokio::time::timeout(Duration::from_millis(id % 5), given_up).await;
        let mut found = gave_up.map_or_else(|_| Vec::new(), |read| ids(&read.unwrap()));
        append(&broker, u128::from(id)..u128::from(id) + 1, 1).await;
        while found.last() != Some(&u128::from(id)) {
            let delivered = consumer.next(100, WAIT).await.unwrap();
            found.extend(ids(&delivered));
            acknowledge(&mut consumer, &delivered).await;
        }
    }
    let depth = broker.depth().await.unwrap();
    assert_eq!((depth.entries, depth.events_out), (0, 20));
}

#[tokio::test]
async fn what_could_not_be_acknowledged_comes_again_at_once() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    append(&broker, 1..4, 1).await;
    let mut consumer = broker.consumer("one", NEVER);
    let delivered = consumer.next(100, WAIT).await.unwrap();
    assert_eq!(ids(&delivered), [1, 2, 3]);
    redis.command(&["ACL", "SETUSER", "default", "-eval"]).await;
    let entries: Vec<_> = delivered[..2].iter().map(|d| d.entry.clone()).collect();
    assert!(consumer.acknowledge(&entries).await.is_err());
    redis.command(&["ACL", "SETUSER", "default", "+eval"]).await;
    // But not what is still in hand.
    let again = consumer.next(100, WAIT).await.unwrap();
    assert_eq!(ids(&again), [1, 2]);
    assert_eq!(acknowledge(&mut consumer, &delivered).await, 3);
    assert_eq!(ids(&consumer.next(100, WAIT).await.unwrap()), [0; 0]);
}

#[tokio::test]
async fn what_another_keeps_too_long_is_claimed() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    append(&broker, 1..3, 1).await;
    let mut dead = broker.consumer("dead", NEVER);
    assert_eq!(dead.next(100, WAIT).await.unwrap().len(), 2);

    let mut other = broker.consumer("other", Duration::from_millis(100));
    let mut claimed = Vec::new();
    until("the entries are claimed", async || {
        claimed.extend(other.next(100, WAIT).await.unwrap());
        claimed.len() == 2
    })
    .await;
    assert_eq!(ids(&claimed), [1, 2]);
    assert_eq!(acknowledge(&mut other, &claimed).await, 2);
    // The one that was only slow does no harm.
    assert_eq!(acknowledge(&mut dead, &claimed).await, 0);
    assert_eq!(broker.depth().await.unwrap().events_out, 2);
    assert_eq!(broker.metrics.claimed_entries.get(), 2);
}

#[tokio::test]
async fn what_a_consumer_holds_itself_it_neither_claims_nor_is_given_again() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    append(&broker, 1..3, 1).await;
    let mut consumer = broker.consumer("one", Duration::from_millis(100));
    let delivered = consumer.next(100, WAIT).await.unwrap();
    assert_eq!(ids(&delivered), [1, 2]);
    // Redis, which counts deliveries, has given it its own entries.
    until("it has looked for what it might claim", async || {
        assert_eq!(ids(&consumer.next(100, WAIT).await.unwrap()), [0; 0]);
        deliveries(&redis).await.iter().all(|times| *times > 1)
    })
    .await;
    assert_eq!(broker.metrics.claimed_entries.get(), 0);

    // Nor if the group is told to begin anew.
    redis
        .command(&["XGROUP", "SETID", STREAM, crate::GROUP, "0"])
        .await;
    append(&broker, 3..4, 1).await;
    let mut found = Vec::new();
    until("what is new comes", async || {
        found.extend(ids(&consumer.next(100, WAIT).await.unwrap()));
        !found.is_empty()
    })
    .await;
    assert_eq!(found, [3]);
    assert_eq!(acknowledge(&mut consumer, &delivered).await, 2);
}

#[tokio::test]
async fn what_a_read_was_given_that_nobody_waits_for_any_more_is_claimed() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    let mut consumer = broker.consumer("one", Duration::from_millis(100));
    // There was nothing unread.
    assert_eq!(ids(&consumer.next(100, WAIT).await.unwrap()), [0; 0]);
    append(&broker, 1..2, 1).await;
    let late = ["XREADGROUP", "GROUP", crate::GROUP, "one"];
    let late: Vec<_> = late.into_iter().chain(["STREAMS", STREAM, ">"]).collect();
    redis.command(&late).await;
    let mut found = Vec::new();
    until("it is claimed", async || {
        found.extend(consumer.next(100, WAIT).await.unwrap());
        !found.is_empty()
    })
    .await;
    assert_eq!(ids(&found), [1]);
    assert_eq!(acknowledge(&mut consumer, &found).await, 1);
}

/// How often each pending entry was delivered.
async fn deliveries(redis: &Redis) -> Vec<i64> {
    let pending = redis
        .command(&["XPENDING", STREAM, crate::GROUP, "-", "+", "10"])
        .await;
    let pending: Vec<(String, String, i64, i64)> = ::redis::from_redis_value(pending).unwrap();
    pending.into_iter().map(|(.., times)| times).collect()
}

#[tokio::test]
async fn entries_of_a_later_version_are_left_and_garbled_ones_are_handed_on() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    redis
        .command(&["XADD", STREAM, "*", "v", "9", "new", "x"])
        .await;
    redis.command(&["XADD", STREAM, "*", "garbled", "x"]).await;
    append(&broker, 1..2, 1).await;
    let mut consumer = broker.consumer("one", NEVER);
    // In one read, or after one that brought the later one alone.
    let mut delivered = Vec::new();
    while delivered.len() < 2 {
        delivered.extend(consumer.next(100, WAIT).await.unwrap());
    }
    assert!(delivered[0].batch.events.decode().is_err());
    assert_eq!(delivered[1].batch.id.0.as_u128(), 1);
    acknowledge(&mut consumer, &delivered).await;
    let depth = broker.depth().await.unwrap();
    assert_eq!((depth.entries, depth.pending), (1, 1));
    // And it is not in the way of a restart.
    let mut again = broker.consumer("one", NEVER);
    assert!(again.next(100, WAIT).await.unwrap().is_empty());
    append(&broker, 2..3, 1).await;
    assert_eq!(ids(&again.next(100, WAIT).await.unwrap()), [2]);
}

#[tokio::test]
async fn a_backlog_of_a_later_version_is_left_to_the_workers_that_know_it() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    for _ in 0..60 {
        redis
            .command(&["XADD", STREAM, "*", "v", "9", "new", "x"])
            .await;
    }
    let mut consumer = broker.consumer("one", NEVER);
    let begun = Instant::now();
    assert!(consumer.next(8_000, WAIT).await.unwrap().is_empty());
    assert!(begun.elapsed() >= WAIT, "others get no turn");
    let depth = broker.depth().await.unwrap();
    assert!(depth.pending < 30, "{depth:?}");
    assert_eq!(depth.entries, 60);
}

#[tokio::test]
async fn an_entry_that_was_deleted_under_a_delivery_is_let_go() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    append(&broker, 1..3, 1).await;
    let mut consumer = broker.consumer("one", NEVER);
    let delivered = consumer.next(100, WAIT).await.unwrap();
    redis
        .command(&["XDEL", STREAM, &delivered[0].entry.id])
        .await;
    let mut again = broker.consumer("one", NEVER);
    assert_eq!(ids(&again.next(100, WAIT).await.unwrap()), [2]);
    assert_eq!(broker.depth().await.unwrap().pending, 1);
}

#[tokio::test]
async fn what_hides_in_the_queue_is_delivered_by_what_the_runbook_says() {
    const RUNBOOK: &str = include_str!("../../../../docs/runbooks/SekaliQueueHidesEntries.md");
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    append(&broker, 1..4, 2).await;
    let mut consumer = broker.consumer("a", NEVER);
    let delivered = consumer.next(100, WAIT).await.unwrap();
    // Some were acknowledged before, as on any other day.
    assert_eq!(acknowledge(&mut consumer, &delivered[..1]).await, 1);
    redis
        .command(&["XGROUP", "DELCONSUMER", STREAM, crate::GROUP, "a"])
        .await;
    assert_eq!(broker.depth().await.unwrap().hidden(), Some(2));
    let mut other = broker.consumer("b", NEVER);
    assert_eq!(ids(&other.next(100, WAIT).await.unwrap()), [0; 0]);

    let (_, remedy) = RUNBOOK.split_once("## What to do").unwrap();
    let (_, remedy) = remedy.split_once("redis-cli ").unwrap();
    let (remedy, _) = remedy.split_once('\'').unwrap();
    let remedy = remedy.replace("\"sekali:{0}:events\"", STREAM);
    redis.command(&remedy.split(' ').collect::<Vec<_>>()).await;
    let found = other.next(100, WAIT).await.unwrap();
    assert_eq!(ids(&found), [2, 3]);
    assert_eq!(acknowledge(&mut other, &found).await, 2);
    let depth = broker.depth().await.unwrap();
    assert_eq!((depth.events_in, depth.events_out), (6, 6));
    assert_eq!(depth.hidden(), Some(0));
}

#[tokio::test]
async fn a_consumer_with_entries_pending_is_never_forgotten() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    append(&broker, 1..2, 1).await;
    let mut busy = broker.consumer("busy", NEVER);
    assert_eq!(busy.next(100, WAIT).await.unwrap().len(), 1);
    let mut idle = broker.consumer("idle", NEVER);
    assert!(idle.next(100, WAIT).await.unwrap().is_empty());
    let forget = |after: &'static str| {
        let redis = &redis;
        async move {
            let script = crate::consumer::scripts::FORGET;
            redis
                .command(&["EVAL", script, "1", STREAM, crate::GROUP, after])
                .await
        }
    };
    assert_eq!(forget("3600000").await, Value::Int(0));
    until("the idle one is forgotten", async || {
        forget("0").await == Value::Int(1)
    })
    .await;
    assert_eq!(broker.depth().await.unwrap().pending, 1);
}
