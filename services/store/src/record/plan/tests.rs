use std::collections::HashSet;

use event::{EventId, Payload, Source, Timestamp, Topic};
use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

/// Few topics, ids and contents, so that everything meets everything.
const TOPICS: usize = 3;
const IDS: usize = 4;
const CONTENTS: [&str; 3] = [r#"{"v":0}"#, r#"{"v":1}"#, r#"{"v":2}"#];

/// An event as three small numbers.
type Sketch = (usize, usize, usize);

fn sketch() -> impl Strategy<Value = Sketch> {
    (0..TOPICS, 0..IDS, 0..CONTENTS.len())
}

fn event((topic, id, content): Sketch) -> Event<'static> {
    Event {
        topic: Topic::parse(format!("t{topic}")).unwrap(),
        event_id: EventId::parse(format!("e{id}")).unwrap(),
        timestamp: Timestamp::from_micros(0).unwrap(),
        source: Source::parse("s").unwrap(),
        payload: Payload::from_json(serde_json::from_str(CONTENTS[content]).unwrap()).unwrap(),
    }
}

fn batch(id: usize, sketches: &[Sketch]) -> Batch {
    let events: Vec<_> = sketches.iter().copied().map(event).collect();
    Batch {
        id: BatchId(Uuid::from_u128(id as u128)),
        received_at: Timestamp::from_micros(0).unwrap(),
        events: EncodedEvents::of(&events),
    }
}

/// A database that is a map, and that refuses one content.
struct Database {
    rows: HashMap<(i32, Key), Digest>,
    batches: HashSet<usize>,
    poison: Option<&'static str>,
    counts: Counts,
}

impl Database {
    fn record(&mut self, ids: &[usize], batches: &[Batch]) -> Vec<Recorded> {
        let arrivals = Arrivals::decode(batches);
        let new: Vec<_> = ids.iter().map(|id| self.batches.insert(*id)).collect();
        // There is no room for the last topic.
        let topics: TopicIds = (0..TOPICS - 1)
            .zip(1..)
            .map(|(topic, id)| (format!("t{topic}"), Some(id)))
            .collect();
        let mut plan = Plan::new(&arrivals, |at| new[at], &topics);
        for group in 0..plan.groups.len() {
            while Some(plan.candidate(group).event.payload.as_str()) == self.poison {
                if !plan.poisoned(group, "refused") {
                    break;
                }
            }
            if plan.groups[group].fate == Fate::Buried {
                continue;
            }
            let row = plan.candidate(group);
            let key = (row.topic_id, row.key);
            if let std::collections::hash_map::Entry::Vacant(place) = self.rows.entry(key) {
                place.insert(row.digest);
                plan.inserted(group);
            }
        }
        let winners = plan
            .undecided()
            .map(|group| {
                let row = plan.candidate(group);
                let key = (row.topic_id, row.key);
                let winner = Winner {
                    digest: self.rows[&key],
                    event_id: row.event.event_id.as_str().to_owned(),
                };
                (key, winner)
            })
            .collect();
        let judgement = plan.judge(&arrivals, &winners).unwrap();
        judgement
            .counts
            .values()
            .for_each(|counts| self.counts += *counts);
        judgement.recorded
    }
}

/// What is right, one event after another.
fn expected(stored: &mut HashMap<(usize, usize), usize>, event: Sketch, poison: bool) -> Outcome {
    let (topic, id, content) = event;
    if topic == TOPICS - 1 {
        return Outcome::Buried;
    }
    match stored.get(&(topic, id)) {
        Some(first) if *first == content => Outcome::Duplicate,
        Some(_) => Outcome::Conflict,
        None if poison => Outcome::Buried,
        None => {
            stored.insert((topic, id), content);
            Outcome::Stored
        }
    }
}

