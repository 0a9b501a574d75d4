//! Against a real Redis and an SQLite file, which stands for any store here.

use std::time::Instant;

use ::tests::servers::Redis;
use ::tests::{PATIENCE, until};
use broker::{BrokerUrl, Outgoing};
use clap::Parser as _;
use event::{BatchId, EncodedEvents, Event, EventId, Payload, Source, Timestamp, Topic};
use store::{Counts, DatabaseUrl};
use upkeep::now;
use uuid::Uuid;

use super::*;
use crate::Args;

const NEVER: Duration = Duration::from_hours(1);

/// A queue and a store, without a schema yet.
struct World {
    _redis: Redis,
    broker: Broker,
    store: Store,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let redis = Redis::start().await;
        let database = format!("sqlite://{}", directory.path().join("db").display());
        let queue = redis.url();
        let words = [
            "worker",
            "--database-url",
            &database,
            "--broker-url",
            &queue,
        ];
        let args = Args::parse_from(words);
        let database: DatabaseUrl = database.parse().unwrap();
        let queue: BrokerUrl = queue.parse().unwrap();
        Self {
            _redis: redis,
            broker: Broker::new(&queue, &args.broker),
            store: Store::new(&database, &args.store).unwrap(),
            _directory: directory,
        }
    }

    async fn with_schema() -> Self {
        let world = Self::new().await;
        world.store.migrate().await.unwrap();
        world
    }

    fn step(&self, shutdown: &CancellationToken) -> (Step, Metrics) {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let step = Step::new(
            self.broker.consumer("one", NEVER),
            self.broker.clone(),
            self.store.clone(),
            2_000,
            metrics.clone(),
            shutdown.clone(),
        );
        (step, metrics)
    }

    /// Steps until nothing is queued.
    async fn work_off(&self) {
        let (mut step, _) = self.step(&CancellationToken::new());
        until("the queue is empty", async || {
            step.step().await;
            self.is_empty().await
        })
        .await;
    }

    async fn append(&self, batches: &[Batch]) {
        let outgoing = |batch: &Batch| Outgoing {
            batch: batch.clone(),
            // Some of each, so that they are recorded at one time.
            partition: Partition::from_number(u32::from(batch.id.0.as_bytes()[15])),
            traceparents: Vec::new(),
        };
        let entries: Vec<_> = batches.iter().map(outgoing).collect();
        self.broker.append(&entries).await.unwrap();
    }

    async fn is_empty(&self) -> bool {
        let depth = self.broker.depth().await.unwrap();
        depth.entries == 0 && depth.events_in == depth.events_out
    }

    async fn counts(&self) -> Counts {
        self.store.books(now()).await.unwrap().counts
    }
}

fn batch(id: u128, events: &[&str]) -> Batch {
    let event = |id: &&str| Event {
        topic: Topic::parse("t").unwrap(),
        event_id: EventId::parse((*id).to_owned()).unwrap(),
        timestamp: Timestamp::MIN,
        source: Source::parse("s").unwrap(),
        payload: empty(),
    };
    batch_of(id, &events.iter().map(event).collect::<Vec<_>>())
}

/// A payload that says nothing.
pub(super) fn empty() -> Payload<'static> {
    Payload::from_json(serde_json::from_str("{}").unwrap()).unwrap()
}

/// A batch that was received just now.
pub(super) fn batch_of(id: u128, events: &[Event<'_>]) -> Batch {
    Batch {
        id: BatchId(Uuid::from_u128(id)),
        received_at: now(),
        events: EncodedEvents::of(events),
    }
}

#[tokio::test]
async fn what_is_queued_is_recorded_and_acknowledged() {
    let world = World::with_schema().await;
    world
        .append(&[batch(1, &["a", "b"]), batch(2, &["b", "c"])])
        .await;
    world.work_off().await;
    let counts = world.counts().await;
    assert_eq!(
        (counts.received, counts.unique, counts.duplicates),
        (4, 3, 1)
    );
}

#[tokio::test]
async fn killed_between_the_commit_and_the_acknowledgement_it_counts_nothing_twice() {
    let world = World::with_schema().await;
    let batches = [batch(1, &["a", "b"])];
    world.append(&batches).await;
    let mut killed = world.broker.consumer("one", NEVER);
    assert_eq!(killed.next(2_000, PATIENCE).await.unwrap().len(), 1);
    world.store.record(&batches, now()).await.unwrap();
    let before = world.counts().await;
    drop(killed);

    world.work_off().await;
    assert_eq!(world.counts().await, before);
}

#[tokio::test]
async fn what_can_not_be_decoded_is_buried_and_its_neighbours_are_stored() {
    let world = World::with_schema().await;
    let garbled = Batch {
        events: EncodedEvents::from_parts(vec![255; 9].into(), 5),
        ..batch(2, &[])
    };
    world
        .append(&[batch(1, &["a"]), garbled, batch(3, &["b"])])
        .await;
    world.work_off().await;
    let counts = world.counts().await;
    assert_eq!((counts.received, counts.unique, counts.buried), (7, 2, 5));
}

#[tokio::test]
async fn while_the_store_takes_nothing_all_is_kept_and_then_recorded() {
    let world = World::new().await;
    let shutdown = CancellationToken::new();
    let migrated = CancellationToken::new();
    migrated.cancel();
    world.append(&[batch(1, &["a"])]).await;
    let (step, metrics) = world.step(&shutdown);
    let retries = metrics.retries("store");
    let outage = async {
        until("it tries again", async || retries.get() > 1).await;
        assert_eq!(world.broker.depth().await.unwrap().entries, 1);
        world.store.migrate().await.unwrap();
        until("the queue is empty", async || world.is_empty().await).await;
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(step.run(migrated), outage);
    ended.unwrap();
    assert_eq!(world.counts().await.unique, 1);
}

#[tokio::test]
async fn a_shutdown_while_the_store_takes_nothing_is_prompt_and_keeps_all() {
    let world = World::new().await;
    let shutdown = CancellationToken::new();
    let migrated = CancellationToken::new();
    migrated.cancel();
    world.append(&[batch(1, &["a"])]).await;
    let (step, metrics) = world.step(&shutdown);
    let retries = metrics.retries("store");
    let ending = async {
        until("it tries again", async || retries.get() > 1).await;
        shutdown.cancel();
        Instant::now()
    };
    let (ended, stopped) = tokio::join!(step.run(migrated), ending);
    ended.unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(5));
    assert_eq!(world.broker.depth().await.unwrap().entries, 1);
}
