//! Every answer that is not what was asked for: RFC 9457 problem+json.
//!
//! What a sender did wrong is said in words that tell what to change; what went wrong
//! inside is logged here, once, and never sent.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use event::body::{BodyError, Refusal};
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use lifecycle::seldom;
use serde::Serialize;
use store::StoreError;
use utoipa::ToSchema;

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ApiError {
    /// Items of the body are no events: why, and how many.
    Refused(Vec<Refusal>, usize),
    /// The body as a whole can't be read.
    Malformed(String),
    /// A query parameter or a part of the path can't be meant.
    Parameter(&'static str, String),
    /// Nothing that the store has by an index answers the question.
    TooBroad,
    /// The body is larger than this many bytes.
    TooLarge(u32),
    UnknownType,
    UnknownEncoding,
    /// The body did not arrive in time.
    TooSlow,
    Unauthorized,
    /// The key has not this scope.
    Forbidden(&'static str),
    NotFound(&'static str),
    MethodNotAllowed,
    /// What was asked for can't be done in the present state.
    Conflict(String),
    /// This process holds as much as it may.
    Overloaded,
    /// The queue's memory is full.
    QueueFull,
    /// Something that the answer needs can't be reached.
    Unavailable(&'static str),
    /// It can't be known whether the events were taken.
    OutcomeUnknown,
    /// It can't be known whether something else was done, which is not always harmless to do
    /// again.
    MaybeDone,
    /// A defect, which is logged: see [`ApiError::defect`].
    Internal,
}

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// What kind of problem it is, for programs: `urn:sekali:` and a word
    #[schema(example = "urn:sekali:invalid-events")]
    r#type: String,
    /// The same for people
    title: &'static str,
    /// The HTTP status
    status: u16,
    /// What to change
    detail: Cow<'static, str>,
    /// What is wrong with which item of the body; at most 100
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<ItemError>>,
    /// How many items of the body are wrong
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<usize>,
}

/// One thing that is wrong with one item of a body.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ItemError {
    /// The item, counted from 0
    index: usize,
    /// The member at fault, if it is one
    field: Option<&'static str>,
    /// What to change
    message: String,
}

impl From<Refusal> for ItemError {
    fn from(refusal: Refusal) -> Self {
        Self {
            index: refusal.index,
            field: refusal.field,
            message: refusal.message,
        }
    }
}

/// When a sender that was told "not now" may come again, in seconds.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

impl ApiError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Refused(..) | Self::Malformed(_) | Self::Parameter(..) | Self::TooBroad => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownType | Self::UnknownEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Overloaded | Self::QueueFull | Self::Unavailable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::OutcomeUnknown | Self::MaybeDone => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The kind, for programs.
    pub(crate) fn kind(&self) -> &'static str {
        self.names().0
    }

    /// The kind, for programs and for people.
    fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::Refused(..) => ("invalid-events", "Some items are no events"),
            Self::Malformed(_) => ("malformed-body", "The body can't be read"),
            Self::Parameter(..) => ("invalid-parameter", "A parameter can't be meant"),
            Self::TooBroad => ("too-slow", "The question takes too long"),
            Self::TooLarge(_) => ("body-too-large", "The body is too large"),
            Self::UnknownType => ("unknown-content-type", "The content type is not known"),
            Self::UnknownEncoding => (
                "unknown-content-encoding",
                "The content encoding is not known",
            ),
            Self::TooSlow => ("body-too-slow", "The body did not arrive in time"),
            Self::Unauthorized => ("unauthorized", "A key is needed"),
            Self::Forbidden(_) => ("forbidden", "The key may not do this"),
            Self::NotFound(_) => ("not-found", "There is no such thing"),
            Self::MethodNotAllowed => ("method-not-allowed", "Not with this method"),
            Self::Conflict(_) => ("conflict", "It can't be done now"),
            Self::Overloaded => ("overloaded", "Too much at once"),
            Self::QueueFull => ("queue-full", "The queue is full"),
            Self::Unavailable(_) => ("unavailable", "A part can't be reached"),
            Self::OutcomeUnknown | Self::MaybeDone => {
                ("outcome-unknown", "The outcome is not known")
            }
            Self::Internal => ("internal", "An error of the server's own"),
        }
    }

    fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::Refused(_, 1) => {
                "1 item is no event, and nothing of the request was taken; correct it, or send \
                 with ?partial=true to have the others taken"
                    .into()
            }
            Self::Refused(_, count) => format!(
                "{count} items are no events, and nothing of the request was taken; correct \
                 them, or send with ?partial=true to have the others taken"
            )
            .into(),
            Self::Malformed(detail) | Self::Conflict(detail) => detail.clone().into(),
            Self::Parameter(name, detail) => format!("{name}: {detail}").into(),
            Self::TooBroad => "the store looks for a source for 10 s and no longer; give a topic \
                               or a time with it, or a shorter time"
                .into(),
            Self::TooLarge(limit) => {
                format!("send at most {limit} bytes, decoded, in one request").into()
            }
            Self::UnknownType => "send application/json, or application/x-ndjson for one event a \
                                  line"
                .into(),
            Self::UnknownEncoding => "send the body as it is, or with gzip or zstd".into(),
            Self::TooSlow => "send smaller requests, or faster".into(),
            Self::Unauthorized => "no key was sent, or one that is not known: send Authorization: \
                                   Bearer and a key of the API keys file"
                .into(),
            Self::Forbidden("admin") => "it needs a key with the scope admin".into(),
            Self::Forbidden(scope) => {
                format!("it needs a key with the scope {scope}, or admin").into()
            }
            Self::NotFound(what) => format!("there is no such {what}").into(),
            Self::MethodNotAllowed => "use a method of the header Allow".into(),
            Self::Overloaded => "nothing of the request was taken; send it again later".into(),
            Self::QueueFull => {
                "nothing of the request was taken; send it again when workers have caught up".into()
            }
            Self::Unavailable(what) => format!(
                "the {what} can't be reached; nothing was changed, and the same request can be \
                 sent again"
            )
            .into(),
            Self::OutcomeUnknown => {
                "the events may have been taken or not; send the same request again: what was \
                 taken is not taken twice"
                    .into()
            }
            Self::MaybeDone => "it may have been done or not; look before you ask again".into(),
            Self::Internal => "the log says more".into(),
        }
    }

    /// What can't be, and is logged.
    pub(crate) fn defect(what: &'static str) -> Self {
        tracing::error!("{what}");
        Self::Internal
    }

    /// An error of the store while it recorded events, which is logged.
    pub(crate) fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Unusable(_) => {
                seldom!(warn, %error, "the store is unavailable; whoever asks is told to come again");
                Self::Unavailable("store")
            }
            StoreError::OutcomeUnknown(_) => {
                seldom!(warn, %error, "the store gave no answer; whoever asked is told so");
                Self::OutcomeUnknown
            }
            StoreError::Unbalanced(_) | StoreError::Migration(_) => {
                seldom!(error, %error, "the store failed");
                Self::Internal
            }
        }
    }
}

