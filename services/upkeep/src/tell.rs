//! Tells whoever follows live of what was stored.
//!
//! Nothing depends on it, so it comes after everything else and ends at the first sign of
//! trouble.

use std::time::Duration;

use broker::{Broker, BrokerError, MAX_TOLD_BYTES, Told};
use event::{Batch, EncodedEvents, Timestamp};
use store::{Outcome, Recorded};

/// Events told of one transaction; the others are counted as missed. It is some ten thousand
/// a second, which nobody reads as they come, and telling all would slow recording down.
const MAX_TOLD: usize = 500;

/// How long telling of one transaction may take, which is how long a queue that does not
/// answer can hold up the next one. It takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells of what was stored, if anyone listens.
pub async fn tell(broker: &Broker, batches: &[Batch], recorded: &[Recorded]) {
    let telling = try_tell(broker, batches, recorded);
    match tokio::time::timeout(PATIENCE, telling).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "can't tell of what was stored"),
        Err(_) => tracing::debug!("telling of what was stored took too long"),
    }
}

async fn try_tell(
    broker: &Broker,
    batches: &[Batch],
    recorded: &[Recorded],
) -> Result<(), BrokerError> {
    if broker.has_listeners().await {
        for message in told(batches, recorded) {
            broker.tell(&message).await?;
        }
    }
    Ok(())
}

/// What there is to tell, in messages.
pub fn told(batches: &[Batch], recorded: &[Recorded]) -> Vec<Vec<Told>> {
    messages(select(batches, recorded, MAX_TOLD))
}

/// What is told of a transaction, which is of each of its batches (a request each), in few
/// messages.
fn messages(told: Vec<Told>) -> Vec<Vec<Told>> {
    let mut messages = Vec::<Vec<Told>>::new();
    let mut bytes = 0;
    for told in told {
        let more = told.events.as_bytes().len();
        match messages.last_mut() {
            Some(last) if bytes + more <= MAX_TOLD_BYTES => {
                last.push(told);
                bytes += more;
            }
            _ => {
                messages.push(vec![told]);
                bytes = more;
            }
        }
    }
    messages
}

/// At most so many of the events that were stored, and how many were left out.
fn select(batches: &[Batch], recorded: &[Recorded], most: usize) -> Vec<Told> {
    let mut messages = Vec::new();
    let (mut room, mut missed) = (most, 0);
    for (batch, recorded) in batches.iter().zip(recorded) {
        let Recorded::Now(outcomes) = recorded else {
            continue;
        };
        let stored = |at: &usize| outcomes.get(*at) == Some(&Outcome::Stored);
        let places: Vec<usize> = (0..outcomes.len()).filter(stored).collect();
        let beyond = places.get(room).copied().unwrap_or(usize::MAX);
        missed += places.len().saturating_sub(room);
        room = room.saturating_sub(places.len());
        messages.extend(Told::of(batch, |at| at < beyond && stored(&at)));
    }
    if missed > 0 {
        messages.push(Told {
            received_at: batches
                .last()
                .map_or(Timestamp::MIN, |last| last.received_at),
            missed: u32::try_from(missed).unwrap_or(u32::MAX),
            events: EncodedEvents::default(),
        });
    }
    messages
}

#[cfg(test)]
mod tests {
    use event::{BatchId, Event, EventId, Payload, Source, Topic};
    use uuid::Uuid;

    use super::*;

    fn batch(events: usize) -> Batch {
        let event = |n: usize| Event {
            topic: Topic::parse("t").unwrap(),
            event_id: EventId::parse(n.to_string()).unwrap(),
            timestamp: Timestamp::MIN,
            source: Source::parse("s").unwrap(),
            payload: Payload::from_json(serde_json::from_str("{}").unwrap()).unwrap(),
        };
        let events: Vec<_> = (0..events).map(event).collect();
        Batch {
            id: BatchId(Uuid::nil()),
            received_at: Timestamp::MIN,
            events: EncodedEvents::of(&events),
        }
    }

    fn told(recorded: &[Recorded], most: usize) -> Vec<(u32, u32)> {
        let batches = vec![batch(3); recorded.len()];
        select(&batches, recorded, most)
            .iter()
            .map(|told| (told.events.count(), told.missed))
            .collect()
    }

    #[test]
    fn only_what_was_stored_is_told_and_what_there_is_no_room_for_is_counted() {
        let all = Recorded::Now(vec![Outcome::Stored; 3]);
        let some = Recorded::Now(vec![Outcome::Stored, Outcome::Duplicate, Outcome::Stored]);
        let none = Recorded::Now(vec![Outcome::Conflict; 3]);
        let recorded = [Recorded::Again, all.clone(), none, some, all];
        assert_eq!(told(&recorded, 8), [(3, 0), (2, 0), (3, 0)]);
        assert_eq!(told(&recorded, 4), [(3, 0), (1, 0), (0, 4)]);
        assert_eq!(told(&recorded, 0), [(0, 8)]);
        assert_eq!(told(&[], 8), []);
    }

    #[test]
    fn a_message_holds_no_more_bytes_than_it_may() {
        let of = |bytes: usize| Told {
            received_at: Timestamp::MIN,
            missed: 0,
            events: EncodedEvents::from_parts(vec![0; bytes].into(), 1),
        };
        let half = MAX_TOLD_BYTES / 2;
        let told = [half, half, 1, MAX_TOLD_BYTES, MAX_TOLD_BYTES * 2, 1, 1];
        let lengths: Vec<_> = messages(told.into_iter().map(of).collect())
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(lengths, [2, 1, 1, 1, 2]);
    }
}
