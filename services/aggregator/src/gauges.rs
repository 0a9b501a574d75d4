//! The books and the queue as metrics, which every gateway tells alike.
//!
//! They are read now and then, not at a scrape: an answer to one must not wait for a server,
//! nor should ten scrapers ask it ten times. While a server can't be asked its gauges are
//! NaN, which no alarm takes for a zero; those of topics are not there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker::{Broker, Depth, Memory};
use lifecycle::{CancellationToken, Process, Ticks};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, Opts, Registry};
use store::{Counts, Store, TopicBooks};
use upkeep::now;

/// How old what is told may be. Prometheus scrapes every 15 to 60 s.
const PERIOD: Duration = Duration::from_secs(5);

/// The same for topics, of which there may be thousands.
const TOPICS_PERIOD: Duration = Duration::from_secs(15);

/// The label of all topics that are not told by name. One that is called so is told in it.
const OTHER: &str = "other";

/// What is told of both.
pub(crate) struct Gauges {
    queue: Option<Queue>,
    books: Books,
    topics: Option<(usize, Topics)>,
}

impl Gauges {
    pub(crate) fn register(
        registry: &Registry,
        has_queue: bool,
        topics: u16,
    ) -> prometheus::Result<Self> {
        let topics = (topics > 0).then(|| -> prometheus::Result<_> {
            let gauges = Topics::new()?;
            registry.register(Box::new(gauges.clone()))?;
            Ok((topics.into(), gauges))
        });
        Ok(Self {
            queue: has_queue.then(|| Queue::register(registry)).transpose()?,
            books: Books::register(registry)?,
            topics: topics.transpose()?,
        })
    }

    /// Starts to ask. An ask that is under way is cut off by the shutdown.
    pub(crate) fn start(self, process: &Process, store: &Store, broker: Option<&Broker>) {
        let Self {
            queue,
            books,
            topics,
        } = self;
        if let (Some(queue), Some(broker)) = (queue, broker) {
            let work = tell_queue(queue, broker.clone(), process.shutdown.clone());
            process.spawn_until_shutdown("tell of the queue", work);
        }
        let work = tell_books(books, store.clone(), process.shutdown.clone());
        process.spawn_until_shutdown("tell of the books", work);
        if let Some((most, topics)) = topics {
            let work = tell_topics(topics, most, store.clone(), process.shutdown.clone());
            process.spawn_until_shutdown("tell of the topics", work);
        }
    }
}

async fn tell_queue(queue: Queue, broker: Broker, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(PERIOD, &shutdown);
    while ticks.next().await {
        queue.tell(broker.depth().await.ok(), broker.memory().await.ok());
    }
}

async fn tell_books(books: Books, store: Store, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(PERIOD, &shutdown);
    while ticks.next().await {
        books.tell(store.books(now()).await.ok().map(|books| books.counts));
    }
}

async fn tell_topics(topics: Topics, most: usize, store: Store, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(TOPICS_PERIOD, &shutdown);
    while ticks.next().await {
        topics.tell(store.topics().await.unwrap_or_default(), most);
    }
}

struct Queue {
    reachable: Gauge,
    events: Gauge,
    entries: Gauge,
    oldest_age: Gauge,
    pending: Gauge,
    undelivered: Gauge,
    hidden: Gauge,
    lost: Gauge,
    memory: Gauge,
    memory_limit: Gauge,
}

impl Queue {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| gauge(registry, name, help);
        Ok(Self {
            reachable: gauge(
                "sekali_queue_reachable",
                "1 while Redis can be asked; else the other gauges of the queue are NaN.",
            )?,
            events: gauge("sekali_queue_events", "Events in the queue.")?,
            entries: gauge("sekali_queue_entries", "Entries in the queue.")?,
            oldest_age: gauge(
                "sekali_queue_oldest_age_seconds",
                "How long the oldest entry has waited, by Redis's clock; 0 with an empty queue.",
            )?,
            pending: gauge(
                "sekali_queue_pending_entries",
                "Entries that a worker was given and has not acknowledged.",
            )?,
            undelivered: gauge(
                "sekali_queue_undelivered_entries",
                "Entries that no worker was given yet; NaN where Redis does not know.",
            )?,
            hidden: gauge(
                "sekali_queue_hidden_entries",
                "Entries that no worker has and none will be given; always 0, or a defect.",
            )?,
            lost: gauge(
                "sekali_queue_lost_events",
                "Events that were counted into an empty queue and never out; always 0, or a loss.",
            )?,
            memory: gauge("sekali_queue_memory_bytes", "Memory that Redis uses.")?,
            memory_limit: gauge(
                "sekali_queue_memory_limit_bytes",
                "Redis's maxmemory, at which the queue is full; 0 without one.",
            )?,
        })
    }

    fn tell(&self, depth: Option<Depth>, memory: Option<Memory>) {
        self.reachable.set(u8::from(depth.is_some()).into());
        let of = |gauge: &Gauge, value: fn(Depth) -> Option<f64>| {
            gauge.set(depth.and_then(value).unwrap_or(f64::NAN));
        };
        of(&self.events, |depth| Some(as_f64(depth.events())));
        of(&self.entries, |depth| Some(as_f64(depth.entries)));
        of(&self.oldest_age, |depth| {
            Some(depth.oldest_age.unwrap_or_default().as_secs_f64())
        });
        of(&self.pending, |depth| Some(as_f64(depth.pending)));
        of(&self.undelivered, |depth| depth.lag.map(as_f64));
        of(&self.hidden, |depth| depth.hidden().map(as_f64));
        of(&self.lost, |depth| Some(as_f64(depth.lost())));
        let of = |gauge: &Gauge, value: fn(Memory) -> u64| {
            let bytes = memory.map(|memory| i64::try_from(value(memory)).unwrap_or(i64::MAX));
            gauge.set(bytes.map_or(f64::NAN, as_f64));
        };
        of(&self.memory, |memory| memory.used);
        of(&self.memory_limit, |memory| memory.limit);
    }
}

