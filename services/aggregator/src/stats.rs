//! `GET /stats` and the books of each topic.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use broker::Depth;
use event::Topic;
use http::{StatusCode, Uri};
use serde::Serialize;
use store::TopicBooks;
use upkeep::now;
use utoipa::ToSchema;

use crate::error::{ApiError, Problem};
use crate::gateway::Gateway;
use crate::query::Query;

/// The books and the queue, in total. Every gateway tells the same.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stats {
    /// Events taken: recorded, and in the queue
    received: i64,
    /// Events stored
    unique_processed: i64,
    /// Events whose key was stored before
    duplicate_dropped: i64,
    /// The names of the topics
    topics: Vec<String>,
    /// How long this gateway has run
    #[schema(example = "1:02:03")]
    uptime: String,
    uptime_seconds: u64,
    /// Duplicates with other content than the stored event
    conflicts: i64,
    /// Events that can never be stored: the dead letters
    buried: i64,
    /// Events in the queue
    queue_depth: i64,
    /// How long the oldest of them has waited
    oldest_age_seconds: f64,
    /// Events stored a second, over the last minute
    throughput: f64,
    /// Events stored or dropped a second, over the last minute
    recorded_rate: f64,
    /// The share of the recorded events that were duplicates
    duplicate_rate: f64,
}

/// The books of one topic: of what is recorded, the queue not included.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TopicView {
    topic: String,
    received: i64,
    unique: i64,
    duplicates: i64,
    conflicts: i64,
    buried: i64,
    /// The oldest event's timestamp
    first_timestamp: Option<String>,
    /// The newest event's timestamp
    last_timestamp: Option<String>,
}

/// What was received, and what became of it
///
/// Once the queue is empty, received = unique_processed + duplicate_dropped + buried.
#[utoipa::path(
    get, path = "/stats", tag = "books",
    responses(
        (status = 200, description = "The books", body = Stats),
        (status = 422, description = "A parameter, of which there are none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The queue or the store can't be reached", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn stats(State(gateway): State<Gateway>, uri: Uri) -> Result<Response, ApiError> {
    Query::of(&uri, &[])?;
    // The queue before the books: what moves from one to the other in between is then
    // counted twice for a moment, never lost.
    let depth = match &gateway.broker {
        Some(broker) => broker.depth().await.map_err(|error| {
            lifecycle::seldom!(warn, %error, "can't ask the queue for its depth");
            ApiError::Unavailable("queue")
        })?,
        None => Depth::default(),
    };
    let books = gateway.store.books(now()).await?;
    let counts = books.counts;
    let uptime = gateway.started.elapsed().as_secs();
    let stats = Stats {
        // What the queue lost was received, too: then this stays above what became of it.
        received: counts.received + depth.taken(),
        unique_processed: counts.unique,
        duplicate_dropped: counts.duplicates,
        topics: books.topics,
        uptime: format!(
            "{}:{:02}:{:02}",
            uptime / 3600,
            uptime / 60 % 60,
            uptime % 60
        ),
        uptime_seconds: uptime,
        conflicts: counts.conflicts,
        buried: counts.buried,
        queue_depth: depth.events(),
        oldest_age_seconds: depth.oldest_age.map_or(0.0, |age| age.as_secs_f64()),
        throughput: books.stored_rate,
        recorded_rate: books.recorded_rate,
        duplicate_rate: share(counts.duplicates, counts.received),
    };
    Ok(Json(stats).into_response())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share is shown to a few digits"
)]
fn share(part: i64, whole: i64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// The books of each topic
#[utoipa::path(
    get, path = "/topics", tag = "books",
    responses(
        (status = 200, description = "By name", body = Vec<TopicView>),
        (status = 422, description = "A parameter, of which there are none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store can't be reached", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn topics(State(gateway): State<Gateway>, uri: Uri) -> Result<Response, ApiError> {
    Query::of(&uri, &[])?;
    let topics = gateway.store.topics().await?;
    let view = |books: TopicBooks| TopicView {
        topic: books.topic,
        received: books.counts.received,
        unique: books.counts.unique,
        duplicates: books.counts.duplicates,
        conflicts: books.counts.conflicts,
        buried: books.counts.buried,
        first_timestamp: books.first_timestamp.map(|time| time.to_string()),
        last_timestamp: books.last_timestamp.map(|time| time.to_string()),
    };
    let topics: Vec<_> = topics.into_iter().map(view).collect();
    Ok(Json(topics).into_response())
}

/// Remove a topic
///
/// Its events, its keys and its books: the same ids are new afterwards. Events of it that
/// are still in the queue make it anew.
#[utoipa::path(
    delete, path = "/topics/{topic}", tag = "books",
    params(("topic" = String, Path)),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is none of that name", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A parameter, of which there are none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store can't be reached", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It may be gone or not; look before you ask again", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete_topic(
    State(gateway): State<Gateway>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<StatusCode, ApiError> {
    Query::of(&uri, &[])?;
    let missing = ApiError::NotFound("topic");
    // What can't be a text or a name has no topic.
    let Ok(Path(topic)) = path else {
        return Err(missing);
    };
    let Ok(topic) = Topic::parse(topic) else {
        return Err(missing);
    };
    if gateway.store.delete_topic(&topic).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(missing)
    }
}
