//! The store alone: the same claims over PostgreSQL and over SQLite.

use std::collections::{BTreeSet, HashSet};

use event::{Batch, BatchId, EncodedEvents, Event, EventId, Payload, Source, Timestamp, Topic};
use store::{Args, Counts, DatabaseUrl, Filter, Outcome, Position, Recorded, Replayed, Store};
use uuid::Uuid;

use Outcome::{Buried, Conflict, Duplicate, Stored};

/// Runs a claim over a new database of each kind.
async fn over_each(claim: impl AsyncFn(Database)) {
    for database in Database::of_each_kind().await {
        database.store(10_000).migrate().await.unwrap();
        claim(database).await;
    }
}

struct Database {
    url: String,
    /// Removed with the test.
    _directory: Option<tempfile::TempDir>,
}

impl Database {
    async fn of_each_kind() -> [Self; 2] {
        let directory = tempfile::tempdir().unwrap();
        let sqlite = Self {
            url: format!("sqlite://{}", directory.path().join("sekali.db").display()),
            _directory: Some(directory),
        };
        let postgres = Self {
            url: tests::servers::database().await,
            _directory: None,
        };
        [postgres, sqlite]
    }

    fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }

    fn store(&self, max_topics: u32) -> Store {
        let args = Args {
            max_topics,
            keep_identities_days: 7,
            database_connections: 4,
        };
        Store::new(&self.url.parse::<DatabaseUrl>().unwrap(), &args).unwrap()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + second * 1_000_000).unwrap()
}

fn now() -> Timestamp {
    at(1_000)
}

fn event<'a>(topic: &str, id: &str, payload: &'a str) -> Event<'a> {
    event_at(topic, id, payload, at(0))
}

fn event_at<'a>(topic: &str, id: &str, payload: &'a str, timestamp: Timestamp) -> Event<'a> {
    Event {
        topic: Topic::parse(topic.to_owned()).unwrap(),
        event_id: EventId::parse(id.to_owned()).unwrap(),
        timestamp,
        source: Source::parse("test").unwrap(),
        payload: Payload::from_json(serde_json::from_str(payload).unwrap()).unwrap(),
    }
}

