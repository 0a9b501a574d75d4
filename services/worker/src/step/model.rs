//! Any interleaving of appends, redeliveries, claims, duplicates and crashes, against a real
//! Redis and a real PostgreSQL: each key once, and the books as they must be.
//!
//! A crash is a step that is polled so many times and then dropped, with its connections:
//! it may be anywhere, in the middle of a read, a statement, a commit, an acknowledgement.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::Poll;

use ::tests::servers::{self, Redis};
use broker::{BrokerUrl, Outgoing};
use clap::Parser as _;
use event::{Event, EventId, Partition, Source, Timestamp, Topic};
use proptest::prelude::*;
use store::DatabaseUrl;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use upkeep::now;
use uuid::Uuid;

use super::tests::{batch_of, empty};
use super::*;
use crate::Args;

/// What happens.
#[derive(Debug, Clone)]
enum Op {
    /// A gateway appends events: keys, and what else is in them.
    Append(Vec<(u8, u8)>),
    /// An entry comes back, as from a Redis that was restored from an older file.
    Again(usize),
    /// A worker takes, records and acknowledges.
    Step(usize),
    /// Two batches arrive, and both workers do at the same time.
    Race(Vec<(u8, u8)>, Vec<(u8, u8)>),
    /// A worker dies in its step, and one of its name follows.
    Crash(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let events = || prop::collection::vec((0..6_u8, 0..2_u8), 1..6);
    prop_oneof![
        3 => events().prop_map(Op::Append),
        1 => (0..4_usize).prop_map(Op::Again),
        2 => (0..2_usize).prop_map(Op::Step),
        2 => (events(), events()).prop_map(|(one, other)| Op::Race(one, other)),
        3 => (0..2_usize, 0..POLLS).prop_map(|(worker, polls)| Op::Crash(worker, polls)),
    ]
}

/// More than a step is polled, also the first of a worker, which has to connect.
const POLLS: usize = 80;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::new().expect("there are threads to be had"));

static REDIS: OnceCell<Redis> = OnceCell::const_new();

/// Entries that others hold are claimed at once, also those that are being recorded.
const CLAIM_IDLE: Duration = Duration::from_millis(1);

struct Model {
    args: Args,
    broker: Broker,
    workers: [Step; 2],
    appended: Vec<(Batch, Vec<(u8, u8)>)>,
}

impl Model {
    async fn new() -> Self {
        let prefix = format!("--broker-prefix={}", Uuid::new_v4().simple());
        let database = servers::database().await;
        let redis = REDIS.get_or_init(Redis::start).await.url();
        let words = ["worker", "--database-url", &database, "--broker-url"];
        let args = Args::parse_from(words.into_iter().chain([&*redis, &prefix]));
        store(&args).migrate().await.unwrap();
        let workers = [0, 1].map(|number| worker(&args, number));
        Self {
            broker: broker(&args),
            args,
            workers,
            appended: Vec::new(),
        }
    }

    async fn act(&mut self, op: &Op) {
        match op {
            Op::Append(events) => self.append_new(events).await,
            Op::Race(one, other) => {
                self.append_new(one).await;
                self.append_new(other).await;
                let [first, second] = &mut self.workers;
                tokio::join!(first.step(), second.step());
            }
            Op::Again(number) if *number < self.appended.len() => self.append(*number).await,
            Op::Again(_) => {}
            // With nothing to take, a step would wait.
            _ if self.broker.depth().await.unwrap().entries == 0 => {}
            Op::Step(number) => Box::pin(self.workers[*number].step()).await,
            Op::Crash(number, polls) => {
                let step = self.workers[*number].step();
                let is_done = Box::pin(drop_after(*polls, step)).await;
                // The last is never dropped, so that every instant before the end may be one.
                assert!(is_done || *polls < POLLS - 1, "a step takes longer");
                self.workers[*number] = worker(&self.args, *number);
            }
        }
    }

    async fn append_new(&mut self, events: &[(u8, u8)]) {
        let id = self.appended.len() as u128 + 1;
        self.appended.push((batch(id, events), events.to_vec()));
        self.append(self.appended.len() - 1).await;
    }

