//! Against a real Redis, which these tests start, fill, kill and start again.

mod deliveries;
mod redis;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use ::tests::{Proxy, until};
use event::{
    Batch, BatchId, EncodedEvents, Event, EventId, Partition, Payload, Source, Timestamp, Topic,
};
use uuid::Uuid;

use self::redis::{Redis, at};
use crate::{AppendError, Broker, Consumer, Delivery, Outgoing, Told};

const WAIT: Duration = Duration::from_millis(50);
/// So that nothing is claimed unless a test says so.
const NEVER: Duration = Duration::from_hours(1);

fn event(id: &str) -> Event<'static> {
    Event {
        topic: Topic::parse("t").unwrap(),
        event_id: EventId::parse(id.to_owned()).unwrap(),
        timestamp: Timestamp::from_micros(0).unwrap(),
        source: Source::parse("s").unwrap(),
        payload: Payload::from_json(serde_json::from_str("{}").unwrap()).unwrap(),
    }
}

fn outgoing(id: u128, events: usize) -> Outgoing {
    let events: Vec<_> = (0..events).map(|n| event(&format!("{id}-{n}"))).collect();
    Outgoing {
        batch: Batch {
            id: BatchId(Uuid::from_u128(id)),
            received_at: Timestamp::from_micros(7).unwrap(),
            events: EncodedEvents::of(&events),
        },
        partition: Partition::default(),
        traceparents: Vec::new(),
    }
}

async fn append(broker: &Broker, ids: std::ops::Range<u128>, events: usize) {
    let entries: Vec<_> = ids.map(|id| outgoing(id, events)).collect();
    broker.append(&entries).await.unwrap();
}

fn ids(deliveries: &[Delivery]) -> Vec<u128> {
    deliveries
        .iter()
        .map(|delivery| delivery.batch.id.0.as_u128())
        .collect()
}

async fn acknowledge(consumer: &mut Consumer, deliveries: &[Delivery]) -> u64 {
    let entries: Vec<_> = deliveries.iter().map(|d| d.entry.clone()).collect();
    consumer.acknowledge(&entries).await.unwrap()
}

#[tokio::test]
async fn what_is_appended_is_delivered_and_counted_out_when_acknowledged() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    assert_eq!(broker.depth().await.unwrap(), crate::Depth::default());
    append(&broker, 1..4, 2).await;
    let depth = broker.depth().await.unwrap();
    assert_eq!(
        (depth.entries, depth.events_in, depth.events_out),
        (3, 6, 0)
    );
    assert!(depth.oldest_age.is_some());

    let mut consumer = broker.consumer("one", NEVER);
    let delivered = consumer.next(100, WAIT).await.unwrap();
    assert_eq!(ids(&delivered), [1, 2, 3]);
    assert_eq!(delivered[0].batch.received_at.as_micros(), 7);
    assert_eq!(delivered[0].batch.events.decode().unwrap().len(), 2);
    let depth = broker.depth().await.unwrap();
    assert_eq!((depth.pending, depth.lag), (3, Some(0)));

    assert_eq!(acknowledge(&mut consumer, &delivered[..2]).await, 2);
    assert_eq!(
        acknowledge(&mut consumer, &delivered).await,
        1,
        "two are gone"
    );
    let depth = broker.depth().await.unwrap();
    assert_eq!(
        (depth.entries, depth.events_in, depth.events_out),
        (0, 6, 6)
    );
    assert_eq!((depth.pending, depth.oldest_age), (0, None));
    assert!(consumer.next(100, WAIT).await.unwrap().is_empty());
}

#[tokio::test]
async fn many_append_at_once_and_each_is_appended_once() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    let appends = (0..200).map(|id| append(&broker, id..id + 1, 3));
    futures::future::join_all(appends).await;
    let depth = broker.depth().await.unwrap();
    assert_eq!((depth.entries, depth.events_in), (200, 600));
}

