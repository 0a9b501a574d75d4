//! The durable queue between gateways and workers, on Redis Streams.
//!
//! The only crate that names `redis`. It guarantees that an append is all or nothing and,
//! once it has returned, on the disk of a Redis whose append-only file is synced; that an
//! entry is delivered until somebody acknowledges it; and that two counters, of events in
//! and out, lose and keep exactly what the stream loses and keeps. It never sends a command
//! that may have been done a second time by itself, and never decides what is new: that is
//! the store's.
//!
//! Read it in this order:
//!
//! 1. [`append`](Broker::append): what an entry is (`entry`) and how it gets in.
//! 2. [`Consumer`]: how entries are delivered, claimed and acknowledged.
//! 3. [`Broker::depth`] and [`Broker::check`]: what can be asked.
//! 4. [`Told`]: the live tail, which is not part of the promise.
//! 5. `link`: connections.
//!
//! All keys share a hash tag, so that in a Redis Cluster they share a slot and a
//! transaction can hold them: `sekali:{0}:events`, `:in` and `:out`.

mod append;
mod args;
mod check;
mod consumer;
mod depth;
mod entry;
mod error;
mod link;
mod metrics;
mod tail;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

pub use append::Outgoing;
pub use args::{Args, BrokerUrl};
pub use consumer::{Consumer, Delivery, EntryId};
pub use depth::{Depth, Memory};
#[cfg(feature = "fuzz")]
pub use entry::properties;
pub use error::{AppendError, BrokerError};
pub use tail::{Listener, MAX_TOLD_BYTES, Told};

use link::Link;
use metrics::Metrics;
use prometheus::Registry;
use tail::Listened;

/// The consumer group that all workers are of.
const GROUP: &str = "workers";

/// The queue. Clones share one connection.
#[derive(Debug, Clone)]
pub struct Broker {
    link: Arc<Link>,
    keys: Arc<Keys>,
    listened: Arc<Listened>,
    metrics: Metrics,
}

/// The names of an installation's keys.
#[derive(Debug)]
struct Keys {
    events: String,
    events_in: String,
    events_out: String,
    tail: String,
}

impl Broker {
    /// A queue that connects when it is first used: a process must be able to start, and
    /// to say that it is not ready, while Redis is away.
    pub fn new(url: &BrokerUrl, args: &Args) -> Self {
        let key = |name| format!("{}:{{0}}:{name}", args.broker_prefix);
        let metrics = Metrics::new();
        let link = Link::new(url.client(), link::RESPONSE_TIMEOUT, metrics.clone());
        Self {
            link: Arc::new(link),
            keys: Arc::new(Keys {
                events: key("events"),
                events_in: key("in"),
                events_out: key("out"),
                tail: key("tail"),
            }),
            listened: Arc::default(),
            metrics,
        }
    }

    /// Lets a registry tell what this process does with the queue.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        self.metrics.register(registry)
    }

    /// Takes entries out under a name that no other worker has. What has been pending with
    /// another worker for `claim_idle` is taken from it.
    pub fn consumer(&self, name: &str, claim_idle: Duration) -> Consumer {
        Consumer::new(self.clone(), name, claim_idle)
    }
}

#[cfg(test)]
mod tests;
