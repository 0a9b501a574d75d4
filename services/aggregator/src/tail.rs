//! `GET /events/stream`: what is stored from now on, as server-sent events.
//!
//! Nothing here holds anything up: whoever waits for the store is answered first, telling ends
//! at the first sign of trouble, and a reader that is too slow is told how many events it
//! missed. One that would miss more than can be told, since the queue is gone, is let go.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use broker::{Broker, Told};
use bytes::Bytes;
use event::{Batch, Topic};
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Uri};
use lifecycle::{Backoff, CancellationToken, Ticks, backoff};
use store::{Recorded, StoredEvent};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};
use tokio::time::Instant;

use crate::error::{ApiError, Problem};
use crate::events::EventView;
use crate::gateway::Gateway;
use crate::keys::Admission;
use crate::query::Query;

/// Messages that a reader may be behind, each of a transaction and of at most
/// [`broker::MAX_TOLD_BYTES`].
const BEHIND: usize = 64;

/// How often a quiet stream sends a comment, so that nothing between takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How often the relay looks whether anyone here still listens.
const LOOK: Duration = Duration::from_secs(1);

/// Tells whoever listens of what is stored.
#[derive(Clone)]
pub(crate) struct Tail {
    channel: Channel,
    /// With a queue, everything is told through it, so that every gateway hears of it.
    broker: Option<Broker>,
}

impl Tail {
    pub(crate) fn new(broker: Option<Broker>) -> Self {
        Self {
            channel: Channel::new(),
            broker,
        }
    }

    /// Tells of the batches that this gateway recorded itself.
    pub(crate) async fn publish(&self, batches: &[Batch], recorded: &[Recorded]) {
        match &self.broker {
            Some(broker) => upkeep::tell(broker, batches, recorded).await,
            None if self.channel.is_heard() => {
                for message in upkeep::told(batches, recorded) {
                    self.channel.send(message);
                }
            }
            None => {}
        }
    }

    /// Passes on what workers and other gateways tell, while anyone here listens.
    pub(crate) async fn relay(
        self,
        broker: Broker,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut ticks = Ticks::every(LOOK, &shutdown);
        let mut backoff = Backoff::new(LOOK, LOOK * 10, backoff::seed());
        while ticks.next().await {
            if !self.channel.is_heard() {
                continue;
            }
            let relayed = shutdown.run_until_cancelled(self.relay_while_heard(&broker));
            let relayed = relayed.await;
            // What is told now nobody here hears of, nor how much it is.
            self.channel.end();
            if let Some(Err(error)) = relayed {
                tracing::warn!(%error, "the live tail is interrupted");
                backoff.pause(&shutdown).await;
            } else {
                backoff.reset();
            }
        }
        Ok(())
    }

    async fn relay_while_heard(&self, broker: &Broker) -> Result<(), broker::BrokerError> {
        let mut listener = broker.listen().await?;
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                told = listener.next() => self.channel.send(told?),
                _ = look.tick() => {
                    // The Redis that it listens to may be the primary no more.
                    let is_known = broker.listeners().await? > 0;
                    if !is_known || !self.channel.is_heard() {
                        return Ok(());
                    }
                },
            }
        }
    }
}

/// What is told, with the number of events before it, by which a reader that skipped messages
/// knows what they held.
#[derive(Clone)]
struct Message {
    told: Vec<Told>,
    before: u64,
}

impl Message {
    fn after(&self) -> u64 {
        let told = self.told.iter();
        let told = told.map(|told| u64::from(told.events.count()) + u64::from(told.missed));
        self.before + told.sum::<u64>()
    }
}

/// From whatever is told to all readers here. Locked while a message is sent or a reader
/// comes, so that each reader begins between two messages.
#[derive(Clone)]
struct Channel(Arc<Mutex<Sent>>);

struct Sent {
    messages: Sender<Message>,
    /// Events told so far.
    events: u64,
}

