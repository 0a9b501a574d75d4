//! What was not stored: conflicts and dead letters.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use event::EncodedEvents;
use http::header::LINK;
use http::{StatusCode, Uri};
use serde::Serialize;
use serde_json::value::RawValue;
use store::{Conflict, DeadLetter, Outcome, Replayed};
use upkeep::now;
use utoipa::ToSchema;

use crate::error::{ApiError, Problem};
use crate::events::EventView;
use crate::gateway::Gateway;
use crate::query::Query;

const PARAMETERS: &[&str] = &["topic", "limit", "cursor"];

/// The most letters of a page; large ones end it sooner.
const MAX_LETTERS: usize = 100;

/// An event that lost against other content under the same key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConflictView<'a> {
    id: i64,
    /// When it was recorded
    recorded_at: String,
    /// The event that was not stored; where its payload is no JSON, it is a text
    event: EventView<'a>,
}

/// What can never be stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetterView<'a> {
    id: i64,
    topic: Option<&'a str>,
    event_id: Option<&'a str>,
    /// Why it can't be stored
    reason: &'a str,
    /// How many events it stands for: more than one if an entry could not be decoded
    events: i64,
    /// When a gateway took it
    received_at: String,
    buried_at: String,
    /// When it was replayed, if it was
    replayed_at: Option<String>,
    /// The batch that it came in
    batch_id: String,
    /// The payload, if the letter can be decoded
    #[schema(value_type = Option<Object>)]
    payload: Option<Box<RawValue>>,
    /// What arrived, in the queue's encoding, in base 64
    bytes: String,
}

/// What became of a replay.
#[derive(Debug, Serialize, ToSchema)]
struct ReplayView {
    /// Always `replayed`
    #[schema(example = "replayed")]
    status: &'static str,
    /// Events that are stored now
    stored: usize,
    /// Events whose key was stored already
    duplicates: usize,
}

/// List conflicts, newest first
#[utoipa::path(
    get, path = "/conflicts", tag = "letters",
    params(
        ("topic" = Option<String>, Query, description = "Of this topic only"),
        ("limit" = Option<u16>, Query, description = "At most so many; at most 100 are given, and fewer if they are large"),
        ("cursor" = Option<i64>, Query, description = "From the header Link of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = Vec<ConflictView>,
            headers(("Link" = String, description = "The address of the next page, rel=\"next\""))),
        (status = 422, description = "A parameter can't be meant", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store can't be reached", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn conflicts(
    State(gateway): State<Gateway>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri, PARAMETERS)?;
    let (topic, before, limit) = (query.topic()?, before(&query)?, limit(&query)?);
    let (conflicts, more) = gateway
        .store
        .conflicts(topic.as_ref(), before, limit)
        .await?;
    let page: Vec<_> = conflicts.iter().map(conflict_view).collect();
    let last = conflicts.last().filter(|_| more);
    let last = last.map(|conflict| conflict.id);
    Ok(with_next(Json(page).into_response(), &uri, &query, last))
}

/// List dead letters, newest first
#[utoipa::path(
    get, path = "/dead-letters", tag = "letters",
    params(
        ("topic" = Option<String>, Query, description = "Of this topic only"),
        ("limit" = Option<u16>, Query, description = "At most so many; at most 100 are given, and fewer if they are large"),
        ("cursor" = Option<i64>, Query, description = "From the header Link of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = Vec<DeadLetterView>,
            headers(("Link" = String, description = "The address of the next page, rel=\"next\""))),
        (status = 422, description = "A parameter can't be meant", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store can't be reached", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn dead_letters(
    State(gateway): State<Gateway>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri, PARAMETERS)?;
    let (topic, before, limit) = (query.topic()?, before(&query)?, limit(&query)?);
    let (letters, more) = gateway
        .store
        .dead_letters(topic.as_ref(), before, limit)
        .await?;
    let page: Vec<_> = letters.iter().map(letter_view).collect();
    let last = letters.last().filter(|_| more);
    let last = last.map(|letter| letter.id);
    Ok(with_next(Json(page).into_response(), &uri, &query, last))
}

