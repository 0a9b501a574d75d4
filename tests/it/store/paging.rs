//! Pages of a listing.

use std::collections::{BTreeSet, HashSet};

use event::{Event, Source, Topic};
use store::{Filter, Position, Store};

use super::{at, batch, event_at, over_each, record};

#[tokio::test]
async fn pages_hold_every_event_once_newest_first() {
    over_each(async |database| {
        let store = database.store(1_000);
        // Few instants, so that pages end among equal ones; topics of very unlike size.
        let mut all = Vec::new();
        for n in 0..1_200_i64 {
            let topic = format!("t{}", (n * n * 31 % 997) % 90 * (n % 3) / 2);
            let mut event = event_at(&topic, &format!("e{n}"), "{}", at(n * 7919 % 40));
            event.source = Source::parse(format!("s{}", n % 4)).unwrap();
            all.push(event);
        }
        record(&store, &[batch(1, &all)]).await;
        let filters = [
            Filter::default(),
            Filter {
                topic: Some(Topic::parse("t0").unwrap()),
                ..Filter::default()
            },
            Filter {
                source: Some(Source::parse("s1").unwrap()),
                ..Filter::default()
            },
            Filter {
                from: Some(at(10)),
                to: Some(at(30)),
                ..Filter::default()
            },
            Filter {
                topic: Some(Topic::parse("unknown").unwrap()),
                ..Filter::default()
            },
        ];
        for filter in &filters {
            let wanted = |event: &&Event<'_>| {
                filter
                    .topic
                    .as_ref()
                    .is_none_or(|topic| *topic == event.topic)
                    && filter
                        .source
                        .as_ref()
                        .is_none_or(|source| *source == event.source)
                    && filter.from.is_none_or(|from| event.timestamp >= from)
                    && filter.to.is_none_or(|to| event.timestamp < to)
            };
            let expected: BTreeSet<_> = all
                .iter()
                .filter(wanted)
                .map(|event| event.event_id.as_str().to_owned())
                .collect();
            for limit in [1, 7, 100, 5_000] {
                if limit == 1 && expected.len() > 400 {
                    continue;
                }
                let pages = read_pages(&store, filter, limit).await;
                assert!(pages.is_sorted_by(|a, b| a > b), "newest first, none twice");
                let read: HashSet<_> = read_ids(&store, &pages).await.into_iter().collect();
                assert_eq!(pages.len(), expected.len(), "{filter:?} by {limit}");
                assert!(expected.iter().all(|id| read.contains(id)));
            }
        }
    })
    .await;
}

async fn read_pages(store: &Store, filter: &Filter<'_>, limit: usize) -> Vec<Position> {
    let mut pages = Vec::<Position>::new();
    loop {
        let after = pages.last().copied();
        let (page, more) = store.positions(filter, after, limit).await.unwrap();
        assert!(page.len() == limit || !more);
        pages.extend(page);
        if !more {
            return pages;
        }
    }
}

async fn read_ids(store: &Store, mut positions: &[Position]) -> Vec<String> {
    let mut ids = Vec::new();
    while !positions.is_empty() {
        let (events, used) = store.events_at(positions).await.unwrap();
        ids.extend(events.into_iter().map(|event| event.event_id));
        positions = &positions[used..];
    }
    ids
}
