//! Pages of a listing.

use std::collections::{BTreeSet, HashSet};

use event::{Event, Source, Topic};
use sqlx::{Connection as _, PgConnection};
use store::{Args, Filter, Position, Store};
use tests::{PATIENCE, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Database, at, batch, event_at, over_each, record};

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

#[tokio::test]
async fn events_whose_topic_was_deleted_meanwhile_are_left_out() {
    over_each(async |database| {
        let store = database.store(10);
        let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(1_000_000));
        let topic = |n: i64| if n % 2 == 0 { "gone" } else { "kept" };
        let events: Vec<_> = (0..6)
            .map(|n| event_at(topic(n), &n.to_string(), &large, at(n)))
            .collect();
        record(&store, &[batch(1, &events)]).await;
        let (positions, _) = store.positions(&Filter::default(), None, 10).await.unwrap();
        let gone = Topic::parse("gone").unwrap();
        assert!(store.delete_topic(&gone).await.unwrap());
        assert_eq!(read_ids(&store, &positions).await, ["5", "3", "1"]);
        let of_gone: Vec<_> = positions.into_iter().skip(1).step_by(2).collect();
        assert_eq!(store.events_at(&of_gone).await.unwrap(), (vec![], 3));
    })
    .await;
}

#[tokio::test]
async fn a_server_sends_no_more_payloads_than_an_answer_holds() {
    let [database, _] = Database::of_each_kind().await;
    let mut url: url::Url = database.url.parse().unwrap();
    let server = (url.host_str().unwrap().to_owned(), url.port().unwrap());
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = relay.local_addr().unwrap().port();
    url.set_port(Some(port)).unwrap();
    let args = Args {
        database_password_file: None,
        max_topics: 10,
        keep_identities_days: 7,
        database_connections: 1,
    };
    let store = Store::new(&url.as_str().parse().unwrap(), &args).unwrap();
    database.store(10).migrate().await.unwrap();
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(512 * 1024));
    let events: Vec<_> = (0..20)
        .map(|n| event_at("t", &n.to_string(), &large, at(n)))
        .collect();
    let counted = async {
        let (mut client, _) = relay.accept().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        count(&mut client, &mut server).await
    };
    let read = async {
        record(&store, &[batch(1, &events)]).await;
        let (positions, _) = store
            .positions(&Filter::default(), None, 100)
            .await
            .unwrap();
        let (events, used) = store.events_at(&positions).await.unwrap();
        // On the same connection, which has to be done with the answer before.
        store.check().await.unwrap();
        store.close(PATIENCE).await;
        (events.len(), used)
    };
    let (sent, used) = tokio::join!(counted, read);
    // Of 10 MiB the 2 MiB that are read at once.
    assert_eq!(used, (4, 4));
    assert!(sent < 3 * 1024 * 1024, "{sent} bytes");
}

/// Carries a connection, and counts the bytes that the server sends.
async fn count(client: &mut TcpStream, server: &mut TcpStream) -> usize {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let there = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        let _ = to_server.shutdown().await;
    };
    let back = async {
        let mut piece = vec![0; 64 * 1024];
        let mut sent = 0;
        while let Ok(length @ 1..) = from_server.read(&mut piece).await {
            sent += length;
            let _ = to_client.write_all(&piece[..length]).await;
        }
        sent
    };
    tokio::join!(back, there).0
}

#[tokio::test]
async fn a_page_among_equal_timestamps_reads_no_more_than_it_holds() {
    let [database, _] = Database::of_each_kind().await;
    let store = database.store(10);
    store.migrate().await.unwrap();
    let events: Vec<_> = (0..3_000)
        .map(|n| event_at("t", &n.to_string(), "{}", at(0)))
        .collect();
    record(&store, &[batch(1, &events)]).await;
    tests::servers::execute(&database.url, "ANALYZE").await;
    let filter = Filter {
        topic: Some(Topic::parse("t").unwrap()),
        ..Filter::default()
    };
    assert_eq!(read_pages(&store, &filter, 100).await.len(), 3_000);
    // A session tells what it read when it ends, if not before.
    store.close(PATIENCE).await;
    let mut outsider = PgConnection::connect(&database.url).await.unwrap();
    let mut read = 0_i64;
    until("the server tells what was read", async || {
        read = sqlx::query_scalar(
            "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'events_by_time'",
        )
        .fetch_one(&mut outsider)
        .await
        .unwrap();
        read >= 3_000
    })
    .await;
    assert!(read < 6_000, "{read} entries of the index");
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
