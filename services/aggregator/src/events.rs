//! `GET /events` and one event.
//!
//! A page is first a list of positions, which is short, and then their events, which are
//! read and sent a few at a time: what a reader holds is bounded however large the page,
//! and no statement stays open while a slow client reads.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use event::{EventId, Topic};
use futures::stream::{self, StreamExt as _};
use http::header::{ACCEPT, CONTENT_TYPE, LINK};
use http::{HeaderMap, HeaderValue, Uri};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use store::{Filter, Position, Store, StoredEvent};
use utoipa::ToSchema;

use crate::cursor;
use crate::error::{ApiError, Problem};
use crate::gateway::Gateway;
use crate::query::Query;

const PARAMETERS: &[&str] = &["topic", "source", "from", "to", "limit", "cursor"];

/// An event as it is kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventView<'a> {
    topic: &'a str,
    event_id: &'a str,
    /// RFC 3339, UTC
    #[schema(example = "2026-01-01T12:00:00Z")]
    timestamp: String,
    source: &'a str,
    /// The same JSON as was sent, without its white space
    #[schema(value_type = Object)]
    payload: Cow<'a, RawValue>,
    /// When a gateway took it
    received_at: String,
}

impl<'a> EventView<'a> {
    /// None if the payload is no JSON, which nothing stores.
    pub(crate) fn of(event: &'a StoredEvent) -> Option<Self> {
        let payload = serde_json::from_str(&event.payload).ok()?;
        Some(Self::with(event, Cow::Borrowed(payload)))
    }

    /// The same of what was not stored: a payload that is no JSON is shown as a text.
    pub(crate) fn of_any(event: &'a StoredEvent) -> Self {
        let text = || to_raw_value(&event.payload).expect("a text can be written");
        Self::of(event).unwrap_or_else(|| Self::with(event, Cow::Owned(text())))
    }

    fn with(event: &'a StoredEvent, payload: Cow<'a, RawValue>) -> Self {
        Self {
            topic: &event.topic,
            event_id: &event.event_id,
            timestamp: event.timestamp.to_string(),
            source: &event.source,
            payload,
            received_at: event.received_at.to_string(),
        }
    }
}

fn no_json() -> ApiError {
    ApiError::defect("a stored payload is no JSON")
}

/// How many events stand in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Array,
    Lines,
}

/// List events, newest first
///
/// The order is by timestamp; the header Link holds the address of the next page, which
/// stays where it is while others publish.
#[utoipa::path(
    get, path = "/events", tag = "events",
    params(
        ("topic" = Option<String>, Query, description = "Of this topic only"),
        ("source" = Option<String>, Query, description = "Of this source only; give a topic or a time as well where there are many events"),
        ("from" = Option<String>, Query, description = "Not before this time (ISO 8601)"),
        ("to" = Option<String>, Query, description = "Before this time"),
        ("limit" = Option<u16>, Query, description = "At most so many: 1 to 10000, by default 50"),
        ("cursor" = Option<String>, Query, description = "Where the page before ended, from its header Link"),
    ),
    responses(
        (status = 200, description = "A page", content((Vec<EventView> = "application/json"), (String = "application/x-ndjson")),
            headers(("Link" = String, description = "The address of the next page, rel=\"next\""))),
        (status = 422, description = "A parameter can't be meant, or no index finds a source soon enough", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store can't be reached", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri, PARAMETERS)?;
    let filter = Filter {
        topic: query.topic()?,
        source: query.source()?,
        from: query.time("from")?,
        to: query.time("to")?,
    };
    let after = query.cursor(cursor::read)?;
    let positions = gateway.store.positions(&filter, after, query.limit()?);
    let (positions, more) = positions.await.map_err(|error| {
        // The same question would take as long again.
        if filter.source.is_some() && error.is_too_slow() {
            ApiError::TooBroad
        } else {
            error.into()
        }
    })?;
    let next = positions
        .last()
        .filter(|_| more)
        .map(|last| query.next("/events", &cursor::write(last)));
    let form = form(&headers);
    let mut response = Response::new(page(gateway.store.clone(), positions, form).await?);
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(match form {
            Form::Array => "application/json",
            Form::Lines => "application/x-ndjson",
        }),
    );
    if let Some(next) = next {
        headers.insert(LINK, next);
    }
    Ok(response)
}

/// One event
#[utoipa::path(
    get, path = "/events/{topic}/{event_id}", tag = "events",
    params(("topic" = String, Path), ("event_id" = String, Path)),
    responses(
        (status = 200, description = "The event", body = EventView),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A parameter, of which there are none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store can't be reached", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn one(
    State(gateway): State<Gateway>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
) -> Result<Response, ApiError> {
    Query::of(&uri, &[])?;
    let missing = ApiError::NotFound("event");
    // What can't be a text, a topic or an id has no event.
    let Ok(Path((topic, event_id))) = path else {
        return Err(missing);
    };
    let (Ok(topic), Ok(event_id)) = (Topic::parse(topic), EventId::parse(event_id)) else {
        return Err(missing);
    };
    let event = gateway.store.event(&topic, &event_id).await?;
    let event = event.ok_or(missing)?;
    let view = EventView::of(&event).ok_or_else(no_json)?;
    Ok(Json(view).into_response())
}