/// Record a dead letter's event again
///
/// For when the reason is gone. It is recorded and marked in one transaction.
#[utoipa::path(
    post, path = "/dead-letters/{id}/replay", tag = "letters",
    params(("id" = i64, Path)),
    responses(
        (status = 200, description = "Recorded", body = ReplayView),
        (status = 404, description = "There is no such letter", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It still can't be stored, or was replayed before", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A parameter, of which there are none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store can't be reached", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It may have been recorded or not; look before you ask again", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn replay(
    State(gateway): State<Gateway>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, ApiError> {
    Query::of(&uri, &[])?;
    let id = letter_id(path)?;
    match gateway.store.replay_dead_letter(id, now()).await? {
        Replayed::Recorded(outcomes) => {
            let stored = outcomes
                .iter()
                .filter(|outcome| **outcome == Outcome::Stored)
                .count();
            let view = ReplayView {
                status: "replayed",
                stored,
                duplicates: outcomes.len() - stored,
            };
            Ok(Json(view).into_response())
        }
        Replayed::StillPoison(reason) => Err(ApiError::Conflict(format!(
            "it still can't be stored: {reason}"
        ))),
        Replayed::Already => Err(ApiError::Conflict("it was replayed before".into())),
        Replayed::Missing => Err(ApiError::NotFound("dead letter")),
    }
}

/// Remove a dead letter
///
/// The count of buried events stays: it says what happened.
#[utoipa::path(
    delete, path = "/dead-letters/{id}", tag = "letters",
    params(("id" = i64, Path)),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such letter", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A parameter, of which there are none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store can't be reached", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It may be gone or not; look before you ask again", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn drop_letter(
    State(gateway): State<Gateway>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<StatusCode, ApiError> {
    Query::of(&uri, &[])?;
    if gateway.store.drop_dead_letter(letter_id(path)?).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::NotFound("dead letter"))
    }
}

fn letter_id(path: Result<Path<String>, PathRejection>) -> Result<i64, ApiError> {
    let id = path.ok().and_then(|Path(id)| id.parse().ok());
    id.ok_or(ApiError::NotFound("dead letter"))
}

fn limit(query: &Query<'_>) -> Result<usize, ApiError> {
    Ok(query.limit()?.min(MAX_LETTERS))
}

fn before(query: &Query<'_>) -> Result<Option<i64>, ApiError> {
    query.cursor(|text| text.parse().ok().filter(|id| *id > 0))
}

fn with_next(mut response: Response, uri: &Uri, query: &Query<'_>, last: Option<i64>) -> Response {
    if let Some(last) = last {
        let next = query.next(uri.path(), &last.to_string());
        response.headers_mut().insert(LINK, next);
    }
    response
}

fn conflict_view(conflict: &Conflict) -> ConflictView<'_> {
    ConflictView {
        id: conflict.id,
        recorded_at: conflict.recorded_at.to_string(),
        event: EventView::of_any(&conflict.event),
    }
}

fn letter_view(letter: &DeadLetter) -> DeadLetterView<'_> {
    DeadLetterView {
        id: letter.id,
        topic: letter.topic.as_deref(),
        event_id: letter.event_id.as_deref(),
        reason: &letter.reason,
        events: letter.events,
        received_at: letter.received_at.to_string(),
        buried_at: letter.buried_at.to_string(),
        replayed_at: letter.replayed_at.map(|time| time.to_string()),
        batch_id: letter.batch_id.to_string(),
        payload: payload(letter),
        bytes: STANDARD.encode(&letter.bytes),
    }
}

fn payload(letter: &DeadLetter) -> Option<Box<RawValue>> {
    let encoded = EncodedEvents::from_parts(letter.bytes.clone().into(), 1);
    let events = encoded.decode().ok()?;
    let [event] = &events[..] else {
        return None;
    };
    RawValue::from_string(event.payload.as_str().to_owned()).ok()
}