proptest! {
    /// However events are spread over batches, repeated and redelivered, each is judged as
    /// if it had come alone, and the books balance.
    #[test]
    fn every_event_is_judged_as_if_it_had_come_alone(
        rounds in vec(vec((0..6_usize, vec(sketch(), 0..8)), 1..4), 1..6),
        poison in proptest::option::of(0..CONTENTS.len()),
    ) {
        let mut database = Database {
            rows: HashMap::new(),
            batches: HashSet::new(),
            poison: poison.map(|content| CONTENTS[content]),
            counts: Counts::default(),
        };
        let mut stored = HashMap::new();
        let mut seen = HashSet::new();
        let mut total = Counts::default();
        for round in &rounds {
            let ids: Vec<_> = round.iter().map(|(id, _)| *id).collect();
            let batches: Vec<_> = round.iter().map(|(id, events)| batch(*id, events)).collect();
            let recorded = database.record(&ids, &batches);
            for ((id, events), recorded) in round.iter().zip(recorded) {
                if !seen.insert(*id) {
                    prop_assert_eq!(recorded, Recorded::Again);
                    continue;
                }
                let Recorded::Now(outcomes) = recorded else {
                    return Err(TestCaseError::fail("a new batch was taken for an old one"));
                };
                prop_assert_eq!(events.len(), outcomes.len());
                total.received += i64::try_from(events.len()).unwrap();
                for (event, outcome) in events.iter().zip(outcomes) {
                    let is_poison = poison == Some(event.2);
                    let expected = expected(&mut stored, *event, is_poison);
                    // A conflict that the database refuses too may be either.
                    let refused = is_poison && expected == Outcome::Conflict;
                    prop_assert!(
                        outcome == expected || refused && outcome == Outcome::Buried,
                        "{:?} is {:?}, not {:?}", event, outcome, expected
                    );
                }
            }
        }
        prop_assert!(database.counts.balance());
        prop_assert_eq!(database.counts.received, total.received);
        prop_assert_eq!(database.counts.unique, i64::try_from(stored.len()).unwrap());
    }
}

/// The topic of the first sketches, which has a number.
fn numbered() -> TopicIds {
    TopicIds::from([("t0".into(), Some(1))])
}

#[test]
fn an_event_whose_key_is_another_ids_is_buried() {
    let batches = [batch(1, &[(0, 0, 0)])];
    let arrivals = Arrivals::decode(&batches);
    let plan = Plan::new(&arrivals, |_| true, &numbered());
    let key = (1, plan.candidate(0).key);
    let winner = Winner {
        digest: event((0, 1, 0)).digest(),
        event_id: "e1".into(),
    };
    let judgement = plan.judge(&arrivals, &HashMap::from([(key, winner)]));
    let judgement = judgement.unwrap();
    assert_eq!(judgement.recorded, [Recorded::Now(vec![Outcome::Buried])]);
    assert!(judgement.conflicts.is_empty());
    assert_eq!(letters(&judgement), [(1, "e0", COLLISION)]);
}

#[test]
fn a_nul_that_no_gateway_let_in_is_buried_and_its_neighbour_is_stored() {
    let good = batch(1, &[(0, 1, 0)]).events;
    let mut bytes = batch(1, &[(0, 0, 0)]).events.as_bytes().to_vec();
    let digit = bytes.iter().rposition(|byte| *byte == b'0').unwrap();
    bytes[digit] = 0;
    let made_by_hand = Batch {
        events: EncodedEvents::join(&[EncodedEvents::from_parts(bytes.into(), 1), good]),
        ..batch(1, &[])
    };
    let arrivals = Arrivals::decode(std::slice::from_ref(&made_by_hand));
    let mut plan = Plan::new(&arrivals, |_| true, &numbered());
    assert_eq!(plan.rows.len(), 1, "the database is not asked to store it");
    plan.inserted(0);
    let judgement = plan.judge(&arrivals, &HashMap::new()).unwrap();
    assert_eq!(
        judgement.recorded,
        [Recorded::Now(vec![Outcome::Buried, Outcome::Stored])]
    );
    let reason = "the payload holds a NUL byte, which is no JSON";
    assert_eq!(letters(&judgement), [(1, "e0", reason)]);
}

/// Of each letter the topic, the event id and the reason.
fn letters<'j>(judgement: &'j Judgement<'_>) -> Vec<(i32, &'j str, &'j str)> {
    let letter = |letter: &'j Letter<'_>| {
        let event = letter.event.expect("it could be decoded");
        (letter.topic_id, event.event_id.as_str(), &*letter.reason)
    };
    judgement.letters.iter().map(letter).collect()
}