    async fn append(&self, number: usize) {
        let outgoing = Outgoing {
            batch: self.appended[number].0.clone(),
            // Any: what shares keys is to be recorded at one time, too.
            partition: Partition::from_number(u32::try_from(number).unwrap()),
            traceparents: Vec::new(),
        };
        self.broker.append(&[outgoing]).await.unwrap();
    }

    /// Works off what is left; then all must be as it must be.
    async fn check(mut self) -> Result<(), TestCaseError> {
        self.workers = [0, 1].map(|number| worker(&self.args, number));
        for _ in 0..100 {
            let depth = self.broker.depth().await.unwrap();
            if depth.entries == 0 {
                prop_assert_eq!((depth.events_in, depth.pending), (depth.events_out, 0));
                return self.check_books().await;
            }
            Box::pin(self.workers[0].step()).await;
        }
        let depth = self.broker.depth().await.unwrap();
        Err(TestCaseError::fail(format!("it stays queued: {depth:?}")))
    }

    async fn check_books(&self) -> Result<(), TestCaseError> {
        let store = store(&self.args);
        let all = || self.appended.iter().flat_map(|(_, events)| events);
        let keys: BTreeSet<u8> = all().map(|(key, _)| *key).collect();
        let mut kept = BTreeMap::new();
        for key in &keys {
            let (topic, id) = names(*key);
            let event = store.event(&topic, &id).await.unwrap();
            prop_assert!(event.is_some(), "key {} is lost", key);
            kept.insert(*key, event.unwrap().source);
        }
        let other = |(key, content): &&(u8, u8)| kept[key] != source(*content).as_str();
        let count = |number: usize| i64::try_from(number).unwrap();
        let counts = store.books(now()).await.unwrap().counts;
        prop_assert_eq!(counts.received, count(all().count()), "received");
        prop_assert_eq!(counts.unique, count(keys.len()), "unique");
        prop_assert_eq!(counts.duplicates, counts.received - counts.unique);
        prop_assert_eq!(counts.conflicts, count(all().filter(other).count()));
        prop_assert_eq!(counts.buried, 0, "buried");
        Ok(())
    }
}

/// Polls a future so many times, and drops it unless it is done, which it says.
async fn drop_after(polls: usize, future: impl Future<Output = ()>) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// With connections of its own, which end with it.
fn worker(args: &Args, number: usize) -> Step {
    let broker = broker(args);
    Step::new(
        broker.consumer(&number.to_string(), CLAIM_IDLE),
        broker,
        store(args),
        // One takes an entry at a time, so that the other finds some at the same instant.
        if number == 0 { 1 } else { 2_000 },
        Metrics::register(&prometheus::Registry::new()).unwrap(),
        CancellationToken::new(),
    )
}

fn broker(args: &Args) -> Broker {
    let url: BrokerUrl = args.broker_url.parse("--broker-url").unwrap();
    Broker::new(&url, &args.broker)
}

fn store(args: &Args) -> Store {
    let url: DatabaseUrl = args.database_url.parse("--database-url").unwrap();
    Store::new(&url, &args.store).unwrap()
}

fn names(key: u8) -> (Topic<'static>, EventId<'static>) {
    let topic = Topic::parse(format!("t{}", key % 2)).unwrap();
    (topic, EventId::parse(key.to_string()).unwrap())
}

fn source(content: u8) -> Source<'static> {
    Source::parse(content.to_string()).unwrap()
}

fn batch(id: u128, events: &[(u8, u8)]) -> Batch {
    let event = |(key, content): &(u8, u8)| {
        let (topic, event_id) = names(*key);
        Event {
            topic,
            event_id,
            timestamp: Timestamp::MIN,
            source: source(*content),
            payload: empty(),
        }
    };
    batch_of(id, &events.iter().map(event).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn in_any_interleaving_each_key_is_stored_once_and_the_books_balance(
        ops in prop::collection::vec(op(), 1..16),
    ) {
        RUNTIME.block_on(async {
            let mut model = Model::new().await;
            for op in &ops {
                Box::pin(model.act(op)).await;
            }
            Box::pin(model.check()).await
        })?;
    }
}
