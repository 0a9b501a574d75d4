//! The store alone: the same claims over PostgreSQL and over SQLite.

mod given_up;
mod letters;
mod paging;
mod sessions;

use event::{Batch, BatchId, EncodedEvents, Event, EventId, Payload, Source, Timestamp, Topic};
use store::{Args, Counts, DatabaseUrl, Filter, Outcome, Recorded, Store, StoreError};
use uuid::Uuid;

use Outcome::{Conflict, Duplicate, Stored};

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
        let directory = tests::directory();
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
        self.open(max_topics).unwrap()
    }

    fn open(&self, max_topics: u32) -> Result<Store, StoreError> {
        let args = Args {
            database_password_file: None,
            max_topics,
            keep_identities_days: 7,
            database_connections: 4,
        };
        Store::new(&self.url.parse::<DatabaseUrl>().unwrap(), &args)
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
        events: EncodedEvents::of(events),
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
        let (all, more) = store.conflicts(None, None, 10).await.unwrap();
        assert_eq!((all.len(), more), (2, false));
        assert!(all[0].id > all[1].id);
        let (of_t, _) = store.conflicts(Some(&topic), None, 10).await.unwrap();
        assert_eq!(of_t.len(), 1);
        assert_eq!(of_t[0].event.payload, r#"{"v":2}"#);
        assert_eq!(of_t[0].recorded_at, now());
        let (below, _) = store.conflicts(None, Some(all[0].id), 10).await.unwrap();
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
        assert_eq!(
            store.conflicts(None, None, 10).await.unwrap(),
            (vec![], false)
        );
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
    let error = sqlite.open(10).unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    drop(first);
    sqlite.open(10).unwrap();
}

#[tokio::test]
async fn a_file_has_one_process_by_whatever_name() {
    let directory = tests::directory();
    let names = ["sekali.db", "link.db"].map(|name| directory.path().join(name));
    let [file, link] = &names;
    std::os::unix::fs::symlink(file, link).unwrap();
    let [by_name, by_link] = names.each_ref().map(|path| Database {
        url: format!("sqlite://{}", path.display()),
        _directory: None,
    });
    // The link comes first, and leads to nothing yet.
    for (first, second) in [(&by_link, &by_name), (&by_name, &by_link)] {
        let store = first.store(10);
        store.migrate().await.unwrap();
        let error = second.open(10).unwrap_err().to_string();
        assert!(error.contains("in use by another process"), "{error}");
    }
    assert!(by_link.open(10).is_ok());
}

/// A text of so many bytes that no server makes shorter.
fn noise(bytes: usize) -> String {
    let random = std::iter::repeat_with(|| Uuid::new_v4().into_bytes()).flatten();
    let printed = random.map(|byte| char::from(b'#' + byte % 57));
    printed.take(bytes).collect()
}

#[tokio::test]
async fn a_deleted_topic_of_large_events_goes_in_several_steps() {
    let long = format!(r#"{{"x":"{}"}}"#, noise(1_000_000));
    over_each(async |database| {
        let store = database.store(10);
        for number in 0..6 {
            let events: Vec<_> = (0..8)
                .map(|n| event("t", &format!("{number}-{n}"), &long))
                .collect();
            record(&store, &[batch(number, &events)]).await;
        }
        let topic = Topic::parse("t").unwrap();
        assert!(store.delete_topic(&topic).await.unwrap());
        let mut steps = 0;
        while store.housekeep(now()).await.unwrap() {
            steps += 1;
        }
        // Of 48 events 17 at a time, and in the end the number of the topic.
        assert_eq!(steps, 4);
    })
    .await;
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