#[tokio::test]
async fn callers_that_wait_for_a_connection_wait_for_one_attempt() {
    // It accepts connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let broker = at(&url);
    let begun = Instant::now();
    let entries = [outgoing(1, 1)];
    let appends = (0..20).map(|_| broker.append(&entries));
    for result in futures::future::join_all(appends).await {
        assert!(matches!(result, Err(AppendError::Unavailable(_))));
    }
    assert!(begun.elapsed() < Duration::from_secs(6), "{begun:?}");
}

#[tokio::test]
async fn the_outcome_of_an_append_without_an_answer_is_unknown() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    redis.command(&["CLIENT", "PAUSE", "60000", "WRITE"]).await;
    let silence = broker.append(&[outgoing(1, 1)]).await;
    assert!(matches!(silence, Err(AppendError::OutcomeUnknown(_))));
    redis.command(&["CLIENT", "UNPAUSE"]).await;
    append(&broker, 2..3, 1).await;
    let depth = broker.depth().await.unwrap();
    assert_eq!(depth.entries, depth.events_in, "counted with what happened");
}

#[tokio::test]
async fn a_redis_that_asks_for_a_password_took_nothing() {
    let redis = Redis::start().await;
    redis.ready().await;
    redis
        .command(&["CONFIG", "SET", "requirepass", "hunter2"])
        .await;
    let refused = redis.broker().append(&[outgoing(1, 1)]).await;
    assert!(
        matches!(refused, Err(AppendError::Unavailable(_))),
        "{refused:?}"
    );
    let url = redis.url().replace("redis://", "redis://:hunter2@");
    append(&at(&url), 1..2, 1).await;
}

/// The same queue for a user with these permissions.
async fn user(redis: &Redis, permissions: &str) -> Broker {
    let words = ["ACL", "SETUSER", "limited", "on", ">secret"];
    let words: Vec<_> = words.into_iter().chain(permissions.split(' ')).collect();
    redis.command(&words).await;
    at(&redis.url().replace("redis://", "redis://limited:secret@"))
}

#[tokio::test]
async fn a_redis_that_allows_no_transaction_took_nothing() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    let limited = user(&redis, "~* &* +@all -@transaction").await;
    let refused = limited.append(&[outgoing(1, 1)]).await;
    assert!(
        matches!(refused, Err(AppendError::Unavailable(_))),
        "{refused:?}"
    );
    let depth = broker.depth().await.unwrap();
    assert_eq!((depth.entries, depth.events_in), (0, 0));
}

#[tokio::test]
async fn of_a_transaction_that_is_forbidden_later_on_nobody_says_that_it_took_nothing() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    let limited = user(&redis, "~* &* +@all").await;
    append(&limited, 1..2, 1).await;
    redis
        .command(&["ACL", "SETUSER", "limited", "-multi"])
        .await;
    // Each of its commands is done by itself.
    let error = limited.append(&[outgoing(2, 1)]).await;
    assert!(
        matches!(error, Err(AppendError::OutcomeUnknown(_))),
        "{error:?}"
    );
    assert_eq!(broker.depth().await.unwrap().entries, 2);
    // Only once: the next connection is asked first.
    let refused = limited.append(&[outgoing(3, 1)]).await;
    assert!(
        matches!(refused, Err(AppendError::Unavailable(_))),
        "{refused:?}"
    );
    assert_eq!(broker.depth().await.unwrap().entries, 2);
}

