//! An API server that answers from a map and records what is written, and a gateway beside
//! it: what the controllers are tested against where a real one would only be slower.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use lifecycle::http::{Limits, bind, serve};
use lifecycle::{CancellationToken, Tasks};
use serde_json::{Value, json};
use tower_test::mock;

use crate::chaos::Template;
use crate::context::{Context, Parts};
use crate::gateway::Gateways;
use crate::metrics::Metrics;

/// The namespace of all of it.
pub(crate) const NAMESPACE: &str = "test";

/// What a controller wrote.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Write {
    pub(crate) method: Method,
    /// From the resource on, the query included.
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// What there is, by the path that it is read at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    objects: BTreeMap<String, Value>,
    /// Writes to these are refused with a status.
    refused: BTreeMap<String, u16>,
    /// The same of what is read.
    unread: BTreeMap<String, u16>,
    /// So many requests, the first ones, get no answer.
    unanswered: usize,
    books: Option<Value>,
    topics: Vec<String>,
}

impl Cluster {
    /// An object, or a list of them; the path begins with its group.
    pub(crate) fn with(mut self, path: &str, object: &Value) -> Self {
        self.objects.insert(path.into(), object.clone());
        self
    }

    pub(crate) fn object(&self, path: &str) -> &Value {
        &self.objects[path]
    }

    /// What the gateway says; without it, none answers.
    pub(crate) fn with_books(mut self, queue: i64, age: f64) -> Self {
        self.books = Some(json!({
            "received": 100 + queue, "unique_processed": 70, "duplicate_dropped": 30,
            "conflicts": 0, "buried": 0, "queue_depth": queue,
            "oldest_age_seconds": age, "recorded_rate": 0.0,
        }));
        self
    }

    /// A gateway of another release, or something else that answers.
    pub(crate) fn with_other_books(mut self) -> Self {
        self.books = Some(json!({"received": 100}));
        self
    }

    pub(crate) fn with_topics(mut self, topics: &[&str]) -> Self {
        self.topics = topics.iter().map(|&topic| topic.into()).collect();
        self
    }

    pub(crate) fn refusing(mut self, path: &str, status: u16) -> Self {
        self.refused.insert(path.into(), status);
        self
    }

    pub(crate) fn refusing_reads(mut self, path: &str, status: u16) -> Self {
        self.unread.insert(path.into(), status);
        self
    }

    pub(crate) fn unanswering(mut self, requests: usize) -> Self {
        self.unanswered = requests;
        self
    }

    /// Runs some work against it. Returns what it came to and what was written, to the
    /// gateway too.
    pub(crate) async fn run<T>(
        mut self,
        work: impl AsyncFnOnce(Arc<Context>) -> T,
    ) -> (T, Vec<Write>) {
        let (service, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
        let shutdown = CancellationToken::new();
        let tasks = Tasks::new(shutdown.clone());
        let address = match &self.books {
            None => closed(),
            Some(books) => {
                let router = gateway(books.clone(), &self.topics);
                let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
                let limits = Limits::default();
                let stop = shutdown.clone();
                serve("gateway", listener, router, limits, &tasks, stop).unwrap()
            }
        };
        for object in self.objects.values_mut() {
            if let Some(port) = object.pointer_mut("/spec/gateway/port") {
                *port = address.port().into();
            }
        }
        let registry = lifecycle::metrics::registry("test").unwrap();
        let context = Arc::new(Context::new(Parts {
            client: Client::new(service, NAMESPACE),
            namespace: NAMESPACE.into(),
            instance: "sekali".into(),
            identity: "operator-0".into(),
            gateways: Gateways::resolving(address),
            template: Template::parse("spec: {containers: [{name: publisher}]}").unwrap(),
            metrics: Metrics::register(&registry).unwrap(),
        }));
        let mut writes = Vec::new();
        let mut unanswered = Vec::new();
        let mut work = pin!(work(context));
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                Some((request, answer)) = handle.next_request() => {
                    if unanswered.len() < self.unanswered {
                        unanswered.push((request, answer));
                        continue;
                    }
                    answer.send_response(self.answer(request, &mut writes).await);
                }
            }
        };
        shutdown.cancel();
        tasks.join().await;
        (done, writes)
    }

    async fn answer(&self, request: Request<Body>, writes: &mut Vec<Write>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = relative(head.uri.path());
        let query = head.uri.query().unwrap_or_default();
        if head.method == Method::GET {
            if let Some(&status) = self.unread.get(&path) {
                return refuse(status);
            }
            return match self.objects.get(&path) {
                Some(object) => respond(200, object),
                // What nobody put there is an empty list, or no object.
                None if is_list(&path) => respond(200, &json!({"metadata": {}, "items": []})),
                None => refuse(404),
            };
        }
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let written = self.objects.get(path.trim_end_matches("/status"));
        let answer = match self.refused.get(&path) {
            Some(&status) => refuse(status),
            None => respond(200, &merged(written, &body)),
        };
        writes.push(Write {
            method: head.method,
            path: format!("{path}?{query}").trim_end_matches('?').into(),
            body,
        });
        answer
    }
}

/// Without what comes before the group and the resource.
fn relative(path: &str) -> String {
    let infix = format!("/namespaces/{NAMESPACE}");
    path.replace(&infix, "").trim_start_matches("/apis/").into()
}

/// A resource has its group and version before it; an object its name after it.
fn is_list(path: &str) -> bool {
    match path.strip_prefix("/api/v1/") {
        Some(core) => !core.contains('/'),
        None => path.split('/').count() == 3,
    }
}

/// As a server answers an apply, as far as is needed here.
fn merged(object: Option<&Value>, patch: &Value) -> Value {
    let mut merged = object.cloned().unwrap_or_else(|| patch.clone());
    for part in ["status", "spec"] {
        if !patch[part].is_null() {
            merged[part] = patch[part].clone();
        }
    }
    let finalizers = &patch["metadata"]["finalizers"];
    if !finalizers.is_null() {
        merged["metadata"]["finalizers"] = finalizers.clone();
    }
    merged
}

fn respond(status: u16, body: &Value) -> Response<Body> {
    let body = Body::from(body.to_string().into_bytes());
    Response::builder().status(status).body(body).unwrap()
}

fn refuse(status: u16) -> Response<Body> {
    let reason = if status == 404 { "NotFound" } else { "Refused" };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "refused", "reason": reason, "code": status,
    });
    respond(status, &body)
}

fn gateway(books: Value, topics: &[String]) -> Router {
    let topics: Vec<_> = topics.iter().map(|topic| json!({"topic": topic})).collect();
    Router::new()
        .route("/stats", get(async move || axum::Json(books)))
        .route("/topics", get(async move || axum::Json(topics)))
        .route("/topics/{topic}", delete(async || StatusCode::NO_CONTENT))
}

/// An address where nobody listens any more.
fn closed() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
