//! `GET /`: what is here, for a browser and for a program.

use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, VARY};
use serde_json::{Value, json};

use crate::openapi::POLICY;

/// Method, path, and what it is.
const PLACES: &[(&str, &str, &str)] = &[
    (
        "POST",
        "/publish",
        "send events: one, an array, or one a line",
    ),
    ("GET", "/events", "what is stored, newest first"),
    ("GET", "/events/{topic}/{event_id}", "one event"),
    ("GET", "/events/stream", "what is stored from now on"),
    ("GET", "/stats", "the books and the queue"),
    ("GET", "/topics", "the books of each topic"),
    ("DELETE", "/topics/{topic}", "remove a topic"),
    ("GET", "/conflicts", "later events with other content"),
    ("GET", "/dead-letters", "what can never be stored"),
    ("POST", "/dead-letters/{id}/replay", "record it again"),
    ("DELETE", "/dead-letters/{id}", "remove it"),
    ("GET", "/metrics", "for Prometheus"),
    (
        "GET",
        "/healthz",
        "whether all is well, and what was checked",
    ),
    ("GET", "/livez", "whether the process lives"),
    ("GET", "/readyz", "whether to send it work"),
    ("GET", "/docs", "how to ask"),
    ("GET", "/openapi.json", "the same for programs"),
];

pub(crate) fn router() -> Router {
    Router::new().route("/", get(index))
}

async fn index(headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let mut response = if accept.is_some_and(|accept| accept.contains("text/html")) {
        ([(CONTENT_SECURITY_POLICY, POLICY)], Html(page())).into_response()
    } else {
        Json(program()).into_response()
    };
    response
        .headers_mut()
        .insert(VARY, http::HeaderValue::from_static("Accept"));
    response
}

fn program() -> Value {
    let place = |(method, path, what): &(&str, &str, &str)| json!({"method": method, "path": path, "what": what});
    json!({
        "name": "sekali",
        "version": lifecycle::process::VERSION,
        "promise": "every event that was acknowledged is stored once, and only once",
        "places": PLACES.iter().map(place).collect::<Vec<_>>(),
    })
}

fn page() -> String {
    let row = |(method, path, what): &(&str, &str, &str)| {
        let plain = *method == "GET" && !path.contains('{');
        let place = if plain {
            format!("<a href=\"{path}\">{path}</a>")
        } else {
            (*path).to_owned()
        };
        format!("<tr><td>{method}<td>{place}<td>{what}\n")
    };
    let rows: String = PLACES.iter().map(row).collect();
    include_str!("index.html")
        .replace("{{version}}", lifecycle::process::VERSION)
        .replace("{{rows}}", &rows)
}
