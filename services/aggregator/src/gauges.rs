//! The books and the queue as metrics, which every gateway tells alike.
//!
//! They are read now and then, not at a scrape: an answer to one must not wait for a server,
//! nor should ten scrapers ask it ten times. While a server can't be asked its gauges are
//! NaN, which no alarm takes for a zero; those of topics are not there.

mod books;
mod queue;
mod topics;

use std::time::Duration;

use broker::Broker;
use lifecycle::Process;
use prometheus::{Gauge, Registry};
use store::Store;

use books::Books;
use queue::Queue;
use topics::Topics;

/// How old what is told may be. Prometheus scrapes every 15 to 60 s.
const PERIOD: Duration = Duration::from_secs(5);

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
            let work = queue::tell(queue, broker.clone(), process.shutdown.clone());
            process.spawn_until_shutdown("tell of the queue", work);
        }
        let work = books::tell(books, store.clone(), process.shutdown.clone());
        process.spawn_until_shutdown("tell of the books", work);
        if let Some((most, topics)) = topics {
            let work = topics::tell(topics, most, store.clone(), process.shutdown.clone());
            process.spawn_until_shutdown("tell of the topics", work);
        }
    }
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
