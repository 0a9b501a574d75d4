//! What can never be stored.

use event::{Batch, EncodedEvents, EventId, Topic};
use store::{Counts, Outcome, Recorded, Replayed};

use super::{Database, batch, counts, event, now, over_each, record};
use Outcome::{Buried, Stored};

#[tokio::test]
async fn a_poison_event_is_buried_and_its_neighbours_are_stored() {
    // SQLite itself refuses nothing that was parsed.
    let [database, _] = Database::of_each_kind().await;
    let store = database.store(10);
    store.migrate().await.unwrap();
    let statement =
        "ALTER TABLE events ADD CONSTRAINT no_poison CHECK (payload::text <> '{\"p\":0}')";
    tests::servers::execute(&database.url, statement).await;
    let mut events: Vec<_> = (0..100)
        .map(|n| event("t", &format!("e{n}"), "{}"))
        .collect();
    let mut expected = vec![Stored; 100];
    for n in [0, 13, 14, 99] {
        events[n] = event("t", &format!("e{n}"), r#"{"p":0}"#);
        expected[n] = Buried;
    }
    // The first copy can't be stored, so the next takes its place.
    events[50] = event("t", "e51", r#"{"p":0}"#);
    expected[50] = Buried;
    assert_eq!(
        record(&store, &[batch(1, &events)]).await,
        [Recorded::Now(expected)]
    );
    let counts = counts(&store).await;
    assert!(counts.balance());
    assert_eq!((counts.unique, counts.buried), (95, 5));
    let (letters, _) = store.dead_letters(None, None, 10).await.unwrap();
    assert_eq!(letters.len(), 5);
    let again = store
        .replay_dead_letter(letters[0].id, now())
        .await
        .unwrap();
    assert!(matches!(again, Replayed::StillPoison(_)), "{again:?}");
    assert!(letters[0].reason.contains("23514"), "{}", letters[0].reason);
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
        let (letters, _) = store.dead_letters(None, None, 10).await.unwrap();
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
        let (letters, _) = small.dead_letters(None, None, 10).await.unwrap();
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
        let (letters, _) = store.dead_letters(None, None, 10).await.unwrap();
        assert_eq!(letters[0].replayed_at, Some(now()));
        let topic = Topic::parse("b").unwrap();
        let of_topic = store.dead_letters(Some(&topic), None, 10).await.unwrap();
        assert_eq!(of_topic, (letters, false));
        let other = Topic::parse("a").unwrap();
        let of_other = store.dead_letters(Some(&other), None, 10).await.unwrap();
        assert_eq!(of_other, (Vec::new(), false));
        let event_id = EventId::parse("1").unwrap();
        let kept = store.event(&topic, &event_id).await.unwrap().unwrap();
        assert_eq!(kept.payload, r#"{"kept":"\u0000"}"#);
        // Asked once more, it makes no topic anew.
        assert!(store.delete_topic(&topic).await.unwrap());
        let again = store.replay_dead_letter(id, now()).await.unwrap();
        assert!(matches!(again, Replayed::Already | Replayed::Missing));
        let topics = store.topics().await.unwrap();
        assert_eq!(topics.len(), 1, "{topics:?}");
    })
    .await;
}

#[tokio::test]
async fn a_page_of_letters_ends_with_the_bytes_that_one_may_hold() {
    over_each(async |database| {
        let store = database.store(10);
        let text = |n: usize| format!(r#"{{"{n}":"{}"}}"#, "x".repeat(900_000));
        let payloads: Vec<_> = (0..7).map(text).collect();
        // The first is stored; of the others each is a conflict.
        let events: Vec<_> = payloads.iter().map(|one| event("t", "a", one)).collect();
        record(&store, &[batch(1, &events)]).await;
        let garbled = (2..8).map(|id| Batch {
            events: EncodedEvents::from_parts(vec![1; 900_000].into(), 1),
            ..batch(id, &[])
        });
        record(&store, &garbled.collect::<Vec<_>>()).await;
        // Three of these are more than two megabytes, and the next three are all.
        let (first, more) = store.conflicts(None, None, 100).await.unwrap();
        assert_eq!((first.len(), more), (3, true));
        let last = first.last().map(|conflict| conflict.id);
        let (rest, more) = store.conflicts(None, last, 100).await.unwrap();
        assert_eq!((rest.len(), more), (3, false));
        let (first, more) = store.dead_letters(None, None, 100).await.unwrap();
        assert_eq!((first.len(), more), (3, true));
        let last = first.last().map(|letter| letter.id);
        let (rest, more) = store.dead_letters(None, last, 100).await.unwrap();
        assert_eq!((rest.len(), more), (3, false));
        // And of fewer, there are more only if there are.
        assert!(store.dead_letters(None, last, 2).await.unwrap().1);
        assert!(!store.dead_letters(None, last, 3).await.unwrap().1);
    })
    .await;
}

#[tokio::test]
async fn what_a_deleted_topic_leaves_behind_nobody_is_shown_and_it_is_removed_in_steps() {
    over_each(async |database| {
        let store = database.store(1);
        let versions: Vec<_> = (0..6_000).map(|n| format!(r#"{{"v":{n}}}"#)).collect();
        let events: Vec<_> = versions.iter().map(|one| event("t", "a", one)).collect();
        let poison = batch(2, &[event("t", "b", r##"{"v":"#"}"##)]);
        let nul = poison.events.as_bytes().iter();
        let nul: Vec<_> = nul
            .map(|byte| if *byte == b'#' { 0 } else { *byte })
            .collect();
        let poison = Batch {
            events: EncodedEvents::from_parts(nul.into(), 1),
            ..poison
        };
        let no_room = batch(3, &[event("u", "c", "{}")]);
        record(&store, &[batch(1, &events), poison, no_room]).await;
        let (letters, _) = store.dead_letters(None, None, 10).await.unwrap();
        let [of_u, of_t] = &letters[..] else {
            panic!("{letters:?}")
        };
        let topic = Topic::parse("t").unwrap();
        assert_eq!(of_t.topic.as_deref(), Some("t"));
        assert!(store.delete_topic(&topic).await.unwrap());

        let none = (Vec::new(), false);
        assert_eq!(store.conflicts(None, None, 10).await.unwrap(), none);
        for (of, expected) in [(None, std::slice::from_ref(of_u)), (Some(&topic), &[])] {
            let (listed, _) = store.dead_letters(of, None, 10).await.unwrap();
            assert_eq!(listed, expected);
        }
        let replayed = store.replay_dead_letter(of_t.id, now()).await.unwrap();
        assert_eq!(replayed, Replayed::Missing);
        assert!(!store.drop_dead_letter(of_t.id).await.unwrap());
        assert_eq!(store.topics().await.unwrap(), []);

        let mut steps = 0;
        while store.housekeep(now()).await.unwrap() {
            steps += 1;
        }
        // The event, conflicts of more than one step, the letter, the number.
        assert!(steps >= 5, "{steps}");
        if database.is_postgres() {
            let empty = "DO $$ BEGIN
                IF EXISTS (SELECT FROM events) OR EXISTS (SELECT FROM conflicts)
                    OR EXISTS (SELECT FROM dead_letters WHERE topic_id <> 0)
                    OR EXISTS (SELECT FROM retired_topics) THEN RAISE 'there is more';
                END IF; END $$";
            tests::servers::execute(&database.url, empty).await;
        }
        // There is room now.
        let replayed = store.replay_dead_letter(of_u.id, now()).await.unwrap();
        assert_eq!(replayed, Replayed::Recorded(vec![Stored]));
    })
    .await;
}