struct Books {
    reachable: Gauge,
    events: GaugeVec,
    unbalanced: Gauge,
}

impl Books {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let events = GaugeVec::new(
            Opts::new(
                "sekali_books_events",
                "The books, of what is recorded: received = unique + duplicates + buried; \
                 conflicts are among the duplicates.",
            ),
            &["count"],
        )?;
        registry.register(Box::new(events.clone()))?;
        Ok(Self {
            reachable: gauge(
                registry,
                "sekali_books_reachable",
                "1 while the store can be asked; else the other gauges of the books are NaN.",
            )?,
            events,
            unbalanced: gauge(
                registry,
                "sekali_books_unbalanced_events",
                "By how much they do not balance; always 0, or a defect.",
            )?,
        })
    }

    fn tell(&self, counts: Option<Counts>) {
        self.reachable.set(u8::from(counts.is_some()).into());
        for (name, value) in by_name(counts) {
            self.events.with_label_values(&[name]).set(value);
        }
        let unbalanced = counts.map(|counts| counts.unbalanced());
        self.unbalanced.set(unbalanced.map_or(f64::NAN, as_f64));
    }
}

fn by_name(counts: Option<Counts>) -> [(&'static str, f64); 5] {
    let of = |value: fn(Counts) -> i64| counts.map(value).map_or(f64::NAN, as_f64);
    [
        ("received", of(|counts| counts.received)),
        ("unique", of(|counts| counts.unique)),
        ("duplicates", of(|counts| counts.duplicates)),
        ("conflicts", of(|counts| counts.conflicts)),
        ("buried", of(|counts| counts.buried)),
    ]
}

/// The books of the largest topics. A scrape sees all of one reading or all of the next.
#[derive(Clone)]
struct Topics {
    desc: Desc,
    events: Arc<Mutex<GaugeVec>>,
}

impl Topics {
    fn new() -> prometheus::Result<Self> {
        let events = topic_events()?;
        let desc = events.desc().into_iter().next().cloned();
        Ok(Self {
            desc: desc.ok_or(prometheus::Error::Msg("a vector describes itself".into()))?,
            events: Arc::new(Mutex::new(events)),
        })
    }

    fn tell(&self, topics: Vec<TopicBooks>, most: usize) {
        let events = topic_events().expect("it was made before");
        for (topic, counts) in largest(topics, most) {
            for (name, value) in by_name(Some(counts)) {
                events.with_label_values(&[&topic, name]).set(value);
            }
        }
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = events;
    }
}

impl Collector for Topics {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.collect()
    }
}

fn topic_events() -> prometheus::Result<GaugeVec> {
    let opts = Opts::new(
        "sekali_topic_events",
        "The books of the largest topics, all others together as `other`.",
    );
    GaugeVec::new(opts, &["topic", "count"])
}

/// The topics with the most events, and the sum of the rest.
fn largest(mut topics: Vec<TopicBooks>, most: usize) -> Vec<(String, Counts)> {
    topics.sort_by_key(|topic| std::cmp::Reverse(topic.counts.received));
    let (named, rest): (Vec<_>, Vec<_>) = topics
        .into_iter()
        .enumerate()
        .partition(|(rank, topic)| *rank < most && topic.topic != OTHER);
    let mut told: Vec<_> = named
        .into_iter()
        .map(|(_, topic)| (topic.topic, topic.counts))
        .collect();
    if let Some(sum) = rest.into_iter().map(|(_, topic)| topic.counts).reduce(add) {
        told.push((OTHER.into(), sum));
    }
    told
}

fn add(mut sum: Counts, counts: Counts) -> Counts {
    sum += counts;
    sum
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Gauge> {
    let gauge = Gauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

#[expect(clippy::cast_precision_loss, reason = "counts up to 9e15 are exact")]
fn as_f64(count: i64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(topic: &str, received: i64) -> TopicBooks {
        TopicBooks {
            topic: topic.into(),
            counts: Counts {
                received,
                ..Counts::default()
            },
            first_timestamp: None,
            last_timestamp: None,
        }
    }

    #[test]
    fn the_largest_topics_are_told_and_the_rest_as_one() {
        let topics = ["a", "other", "b", "c"];
        let topics: Vec<_> = topics
            .iter()
            .zip([1, 50, 30, 20])
            .map(|(topic, received)| books(topic, received))
            .collect();
        let told: Vec<_> = largest(topics, 2)
            .into_iter()
            .map(|(topic, counts)| (topic, counts.received))
            .collect();
        assert_eq!(told, [("b".into(), 30), ("other".into(), 71)]);
        assert!(largest(Vec::new(), 2).is_empty());
    }
}
