//! The description of the HTTP interface: generated from the handlers, shown as a page.

use std::io::Write as _;
use std::process::ExitCode;

use axum::Router;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, Info, License, OpenApi, Ref, ResponseBuilder, SecurityRequirement,
};

use crate::gateway;

/// Only what the page itself brings may run, and it may ask only where it came from.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
     script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'";

/// The document, as JSON.
pub(crate) fn document() -> String {
    let mut api: OpenApi = gateway::describe();
    let mut info = Info::new("Sekali", lifecycle::process::VERSION);
    info.description = Some(
        "A log and event aggregator: every event that was acknowledged is stored once, and \
         only once, however often it was sent."
            .into(),
    );
    info.license = Some(License::new("Apache-2.0"));
    api.info = info;
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = api
        .components
        .take()
        .unwrap_or_else(|| ComponentsBuilder::new().build());
    api.components = Some(
        ComponentsBuilder::from(components)
            .security_scheme("key", bearer)
            .build(),
    );
    // Either a key or, where there is no file of keys, nothing.
    let key = SecurityRequirement::new("key", std::iter::empty::<String>());
    api.security = Some(vec![SecurityRequirement::default(), key]);
    for item in api.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.delete];
        operations.into_iter().flatten().for_each(behind_keys);
    }
    let mut text = api
        .to_pretty_json()
        .expect("texts and numbers can be written");
    text.push('\n');
    text
}

/// Adds what whoever has not the right key is answered, everywhere the same.
fn behind_keys(operation: &mut Operation) {
    let problem = Content::new(Some(Ref::from_schema_name("Problem")));
    let refusal = |description: &str| {
        ResponseBuilder::new()
            .description(description)
            .content("application/problem+json", problem.clone())
            .build()
    };
    let responses = &mut operation.responses.responses;
    for (status, description) in [
        ("401", "A key is needed"),
        ("403", "The key has another scope"),
    ] {
        responses.insert(status.into(), refusal(description).into());
    }
}

/// Writes the document to standard output.
pub(crate) fn print() -> ExitCode {
    match std::io::stdout().write_all(document().as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

pub(crate) fn router() -> Router {
    let text = document();
    Router::new()
        .route(
            "/openapi.json",
            get(async move || ([(CONTENT_TYPE, "application/json")], text)),
        )
        .route("/docs", get(docs))
}

async fn docs() -> Response {
    let page = Html(include_str!("docs.html"));
    ([(CONTENT_SECURITY_POLICY, POLICY)], page).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_says_what_it_is_and_what_it_answers() {
        let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let mut operations = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                operations += 1;
                assert!(operation["summary"].is_string(), "{method} {path}");
                for refusal in ["401", "403"] {
                    let problem = &operation["responses"][refusal]["content"];
                    let problem = &problem["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(problem, "#/components/schemas/Problem", "{method} {path}");
                }
            }
        }
        assert_eq!(operations, 11);
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let text = document();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut named = text.split("\"$ref\": \"#").skip(1);
        assert!(named.clone().count() > 10);
        assert!(named.all(|rest| {
            let (place, _) = rest.split_once('"').unwrap();
            document.pointer(place).is_some()
        }));
    }
}