impl Channel {
    fn new() -> Self {
        let messages = Sender::new(BEHIND);
        Self(Arc::new(Mutex::new(Sent {
            messages,
            events: 0,
        })))
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_heard(&self) -> bool {
        self.sent().messages.receiver_count() > 0
    }

    fn send(&self, told: Vec<Told>) {
        let mut sent = self.sent();
        let message = Message {
            told,
            before: sent.events,
        };
        sent.events = message.after();
        // Without a receiver it is forgotten.
        drop(sent.messages.send(message));
    }

    /// What is told from now on, and how many events were told before.
    fn subscribe(&self) -> (Receiver<Message>, u64) {
        let sent = self.sent();
        (sent.messages.subscribe(), sent.events)
    }

    /// Ends the streams of all that read, so that they know that they miss something.
    fn end(&self) {
        self.sent().messages = Sender::new(BEHIND);
    }
}

/// Follow what is stored
///
/// Server-sent events: `event: stored` with an event as its data, and `event: missed` with
/// {"missed": n} where so many events, of any topic, are left out, since the reader was too
/// slow or they were too many at once. With a queue, what is stored in the first two seconds
/// may be left out without a word, and the stream ends when the queue can't be reached. With
/// keys it ends when others are known. There is no resuming; GET /events has everything.
#[utoipa::path(
    get, path = "/events/stream", tag = "events",
    params(("topic" = Option<String>, Query, description = "Of this topic only")),
    responses(
        (status = 200, description = "A stream without an end", body = String, content_type = "text/event-stream"),
        (status = 422, description = "A parameter can't be meant", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn follow(
    State(gateway): State<Gateway>,
    admission: Option<Extension<Admission>>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri, &["topic"])?;
    let topic = query.topic()?.map(Topic::into_owned);
    let until = match admission {
        Some(Extension(Admission(until))) => until,
        None => gateway.shutdown.clone(),
    };
    let reader = Reader::new(&gateway.tail, topic, until);
    let chunks = stream::unfold(reader, async |mut reader| {
        let chunk = reader.next().await?;
        Some((Ok::<_, Infallible>(chunk), reader))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// One that follows.
struct Reader {
    messages: Receiver<Message>,
    /// Events told up to the last message that was read.
    heard: u64,
    topic: Option<Topic<'static>>,
    until: CancellationToken,
    greeted: bool,
}

impl Reader {
    fn new(tail: &Tail, topic: Option<Topic<'static>>, until: CancellationToken) -> Self {
        let (messages, heard) = tail.channel.subscribe();
        Self {
            messages,
            heard,
            topic,
            until,
            greeted: false,
        }
    }

    /// The next piece of the stream; none once this process drains, or other keys are known:
    /// who still has one follows again.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.greeted {
            // The client sees that it is answered. With a queue it is not heard of yet: the
            // relay looks now and then, and whoever stores remembers that nobody listened.
            self.greeted = true;
            return Some(Bytes::from_static(b": following\n\n"));
        }
        let quiet_until = Instant::now() + KEEP_ALIVE;
        loop {
            let message = tokio::select! {
                // What waits when a key goes is not for whoever had it.
                biased;
                () = self.until.cancelled() => return None,
                message = self.messages.recv() => message,
                () = tokio::time::sleep_until(quiet_until) => {
                    return Some(Bytes::from_static(b": still here\n\n"));
                }
            };
            let text = match message {
                Ok(message) => self.write(&message),
                // How many events they held, the next one tells.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return None,
            };
            if !text.is_empty() {
                return Some(text.into());
            }
        }
    }

    fn write(&mut self, message: &Message) -> Vec<u8> {
        let mut text = Vec::new();
        let left_out = message.told.iter().map(|told| u64::from(told.missed));
        let missed = message.before - self.heard + left_out.sum::<u64>();
        self.heard = message.after();
        if missed > 0 {
            text = format!("event: missed\ndata: {{\"missed\":{missed}}}\n\n").into_bytes();
        }
        for event in message.told.iter().flat_map(decode) {
            if self
                .topic
                .as_ref()
                .is_some_and(|topic| topic.as_str() != event.topic)
            {
                continue;
            }
            if let Some(view) = EventView::of(&event) {
                text.extend_from_slice(b"event: stored\ndata: ");
                serde_json::to_writer(&mut text, &view).expect("a vector takes all");
                text.extend_from_slice(b"\n\n");
            }
        }
        text
    }
}

fn decode(told: &Told) -> Vec<StoredEvent> {
    // One that can't be decoded was told by a later release: the reader misses it.
    let events = told.events.decode().unwrap_or_default();
    events
        .into_iter()
        .map(|event| StoredEvent {
            topic: event.topic.as_str().to_owned(),
            event_id: event.event_id.as_str().to_owned(),
            timestamp: event.timestamp,
            source: event.source.as_str().to_owned(),
            payload: event.payload.as_str().to_owned(),
            received_at: told.received_at,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use event::{BatchId, EncodedEvents, Event, EventId, Payload, Source, Timestamp};
    use store::Outcome;
    use uuid::Uuid;

    use super::*;

    /// Three events, and two that are left out.
    fn told() -> Told {
        let event = Event {
            topic: Topic::parse("t").unwrap(),
            event_id: EventId::parse("1").unwrap(),
            timestamp: Timestamp::MIN,
            source: Source::parse("s").unwrap(),
            payload: Payload::from_json(serde_json::from_str("{}").unwrap()).unwrap(),
        };
        let events = [event.clone(), event.clone(), event];
        Told {
            received_at: Timestamp::MAX,
            missed: 2,
            events: EncodedEvents::of(&events),
        }
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_is_told_how_many_events_it_missed() {
        let tail = Tail::new(None);
        tail.channel.send(vec![told()]);
        let mut reader = Reader::new(&tail, None, CancellationToken::new());
        let mut next = async || String::from_utf8(reader.next().await.unwrap().into()).unwrap();
        assert_eq!(next().await, ": following\n\n");
        for _ in 0..BEHIND + 10 {
            tail.channel.send(vec![told()]);
        }
        let text = next().await;
        assert!(
            text.starts_with("event: missed\ndata: {\"missed\":52}\n\nevent: stored"),
            "ten messages of five, and two of this one: {text}"
        );
        assert_eq!(text.matches("event: stored").count(), 3);
        assert_eq!(text.matches("\"received_at\":\"9999-").count(), 3, "{text}");
        assert!(
            next()
                .await
                .starts_with("event: missed\ndata: {\"missed\":2}")
        );
    }

    #[tokio::test]
    async fn many_requests_of_one_transaction_are_no_more_than_a_reader_can_be_behind() {
        let tail = Tail::new(None);
        let mut reader = Reader::new(&tail, None, CancellationToken::new());
        let batch = Batch {
            id: BatchId(Uuid::nil()),
            received_at: Timestamp::MAX,
            events: told().events,
        };
        let batches = vec![batch; BEHIND * 2];
        let recorded = Recorded::Now(vec![Outcome::Stored; 3]);
        let recorded = vec![recorded; batches.len()];
        tail.publish(&batches, &recorded).await;
        reader.next().await.unwrap();
        let text = String::from_utf8(reader.next().await.unwrap().into()).unwrap();
        assert_eq!(text.matches("event: stored").count(), BEHIND * 2 * 3);
        assert!(!text.contains("missed"), "{text}");
    }
}