#[tokio::test]
async fn the_user_of_the_readme_may_do_all_that_is_done() {
    const README: &str = include_str!("../../../README.md");
    let redis = Redis::start().await;
    let permissions = README
        .lines()
        .find_map(|line| line.strip_prefix("ACL SETUSER sekali on >PASSWORD "))
        .unwrap();
    let broker = user(&redis, &permissions.replace("sekali:", "test:")).await;
    broker.check().await.unwrap();
    broker.memory().await.unwrap();
    let mut listener = broker.listen().await.unwrap();
    until("the listener is known", async || {
        broker.has_listeners().await
    })
    .await;
    append(&broker, 1..3, 1).await;
    let mut dead = broker.consumer("dead", NEVER);
    assert_eq!(dead.next(100, WAIT).await.unwrap().len(), 2);
    let mut consumer = broker.consumer("one", Duration::from_millis(100));
    let mut claimed = Vec::new();
    until("the entries are claimed", async || {
        claimed.extend(consumer.next(100, WAIT).await.unwrap());
        claimed.len() == 2
    })
    .await;
    assert_eq!(acknowledge(&mut consumer, &claimed).await, 2);
    let told = [Told::of(&claimed[0].batch, |_| true).unwrap()];
    broker.tell(&told).await.unwrap();
    assert_eq!(listener.next().await.unwrap(), told);
    let depth = broker.depth().await.unwrap();
    assert_eq!((depth.events_in, depth.events_out), (2, 2));
    let mut forget = ::redis::cmd("EVAL");
    forget.arg(crate::consumer::scripts::FORGET).arg(1);
    forget.arg("test:{0}:events").arg(crate::GROUP).arg(0);
    until("the consumers are forgotten", async || {
        broker.link.query::<i64>(&forget).await.unwrap() > 0
    })
    .await;
}

#[tokio::test]
async fn a_full_redis_refuses_the_whole_append_and_lets_workers_empty_it() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    append(&broker, 0..10, 100).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let before = broker.depth().await.unwrap();
    let refused = broker.append(&[outgoing(50, 1), outgoing(51, 1)]).await;
    assert!(matches!(refused, Err(AppendError::Full)), "{refused:?}");
    assert_eq!(broker.depth().await.unwrap().events_in, before.events_in);
    assert_eq!(broker.depth().await.unwrap().entries, 10);
    broker.check().await.unwrap();

    // Not even the group is there yet.
    let mut consumer = broker.consumer("one", NEVER);
    let mut acknowledged = 0;
    while acknowledged < 10 {
        let delivered = consumer.next(100, WAIT).await.unwrap();
        acknowledged += acknowledge(&mut consumer, &delivered).await;
    }
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    append(&broker, 50..51, 1).await;
    let depth = broker.depth().await.unwrap();
    assert_eq!((depth.events_in, depth.events_out), (1_001, 1_000));
}

#[tokio::test]
async fn a_killed_redis_is_found_again_with_everything_that_was_acknowledged() {
    let mut redis = Redis::start().await;
    let broker = redis.ready().await;
    append(&broker, 1..3, 1).await;
    let mut consumer = broker.consumer("one", NEVER);
    let delivered = consumer.next(100, WAIT).await.unwrap();
    assert_eq!(delivered.len(), 2);
    redis.kill();
    let first = broker.append(&[outgoing(3, 1)]).await.unwrap_err();
    // The connection was open: whether it was sent can't be known.
    assert!(matches!(first, AppendError::OutcomeUnknown(_)), "{first:?}");
    let second = broker.append(&[outgoing(3, 1)]).await.unwrap_err();
    assert!(matches!(second, AppendError::Unavailable(_)), "{second:?}");
    assert!(consumer.next(100, WAIT).await.is_err());
    let entries: Vec<_> = delivered.into_iter().map(|d| d.entry).collect();
    assert!(consumer.acknowledge(&entries).await.is_err());
    assert!(broker.check().await.is_err());
    assert!(broker.depth().await.is_err());

    redis.restart().await;
    until("redis answers again", async || broker.check().await.is_ok()).await;
    let mut found = Vec::new();
    until("the entries come back", async || {
        if let Ok(delivered) = consumer.next(100, WAIT).await {
            found.extend(delivered);
        }
        found.len() == 2
    })
    .await;
    assert_eq!(acknowledge(&mut consumer, &found).await, 2);
}