fn form(headers: &HeaderMap) -> Form {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("ndjson")) {
        Form::Lines
    } else {
        Form::Array
    }
}

/// What is left of a page that is being sent.
struct Rest {
    store: Store,
    positions: Arc<[Position]>,
    from: usize,
    /// Whether an event was written, after which the next needs a comma. Of the first positions
    /// none may be left: their topic may be deleted by now.
    begun: bool,
    form: Form,
}

impl Rest {
    fn is_done(&self) -> bool {
        self.from == self.positions.len()
    }

    /// The next events; the first chunk opens an array and the last closes it.
    async fn chunk(&mut self) -> Result<Bytes, ApiError> {
        let opens = self.from == 0;
        let (events, used) = self.store.events_at(&self.positions[self.from..]).await?;
        self.from += used;
        let size = events.iter().map(|event| event.payload.len() + 256).sum();
        let mut chunk = Vec::with_capacity(size);
        if opens && self.form == Form::Array {
            chunk.push(b'[');
        }
        for event in &events {
            if self.form == Form::Array && self.begun {
                chunk.push(b',');
            }
            self.begun = true;
            let view = EventView::of(event).ok_or_else(no_json)?;
            serde_json::to_writer(&mut chunk, &view).expect("a vector takes all");
            if self.form == Form::Lines {
                chunk.push(b'\n');
            }
        }
        if self.is_done() && self.form == Form::Array {
            chunk.push(b']');
        }
        Ok(chunk.into())
    }
}

/// The body of a page. What can be read at once is, and has a length and a status of its
/// own; of a longer one the rest is streamed, and cut off where the store fails.
async fn page(store: Store, positions: Vec<Position>, form: Form) -> Result<Body, ApiError> {
    let mut rest = Rest {
        store,
        positions: positions.into(),
        from: 0,
        begun: false,
        form,
    };
    let first = rest.chunk().await?;
    if rest.is_done() {
        return Ok(Body::from(first));
    }
    let first = stream::once(async { Ok::<_, CutOff>(first) });
    let others = stream::try_unfold(rest, async |mut rest| {
        if rest.is_done() {
            return Ok(None);
        }
        let chunk = rest.chunk().await.map_err(|_| CutOff)?;
        Ok(Some((chunk, rest)))
    });
    Ok(Body::from_stream(first.chain(others)))
}

/// The store failed in the middle of a page. The client sees a body without its end.
#[derive(Debug, thiserror::Error)]
#[error("the store failed in the middle of a page")]
struct CutOff;

#[cfg(test)]
mod tests {
    use event::{Batch, BatchId, EncodedEvents, Event, Payload, Source, Timestamp};
    use serde_json::Value;
    use store::{Args, DatabaseUrl};
    use uuid::Uuid;

    use super::*;

    fn events(topic: &str, count: usize, timestamp: Timestamp) -> Vec<Event<'static>> {
        let event = |n: usize| Event {
            topic: Topic::parse(topic.to_owned()).unwrap(),
            event_id: EventId::parse(n.to_string()).unwrap(),
            timestamp,
            source: Source::parse("s").unwrap(),
            payload: Payload::from_json(serde_json::from_str("{}").unwrap()).unwrap(),
        };
        (0..count).map(event).collect()
    }

    #[tokio::test]
    async fn a_page_is_an_array_whatever_was_deleted_since_its_positions_were_read() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("sekali.db").display());
        let args = Args {
            database_password_file: None,
            max_topics: 10,
            keep_identities_days: 7,
            database_connections: 1,
        };
        let store = Store::new(&url.parse::<DatabaseUrl>().unwrap(), &args).unwrap();
        store.migrate().await.unwrap();
        // The newest are more than are read at once.
        let mut all = events("newest", 600, Timestamp::MAX);
        all.extend(events("oldest", 2, Timestamp::MIN));
        let batch = Batch {
            id: BatchId(Uuid::nil()),
            received_at: Timestamp::MAX,
            events: EncodedEvents::of(&all),
        };
        store.record(&[batch], Timestamp::MAX).await.unwrap();
        let positions = store.positions(&Filter::default(), None, 1_000).await;
        let (positions, _) = positions.unwrap();
        for (deleted, left) in [(None, 602), (Some("newest"), 2), (Some("oldest"), 0)] {
            if let Some(topic) = deleted {
                let topic = Topic::parse(topic).unwrap();
                assert!(store.delete_topic(&topic).await.unwrap());
            }
            let body = page(store.clone(), positions.clone(), Form::Array).await;
            let bytes = axum::body::to_bytes(body.unwrap(), usize::MAX).await;
            let events: Vec<Value> = serde_json::from_slice(&bytes.unwrap()).unwrap();
            assert_eq!(events.len(), left);
        }
    }
}
