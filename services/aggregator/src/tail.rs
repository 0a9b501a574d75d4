//! `GET /events/stream`: what is stored from now on, as server-sent events.
//!
//! Nothing here holds anything up: whoever waits for the store is answered first, telling ends
//! at the first sign of trouble, and a reader that is too slow is told how many events it
//! missed.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use broker::{Broker, Told};
use bytes::Bytes;
use event::{Batch, EncodedEvents, Topic};
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
use crate::query::Query;

/// Messages that a reader may be behind. Each holds the events of one transaction, at most
/// [`broker::MAX_TOLD_BYTES`].
const BEHIND: usize = 64;

/// How often a quiet stream sends a comment, so that nothing between takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How often the relay looks whether anyone here still listens.
const LOOK: Duration = Duration::from_secs(1);

/// Tells whoever listens of what is stored.
#[derive(Clone)]
pub(crate) struct Tail {
    channel: Sender<Told>,
    /// With a queue, everything is told through it, so that every gateway hears of it.
    broker: Option<Broker>,
}

impl Tail {
    pub(crate) fn new(broker: Option<Broker>) -> Self {
        let (channel, _) = tokio::sync::broadcast::channel(BEHIND);
        Self { channel, broker }
    }

    /// Tells of the batches that this gateway recorded itself.
    pub(crate) async fn publish(&self, batches: &[Batch], recorded: &[Recorded]) {
        match &self.broker {
            Some(broker) => upkeep::tell(broker, batches, recorded).await,
            None if self.channel.receiver_count() > 0 => {
                for told in upkeep::told(batches, recorded) {
                    // Without a receiver it is forgotten.
                    drop(self.channel.send(told));
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
            if self.channel.receiver_count() == 0 {
                continue;
            }
            let relayed = shutdown.run_until_cancelled(self.relay_while_heard(&broker));
            if let Some(Err(error)) = relayed.await {
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
                told = listener.next() => drop(self.channel.send(told?)),
                _ = look.tick() => if self.channel.receiver_count() == 0 {
                    return Ok(());
                },
            }
        }
    }
}

/// Follow what is stored
///
/// Server-sent events: `event: stored` with an event as its data, and `event: missed` with
/// {"missed": n} for a reader that was too slow. There is no resuming; GET /events has
/// everything.
#[utoipa::path(
    get, path = "/events/stream", tag = "events",
    params(("topic" = Option<String>, Query, description = "Of this topic only")),
    responses(
        (status = 200, description = "A stream without an end", body = String, content_type = "text/event-stream"),
        (status = 422, description = "A parameter can't be meant", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn follow(State(gateway): State<Gateway>, uri: Uri) -> Result<Response, ApiError> {
    let query = Query::of(&uri, &["topic"])?;
    let reader = Reader {
        told: gateway.tail.channel.subscribe(),
        topic: query.topic()?.map(Topic::into_owned),
        shutdown: gateway.shutdown.clone(),
        greeted: false,
    };
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
    told: Receiver<Told>,
    topic: Option<Topic<'static>>,
    shutdown: CancellationToken,
    greeted: bool,
}

impl Reader {
    /// The next piece of the stream; none once this process drains.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.greeted {
            // Now the client knows that it listens.
            self.greeted = true;
            return Some(Bytes::from_static(b": following\n\n"));
        }
        let quiet_until = Instant::now() + KEEP_ALIVE;
        loop {
            let told = tokio::select! {
                told = self.told.recv() => told,
                () = tokio::time::sleep_until(quiet_until) => {
                    return Some(Bytes::from_static(b": still here\n\n"));
                }
                () = self.shutdown.cancelled() => return None,
            };
            let text = match told {
                Ok(told) => self.write(&told),
                Err(RecvError::Lagged(messages)) => missed(messages),
                Err(RecvError::Closed) => return None,
            };
            if !text.is_empty() {
                return Some(text.into());
            }
        }
    }

    fn write(&self, told: &Told) -> Vec<u8> {
        let mut text = Vec::new();
        if told.missed > 0 {
            text.extend(missed(told.missed.into()));
        }
        for event in decode(&told.events) {
            if self
                .topic
                .as_ref()
                .is_some_and(|topic| topic.as_str() != event.topic)
            {
                continue;
            }
            let event = StoredEvent {
                received_at: told.received_at,
                ..event
            };
            if let Some(view) = EventView::of(&event) {
                text.extend_from_slice(b"event: stored\ndata: ");
                serde_json::to_writer(&mut text, &view).expect("a vector takes all");
                text.extend_from_slice(b"\n\n");
            }
        }
        text
    }
}

fn missed(count: u64) -> Vec<u8> {
    format!("event: missed\ndata: {{\"missed\":{count}}}\n\n").into_bytes()
}

fn decode(events: &EncodedEvents) -> Vec<StoredEvent> {
    // One that can't be decoded was told by a later release: the reader misses it.
    let events = events.decode().unwrap_or_default();
    events
        .into_iter()
        .map(|event| StoredEvent {
            topic: event.topic.as_str().to_owned(),
            event_id: event.event_id.as_str().to_owned(),
            timestamp: event.timestamp,
            source: event.source.as_str().to_owned(),
            payload: event.payload.as_str().to_owned(),
            received_at: event.timestamp,
        })
        .collect()
}