#[tokio::test]
async fn a_primary_that_became_a_replica_is_let_go_by_all_who_would_write_to_it() {
    let (old, new) = (Redis::start().await, Redis::start().await);
    let follows = Proxy::to(old.address()).await;
    let broker = || at(&format!("redis://{}", follows.address()));
    let (gateway, ready, acknowledging, reading) = (broker(), broker(), broker(), broker());
    append(&gateway, 1..2, 1).await;
    ready.check().await.unwrap();
    let mut consumer = acknowledging.consumer("one", NEVER);
    let delivered = consumer.next(100, WAIT).await.unwrap();
    let entries = [delivered[0].entry.clone()];
    acknowledging.depth().await.unwrap();
    let mut reader = reading.consumer("two", NEVER);
    assert!(reader.next(100, WAIT).await.unwrap().is_empty());
    let _listener = gateway.listen().await.unwrap();
    assert_eq!(gateway.listeners().await.unwrap(), 1);

    // Nobody is there, so that it has nothing to load.
    old.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    follows.lead_to(new.address());
    let refused = gateway.append(&[outgoing(2, 1)]).await;
    assert!(
        matches!(refused, Err(AppendError::Unavailable(_))),
        "{refused:?}"
    );
    append(&gateway, 2..3, 1).await;
    // One that listens sees by this that it listens to another.
    assert_eq!(gateway.listeners().await.unwrap(), 0);
    let error = ready.check().await.unwrap_err().to_string();
    assert!(error.contains("it is a slave"), "{error}");
    ready.check().await.unwrap();
    assert!(consumer.acknowledge(&entries).await.is_err());
    assert_eq!(consumer.acknowledge(&entries).await.unwrap(), 0);
    assert!(reader.next(100, WAIT).await.is_err());
    assert_eq!(ids(&reader.next(100, WAIT).await.unwrap()), [2]);
    assert_eq!(new.broker().depth().await.unwrap().events_in, 1);
}

#[tokio::test]
async fn a_redis_that_lost_everything_is_used_anew() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    let mut consumer = broker.consumer("one", NEVER);
    append(&broker, 1..2, 1).await;
    let delivered = consumer.next(100, WAIT).await.unwrap();
    redis.command(&["FLUSHALL"]).await;
    assert_eq!(acknowledge(&mut consumer, &delivered).await, 0);
    append(&broker, 2..3, 1).await;
    let mut found = Vec::new();
    until("the new entry comes", async || {
        found.extend(consumer.next(100, WAIT).await.unwrap());
        !found.is_empty()
    })
    .await;
    assert_eq!(ids(&found), [2]);
    acknowledge(&mut consumer, &found).await;
    let depth = broker.depth().await.unwrap();
    assert_eq!((depth.events_in, depth.events_out), (1, 1));
}

#[tokio::test]
async fn a_redis_without_its_file_or_that_evicts_is_not_durable() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    for (set, back, expected) in [
        (["maxmemory-policy", "allkeys-lru"], "noeviction", "evicts"),
        (["appendonly", "no"], "yes", "append-only"),
    ] {
        redis.command(&["CONFIG", "SET", set[0], set[1]]).await;
        let error = broker.check().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        redis.command(&["CONFIG", "SET", set[0], back]).await;
        broker.check().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_stored_is_told_to_whoever_listens() {
    let redis = Redis::start().await;
    let broker = redis.ready().await;
    assert!(!broker.has_listeners().await);
    let mut listener = broker.listen().await.unwrap();
    until("the listener is known", async || {
        broker.has_listeners().await
    })
    .await;
    let batch = outgoing(1, 3).batch;
    assert_eq!(Told::of(&batch, |_| false), None);
    let told = Told::of(&batch, |at| at != 1).unwrap();
    assert_eq!((told.events.count(), told.missed), (2, 0));
    let told = [told, Told::of(&outgoing(2, 1).batch, |_| true).unwrap()];
    broker.tell(&told).await.unwrap();
    assert_eq!(listener.next().await.unwrap(), told);
}
