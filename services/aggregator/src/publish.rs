//! `POST /publish`: from bytes to an acknowledgement.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use event::body::{Form, Parsed, Refusal};
use event::{Event, body};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Uri};
use serde::Serialize;
use store::{Outcome, Store};
use utoipa::ToSchema;

use crate::body::{Reserved, discard};
use crate::error::{ApiError, ItemError, Problem};
use crate::gateway::Gateway;
use crate::intake::Part;
use crate::query::Query;

/// From this size on a body is parsed off the threads that serve other requests.
const LARGE_BODY: usize = 256 * 1024;

/// What was taken, and how.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Acknowledgement<'a> {
    Queued(Queued),
    Stored(StoredAnswer<'a>),
}

/// An acknowledgement with `ack=queued`.
#[derive(Debug, Serialize, ToSchema)]
struct Queued {
    /// Always `queued`: all accepted events are on disk in the queue (without a broker: stored)
    #[schema(example = "queued")]
    status: &'static str,
    /// How many items the body held
    count: usize,
    /// How many of them are events, and were taken
    accepted: usize,
    #[serde(flatten)]
    partial: Partial,
}

/// An acknowledgement with `ack=stored`.
#[derive(Debug, Serialize, ToSchema)]
struct StoredAnswer<'a> {
    /// Always `stored`: what became of every event is committed
    #[schema(example = "stored")]
    status: &'static str,
    /// How many events were taken: stored + duplicates + buried
    count: usize,
    /// How many were new
    stored: usize,
    /// How many had a key that was stored before, conflicts among them
    duplicates: usize,
    /// How many of the duplicates had other content
    conflicts: usize,
    /// What became of each event, in order
    results: Vec<EventResult<'a>>,
    #[serde(flatten)]
    partial: Partial,
}

/// What became of one event.
#[derive(Debug, Serialize, ToSchema)]
struct EventResult<'a> {
    topic: &'a str,
    event_id: &'a str,
    /// `stored`, `duplicate`, `conflict` or `buried`
    outcome: &'static str,
}

/// With `partial=true`, what was not taken; without it nothing.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Partial {
    /// How many items are no events
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<usize>,
    /// Why; at most 100
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<ItemError>>,
}

/// How a request is to be answered.
#[derive(Debug, Clone, Copy)]
struct Wish {
    form: Form,
    stored: bool,
    partial: bool,
}

impl Wish {
    fn of(uri: &Uri, headers: &HeaderMap) -> Result<Self, ApiError> {
        let query = Query::of(uri, &["ack", "partial"])?;
        Ok(Self {
            form: form(headers)?,
            stored: query.choice("ack", ["queued", "stored"])?,
            partial: query.choice("partial", ["false", "true"])?,
        })
    }
}

/// A body's events, in the form in which they travel.
struct Accepted {
    parts: Vec<Part>,
    count: usize,
    refused: usize,
    refusals: Vec<Refusal>,
}

