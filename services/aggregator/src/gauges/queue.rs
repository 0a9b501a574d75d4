//! What is in the queue.

use broker::{Broker, Depth, Memory};
use lifecycle::{CancellationToken, Ticks};
use prometheus::{Gauge, Registry};

use super::{PERIOD, as_f64, gauge};

pub(super) async fn tell(queue: Queue, broker: Broker, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(PERIOD, &shutdown);
    while ticks.next().await {
        queue.tell(broker.depth().await.ok(), broker.memory().await.ok());
    }
}

pub(super) struct Queue {
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
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
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