impl From<StoreError> for ApiError {
    /// Of whatever else the store was asked.
    fn from(error: StoreError) -> Self {
        match Self::of_store(&error) {
            Self::OutcomeUnknown => Self::MaybeDone,
            known => known,
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let (kind, title) = self.names();
        let detail = self.detail();
        let (errors, refused) = match &self {
            Self::Refused(refusals, count) => {
                let errors = refusals.iter().cloned().map(ItemError::from).collect();
                (Some(errors), Some(*count))
            }
            _ => (None, None),
        };
        let problem = Problem {
            r#type: format!("urn:sekali:{kind}"),
            title,
            status: status.as_u16(),
            detail,
            errors,
            refused,
        };
        let body = serde_json::to_vec(&problem).expect("texts and numbers can be written");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self {
            Self::Overloaded | Self::QueueFull | Self::Unavailable(_) | Self::OutcomeUnknown => {
                headers.insert(RETRY_AFTER, RETRY_SECONDS);
            }
            Self::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // What is left of the body is not read.
            Self::TooSlow | Self::TooLarge(_) => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

/// For a path that is not known.
pub(crate) async fn not_found() -> ApiError {
    ApiError::NotFound("path; GET / lists what there is")
}

/// For a method that a path does not know; the router adds `Allow`.
pub(crate) async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}