fn batch(id: u128, events: &[Event<'_>]) -> Batch {
    Batch {
        id: BatchId(Uuid::from_u128(id)),
        received_at: at(500),
        events: EncodedEvents::join(&EncodedEvents::encode(events, usize::MAX)),
    }
}

async fn record(store: &Store, batches: &[Batch]) -> Vec<Recorded> {
    store.record(batches, now()).await.unwrap()
}

async fn counts(store: &Store) -> Counts {
    store.books(now()).await.unwrap().counts
}

async fn ids(store: &Store, filter: &Filter<'_>) -> Vec<String> {
    let (positions, _) = store.positions(filter, None, 10_000).await.unwrap();
    let (events, _) = store.events_at(&positions).await.unwrap();
    events.into_iter().map(|event| event.event_id).collect()
}

#[tokio::test]
async fn a_batch_that_comes_again_counts_nothing() {
    over_each(async |database| {
        let store = database.store(10);
        let first = batch(1, &[event("t", "a", "{}"), event("t", "b", "{}")]);
        let both = [first.clone(), first.clone()];
        assert_eq!(
            record(&store, &both).await,
            [Recorded::Now(vec![Stored, Stored]), Recorded::Again]
        );
        assert_eq!(record(&store, &both[..1]).await, [Recorded::Again]);
        let again = database_of_another_process(&database, &store);
        assert_eq!(record(&again, &both[..1]).await, [Recorded::Again]);
        let expected = Counts {
            received: 2,
            unique: 2,
            ..Counts::default()
        };
        assert_eq!(counts(&again).await, expected);
    })
    .await;
}

/// A store that has nothing in memory; where a file can have one process only, after the
/// first has ended.
fn database_of_another_process(database: &Database, first: &Store) -> Store {
    if !database.is_postgres() {
        return first.clone();
    }
    database.store(10)
}

#[tokio::test]
async fn the_first_commit_wins_and_other_content_is_listed() {
    over_each(async |database| {
        let store = database.store(10);
        record(&store, &[batch(1, &[event("t", "a", r#"{"v":1}"#)])]).await;
        let later = batch(
            2,
            &[
                event("t", "a", r#"{"v":2}"#),
                event("t", "a", r#"{ "v": 1 }"#),
                event("u", "a", r#"{"v":2}"#),
                event("u", "a", r#"{"v":3}"#),
                event("u", "a", r#"{"v":2}"#),
            ],
        );
        assert_eq!(
            record(&store, &[later]).await,
            [Recorded::Now(vec![
                Conflict, Duplicate, Stored, Conflict, Duplicate
            ])]
        );
        let expected = Counts {
            received: 6,
            unique: 2,
            duplicates: 4,
            conflicts: 2,
            buried: 0,
        };
        assert_eq!(counts(&store).await, expected);
        let topic = Topic::parse("t").unwrap();
        let kept = store
            .event(&topic, &EventId::parse("a").unwrap())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(kept.payload, r#"{"v":1}"#);
        assert_eq!((kept.timestamp, kept.received_at), (at(0), at(500)));
        let all = store.conflicts(None, None, 10).await.unwrap();
        assert_eq!(all.len(), 2);
        assert!(all[0].id > all[1].id);
        let of_t = store.conflicts(Some(&topic), None, 10).await.unwrap();
        assert_eq!(of_t.len(), 1);
        assert_eq!(of_t[0].event.payload, r#"{"v":2}"#);
        assert_eq!(of_t[0].recorded_at, now());
        let below = store.conflicts(None, Some(all[0].id), 10).await.unwrap();
        assert_eq!(below, all[1..]);
    })
    .await;
}

#[tokio::test]
async fn two_who_record_the_same_batches_at_one_instant_count_them_once() {
    let [postgres, _] = Database::of_each_kind().await;
    let (one, two) = (postgres.store(10), postgres.store(10));
    one.migrate().await.unwrap();
    for round in 0..40_u32 {
        let events: Vec<_> = (0..50)
            .map(|n| event(&format!("t{}", n % 3), &format!("{round}-{n}"), "{}"))
            .collect();
        let again: Vec<_> = events.iter().rev().cloned().collect();
        let same = batch(u128::from(round) * 2 + 1, &events);
        let other = batch(u128::from(round) * 2 + 2, &again);
        let (mine, theirs) = ([same.clone(), other.clone()], [other, same]);
        let (first, second) = tokio::join!(one.record(&mine, now()), two.record(&theirs, now()));
        let [first, second] = [first.unwrap(), second.unwrap()];
        let all = first.iter().chain(&second);
        let stored: usize = all
            .map(|recorded| match recorded {
                Recorded::Again => 0,
                Recorded::Now(outcomes) => outcomes.iter().filter(|o| **o == Stored).count(),
            })
            .sum();
        assert_eq!(stored, 50);
    }
    let expected = Counts {
        received: 4_000,
        unique: 2_000,
        duplicates: 2_000,
        ..Counts::default()
    };
    assert_eq!(counts(&one).await, expected);
}

#[tokio::test]
async fn a_poison_event_is_buried_and_its_neighbours_are_stored() {
    over_each(async |database| {
        let store = database.store(10);
        let mut events: Vec<_> = (0..100)
            .map(|n| event("t", &format!("e{n}"), "{}"))
            .collect();
        let mut expected = vec![Stored; 100];
        if database.is_postgres() {
            let statement =
                "ALTER TABLE events ADD CONSTRAINT no_poison CHECK (payload::text <> '{\"p\":0}')";
            tests::servers::execute(&database.url, statement).await;
            for n in [0, 13, 14, 99] {
                events[n] = event("t", &format!("e{n}"), r#"{"p":0}"#);
                expected[n] = Buried;
            }
            // The first copy can't be stored, so the next takes its place.
            events[50] = event("t", "e51", r#"{"p":0}"#);
            expected[50] = Buried;
        } else {
            // SQLite itself refuses nothing that was parsed.
            return;
        }
        let buried = i64::try_from(expected.iter().filter(|o| **o == Buried).count()).unwrap();
        assert_eq!(
            record(&store, &[batch(1, &events)]).await,
            [Recorded::Now(expected)]
        );
        let counts = counts(&store).await;
        assert!(counts.balance());
        assert_eq!((counts.unique, counts.buried), (100 - buried, buried));
        let letters = store.dead_letters(None, None, 10).await.unwrap();
        assert_eq!(letters.len(), 5);
        let again = store
            .replay_dead_letter(letters[0].id, now())
            .await
            .unwrap();
        assert!(matches!(again, Replayed::StillPoison(_)), "{again:?}");
        assert!(letters[0].reason.contains("23514"), "{}", letters[0].reason);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_decoded_is_one_letter_that_counts_as_many() {
    over_each(async |database| {
        let store = database.store(10);
        let garbled = Batch {
            events: EncodedEvents::from_parts(vec![1, 2, 3].into(), 7),
            ..batch(1, &[])
        };
        let good = batch(2, &[event("t", "a", "{}")]);
        assert_eq!(
            record(&store, &[garbled.clone(), good]).await,
            [Recorded::Now(vec![]), Recorded::Now(vec![Stored])]
        );
        assert_eq!(record(&store, &[garbled]).await, [Recorded::Again]);
        let letters = store.dead_letters(None, None, 10).await.unwrap();
        let [letter] = &letters[..] else {
            panic!("{letters:?}")
        };
        assert_eq!((letter.events, &letter.bytes), (7, &vec![1, 2, 3]));
        assert_eq!(letter.topic, None);
        let expected = Counts {
            received: 8,
            unique: 1,
            buried: 7,
            ..Counts::default()
        };
        assert_eq!(counts(&store).await, expected);
        assert!(store.drop_dead_letter(letter.id).await.unwrap());
        assert!(!store.drop_dead_letter(letter.id).await.unwrap());
        assert_eq!(counts(&store).await, expected);
    })
    .await;
}

#[tokio::test]
async fn a_letter_is_replayed_once_when_its_reason_is_gone() {
    over_each(async |database| {
        let small = database.store(1);
        let events = [
            event("a", "1", "{}"),
            event("b", "1", r#"{"kept":"\u0000"}"#),
        ];
        assert_eq!(
            record(&small, &[batch(1, &events)]).await,
            [Recorded::Now(vec![Stored, Buried])]
        );
        let beyond = |topic: &'static str| small.is_beyond_limit(&Topic::parse(topic).unwrap());
        assert_eq!((beyond("a"), beyond("b")), (false, true));
        assert!(
            small
                .delete_topic(&Topic::parse("unknown").unwrap())
                .await
                .is_ok()
        );
        small.refresh_topics().await.unwrap();
        assert_eq!((beyond("a"), beyond("b")), (false, true));
        let letters = small.dead_letters(None, None, 10).await.unwrap();
        let [letter] = &letters[..] else {
            panic!("{letters:?}")
        };
        assert_eq!(letter.topic.as_deref(), Some("b"));
        assert_eq!(letter.event_id.as_deref(), Some("1"));
        let still = small.replay_dead_letter(letter.id, now()).await.unwrap();
        assert!(matches!(still, Replayed::StillPoison(_)), "{still:?}");
        let id = letter.id;
        small.close(std::time::Duration::from_secs(5)).await;
        drop(small);

        let store = database.store(2);
        assert_eq!(
            store.replay_dead_letter(id, now()).await.unwrap(),
            Replayed::Recorded(vec![Stored])
        );
        assert_eq!(
            store.replay_dead_letter(id, now()).await.unwrap(),
            Replayed::Already
        );
        assert_eq!(
            store.replay_dead_letter(id + 1, now()).await.unwrap(),
            Replayed::Missing
        );
        let expected = Counts {
            received: 3,
            unique: 2,
            buried: 1,
            ..Counts::default()
        };
        assert_eq!(counts(&store).await, expected);
        let letters = store.dead_letters(None, None, 10).await.unwrap();
        assert_eq!(letters[0].replayed_at, Some(now()));
        let topic = Topic::parse("b").unwrap();
        let event_id = EventId::parse("1").unwrap();
        let kept = store.event(&topic, &event_id).await.unwrap().unwrap();
        assert_eq!(kept.payload, r#"{"kept":"\u0000"}"#);
    })
    .await;
}

#[tokio::test]
async fn the_ids_of_a_deleted_topic_are_new_again() {
    over_each(async |database| {
        let store = database.store(10);
        let other = if database.is_postgres() {
            database.store(10)
        } else {
            store.clone()
        };
        let events = [event("a", "1", "{}"), event("b", "1", "{}")];
        record(&store, &[batch(1, &events)]).await;
        let conflict = [event("a", "1", r#"{"other":1}"#)];
        record(&other, &[batch(2, &conflict)]).await;
        let topic = Topic::parse("a").unwrap();
        assert!(store.delete_topic(&topic).await.unwrap());
        assert!(!store.delete_topic(&topic).await.unwrap());
        assert_eq!(store.topics().await.unwrap().len(), 1);
        assert_eq!(store.conflicts(None, None, 10).await.unwrap(), []);
        assert_eq!(ids(&store, &Filter::default()).await.len(), 1);
        // A process that still has the old number in its memory.
        assert_eq!(
            record(&other, &[batch(3, &conflict)]).await,
            [Recorded::Now(vec![Stored])]
        );
        while store.housekeep(now()).await.unwrap() {}
        assert_eq!(ids(&store, &Filter::default()).await.len(), 2);
        let expected = Counts {
            received: 2,
            unique: 2,
            ..Counts::default()
        };
        assert_eq!(counts(&store).await, expected);
    })
    .await;
}

#[tokio::test]
async fn identities_are_forgotten_after_their_time_and_not_before() {
    over_each(async |database| {
        let store = database.store(10);
        let old = batch(1, &[event("t", "a", "{}")]);
        record(&store, std::slice::from_ref(&old)).await;
        let week = 7 * 24 * 60 * 60;
        assert!(!store.housekeep(at(1_000 + week)).await.unwrap());
        assert_eq!(
            record(&store, std::slice::from_ref(&old)).await,
            [Recorded::Again]
        );
        assert!(store.housekeep(at(1_001 + week)).await.unwrap());
        assert!(!store.housekeep(at(1_001 + week)).await.unwrap());
        assert_eq!(
            record(&store, &[old]).await,
            [Recorded::Now(vec![Duplicate])]
        );
    })
    .await;
}

#[tokio::test]
async fn the_books_say_topics_ends_and_rates() {
    over_each(async |database| {
        let store = database.store(10);
        assert_eq!(store.books(now()).await.unwrap(), store::Books::default());
        let events = [
            event_at("b", "1", "{}", at(7)),
            event_at("b", "2", "{}", at(-7)),
            event_at("b", "2", "{}", at(-7)),
            event_at("a", "1", "{}", at(1)),
        ];
        record(&store, &[batch(1, &events)]).await;
        let books = store.books(at(1_030)).await.unwrap();
        assert_eq!(books.topics, ["a", "b"]);
        assert!((books.stored_rate - 3.0 / 60.0).abs() < 1e-9);
        assert!((books.recorded_rate - 4.0 / 60.0).abs() < 1e-9);
        let later = store.books(at(1_061)).await.unwrap();
        assert!(later.recorded_rate.abs() < 1e-9);
        let topics = store.topics().await.unwrap();
        assert_eq!(topics.len(), 2);
        assert_eq!(topics[1].topic, "b");
        assert_eq!((topics[1].counts.received, topics[1].counts.unique), (3, 2));
        assert_eq!(topics[1].first_timestamp, Some(at(-7)));
        assert_eq!(topics[1].last_timestamp, Some(at(7)));
    })
    .await;
}

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

#[tokio::test]
async fn payloads_come_back_as_they_came() {
    over_each(async |database| {
        let store = database.store(10);
        let payloads = [
            r#"{"zero":"\u0000","pair":"\ud83d\ude00","lone":"\ud800"}"#.to_owned(),
            format!(r#"{{"z":1e999,"a":{},"a":2}}"#, "9".repeat(400)),
            format!(r#"{{"text":"{}"}}"#, "é😀\u{2028}".repeat(1_000)),
        ];
        let events: Vec<_> = (0..)
            .zip(&payloads)
            .map(|(n, payload)| event("t", &format!("{n}"), payload))
            .collect();
        record(&store, &[batch(1, &events)]).await;
        for (n, payload) in payloads.iter().enumerate() {
            let id = EventId::parse(format!("{n}")).unwrap();
            let kept = store.event(&Topic::parse("t").unwrap(), &id).await.unwrap();
            assert_eq!(&kept.unwrap().payload, payload);
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_has_one_process() {
    let [_, sqlite] = Database::of_each_kind().await;
    let first = sqlite.store(10);
    let args = Args {
        max_topics: 10,
        keep_identities_days: 7,
        database_connections: 4,
    };
    let url = sqlite.url.parse().unwrap();
    let error = Store::new(&url, &args).unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    drop(first);
    Store::new(&url, &args).unwrap();
}

#[tokio::test]
async fn a_migration_that_fails_holds_up_nobody() {
    let [database, _] = Database::of_each_kind().await;
    let name = database.url.rsplit_once('/').unwrap().1;
    let read_only = async |set: &str| {
        let set = format!(r#"ALTER DATABASE "{name}" SET default_transaction_read_only = {set}"#);
        let statements = format!("BEGIN READ WRITE; {set}; COMMIT");
        tests::servers::execute(&database.url, &statements).await;
    };
    read_only("on").await;
    let one = database.store(10_000);
    one.migrate().await.unwrap_err();
    read_only("off").await;
    database.store(10_000).migrate().await.unwrap();
    one.migrate().await.unwrap();
}