/// Take events
///
/// The body is an event, an array of events, an object {"events": [...]}, or one event a
/// line (application/x-ndjson); as it is, or with gzip or zstd. A positive answer means that
/// every event of it is on disk. A duplicate is no error. A body that is not all valid is
/// refused whole, unless partial=true.
#[utoipa::path(
    post, path = "/publish", tag = "events",
    params(
        ("ack" = inline(Option<Ack>), Query, description = "When to answer: `queued` (the default), or `stored`, which says what became of each event"),
        ("partial" = Option<bool>, Query, description = "Take the valid events and report the others"),
    ),
    request_body(
        content((PublishedEvent = "application/json"), (String = "application/x-ndjson")),
        description = "One event, an array, {\"events\": [...]}, or one event a line",
    ),
    responses(
        (status = 200, description = "Taken; with ack=stored, a StoredAnswer", body = Acknowledgement),
        (status = 408, description = "The body did not arrive in time", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "An unknown content type or encoding", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not all of it are events; nothing was taken", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nothing was taken; come again after Retry-After", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It may have been taken or not; send it again", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn publish(
    State(gateway): State<Gateway>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let mut events = 0;
    let answer = take(&gateway, request, &mut events).await;
    match &answer {
        Ok(_) => gateway.metrics.accepted_events.inc_by(events as u64),
        Err(error) => gateway.metrics.refuse(error, events),
    }
    answer
}

/// Takes what a request holds; `events` becomes how much of it was read to be taken.
async fn take(
    gateway: &Gateway,
    request: Request<Body>,
    events: &mut usize,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let wish = match Wish::of(&head.uri, &head.headers) {
        Ok(wish) => wish,
        Err(refused) => {
            discard(&head.headers, body).await;
            return Err(refused);
        }
    };
    let read = gateway.bodies.read(&head.headers, body).await?;
    // What was read lives on in its encoded form.
    let reserved = Arc::new(read.reserved);
    let split = !wish.stored && gateway.intake.has_queue();
    let accept = || accept(&read.bytes, wish, split, &gateway.store);
    let accepted = if read.bytes.len() < LARGE_BODY {
        accept()
    } else {
        tokio::task::block_in_place(accept)
    };
    let accepted = accepted.inspect_err(|error| {
        if let ApiError::Refused(_, items) = error {
            gateway.metrics.refuse_items(*items);
        }
    })?;
    drop(read.bytes);
    gateway.metrics.refuse_items(accepted.refused);
    *events = accepted.count - accepted.refused;
    if wish.stored {
        store(gateway, accepted, &reserved, wish).await
    } else {
        queue(gateway, accepted, &reserved, wish).await
    }
}

async fn queue(
    gateway: &Gateway,
    accepted: Accepted,
    reserved: &Arc<Reserved>,
    wish: Wish,
) -> Result<Response, ApiError> {
    if !accepted.parts.is_empty() {
        gateway.intake.queue(accepted.parts, reserved).await?;
    }
    let answer = Acknowledgement::Queued(Queued {
        status: "queued",
        count: accepted.count,
        accepted: accepted.count - accepted.refused,
        partial: partial(wish, accepted.refused, accepted.refusals),
    });
    Ok(Json(answer).into_response())
}

async fn store(
    gateway: &Gateway,
    accepted: Accepted,
    reserved: &Arc<Reserved>,
    wish: Wish,
) -> Result<Response, ApiError> {
    let outcomes = if accepted.parts.is_empty() {
        Vec::new()
    } else {
        gateway.intake.store(&accepted.parts, reserved).await?
    };
    let mut events = Vec::with_capacity(outcomes.len());
    for part in &accepted.parts {
        let decoded = part.events.decode();
        let defect = |_| ApiError::defect("what was just encoded can't be decoded");
        events.extend(decoded.map_err(defect)?);
    }
    let count = |wanted: &[Outcome]| outcomes.iter().filter(|o| wanted.contains(o)).count();
    let answer = Acknowledgement::Stored(StoredAnswer {
        status: "stored",
        count: outcomes.len(),
        stored: count(&[Outcome::Stored]),
        duplicates: count(&[Outcome::Duplicate, Outcome::Conflict]),
        conflicts: count(&[Outcome::Conflict]),
        results: events.iter().zip(&outcomes).map(result).collect(),
        partial: partial(wish, accepted.refused, accepted.refusals),
    });
    Ok(Json(answer).into_response())
}

fn result<'a>((event, outcome): (&'a Event<'_>, &Outcome)) -> EventResult<'a> {
    EventResult {
        topic: event.topic.as_str(),
        event_id: event.event_id.as_str(),
        outcome: match outcome {
            Outcome::Stored => "stored",
            Outcome::Duplicate => "duplicate",
            Outcome::Conflict => "conflict",
            Outcome::Buried => "buried",
        },
    }
}

fn partial(wish: Wish, refused: usize, refusals: Vec<Refusal>) -> Partial {
    if !wish.partial {
        return Partial::default();
    }
    let errors = refusals.into_iter().map(ItemError::from);
    Partial {
        refused: Some(refused),
        errors: Some(errors.collect()),
    }
}

fn accept(bytes: &[u8], wish: Wish, split: bool, store: &Store) -> Result<Accepted, ApiError> {
    let mut parsed = body::parse(bytes, wish.form)?;
    refuse_beyond_limit(&mut parsed, store);
    if parsed.refused > 0 && !wish.partial {
        return Err(ApiError::Refused(parsed.refusals, parsed.refused));
    }
    let parts = if split {
        Part::split(&parsed.events)
    } else {
        Part::whole(&parsed.events)
    };
    Ok(Accepted {
        parts,
        count: parsed.events.len() + parsed.refused,
        refused: parsed.refused,
        refusals: parsed.refusals,
    })
}

/// Refuses events of topics for which there is no room. Workers bury those that slip
/// through.
fn refuse_beyond_limit(parsed: &mut Parsed<'_>, store: &Store) {
    // Neighbours are mostly of one topic.
    let mut last = None;
    let is_beyond = |event: &Event<'_>| store.is_beyond_limit(&event.topic);
    let any = parsed.events.iter().any(|event| {
        let again = last == Some(&event.topic);
        last = Some(&event.topic);
        !again && is_beyond(event)
    });
    if any {
        parsed.refuse_where("topic", |event| {
            is_beyond(event).then(|| {
                "there is no room for another topic (--max-topics); use one that exists".into()
            })
        });
    }
}

/// How the body is to be read. One without a type is taken for JSON.
fn form(headers: &HeaderMap) -> Result<Form, ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(Form::Json);
    };
    let kind = value.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match kind.to_ascii_lowercase().as_str() {
        "" | "application/json" | "text/json" => Ok(Form::Json),
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines" => Ok(Form::Ndjson),
        _ => Err(ApiError::UnknownType),
    }
}

/// When to answer.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes what `Wish` reads")]
enum Ack {
    Queued,
    Stored,
}

/// An event, as it is sent.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only describes what `event::body` reads")]
struct PublishedEvent {
    /// 1 to 255 characters, no control characters
    #[schema(example = "orders")]
    topic: String,
    /// The same; unique within the topic. A UUID of version 7 is best
    #[schema(example = "0197a2c0-9d1e-7c3a-8f00-1234567890ab")]
    event_id: String,
    /// ISO 8601; without an offset it is UTC
    #[schema(example = "2026-01-01T12:00:00Z")]
    timestamp: String,
    /// 1 to 255 characters, no control characters
    #[schema(example = "checkout")]
    source: String,
    /// Any object; it comes back as the same JSON
    #[schema(value_type = Object)]
    payload: (),
}
