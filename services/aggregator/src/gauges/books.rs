//! The books of all topics together.

use lifecycle::{CancellationToken, Ticks};
use prometheus::{Gauge, GaugeVec, Opts, Registry};
use store::{Counts, Store};
use upkeep::now;

use super::{PERIOD, as_f64, gauge};

pub(super) async fn tell(books: Books, store: Store, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(PERIOD, &shutdown);
    while ticks.next().await {
        books.tell(store.books(now()).await.ok().map(|books| books.counts));
    }
}

pub(super) struct Books {
    reachable: Gauge,
    events: GaugeVec,
    unbalanced: Gauge,
}

impl Books {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
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

pub(super) fn by_name(counts: Option<Counts>) -> [(&'static str, f64); 5] {
    let of = |value: fn(Counts) -> i64| counts.map(value).map_or(f64::NAN, as_f64);
    [
        ("received", of(|counts| counts.received)),
        ("unique", of(|counts| counts.unique)),
        ("duplicates", of(|counts| counts.duplicates)),
        ("conflicts", of(|counts| counts.conflicts)),
        ("buried", of(|counts| counts.buried)),
    ]
}
