//! A toy of a gateway that keeps everything in memory, to be sent to and asked. It does its
//! work, or one kind of mischief that a verdict must notice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LINK, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use event::{Event, Form, body};
use futures::StreamExt as _;
use futures::stream;
use lifecycle::{Process, http};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// What the toy does wrong, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mischief {
    None,
    /// Acknowledges the tenth event and forgets it.
    Forget,
    /// The same, and its books say that it was there.
    ForgetAndLie,
    /// Tells of one event twice.
    Double,
    Alter,
    /// Tells of an event that nobody sent.
    Invent,
    /// Takes what is valid of a body that it refuses.
    TakeRefused,
    /// Answers every third request with 503, as it may.
    Busy,
    /// The same, after it has taken it, as it must not.
    TakeBusy,
    /// Answers every third request with 504, after it has taken it, as it may.
    TakeUnknown,
    /// Counts a duplicate too few.
    Miscount,
    /// Counts conflicts as duplicates and no more.
    MissConflicts,
    /// Counts every duplicate as a conflict.
    SeeConflicts,
    /// Counts an event as taken once more than it came, and as a duplicate, like one that is
    /// delivered twice. Until something comes, the queue is full of what others sent.
    TakeTwice,
    /// Breaks off the first page of each topic once, as a gateway that is killed.
    BreakOff,
    /// Wants a key.
    Locked,
    /// Answers with 500.
    Broken,
}

pub(super) const KEY: &str = "a-key";

/// How many events stand on a page, whatever was asked for.
const PAGE: usize = 100;

#[derive(Clone)]
pub(super) struct Toy {
    pub(super) url: String,
    inner: Arc<Mutex<Inner>>,
    pub(super) taken: Arc<Notify>,
    process: Process,
}

pub(super) struct Inner {
    mischief: Mischief,
    /// By topic and event id: the content's digest and the line.
    pub(super) events: BTreeMap<(String, String), (event::Digest, String)>,
    pub(super) books: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// All bodies that ever came.
    pub(super) bodies: BTreeSet<Vec<u8>>,
    pub(super) requests: usize,
    pub(super) received: usize,
    broken_off: BTreeSet<String>,
    forgotten: Option<(String, String)>,
    has_miscounted: bool,
    has_taken_twice: bool,
    /// Looks at the queue before it is empty.
    looks: u32,
}

impl Toy {
    pub(super) fn start(mischief: Mischief) -> Self {
        let process = Process::new("toy").unwrap();
        let listener = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut toy = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            inner: Arc::new(Mutex::new(Inner {
                mischief,
                events: BTreeMap::new(),
                books: BTreeMap::new(),
                bodies: BTreeSet::new(),
                requests: 0,
                received: 0,
                broken_off: BTreeSet::new(),
                forgotten: None,
                has_miscounted: false,
                has_taken_twice: false,
                looks: 3,
            })),
            taken: Arc::new(Notify::new()),
            process,
        };
        let router = Router::new()
            .route("/publish", post(publish))
            .route("/events", get(events))
            .route("/topics", get(topics))
            .route("/topics/{topic}", delete(delete_topic))
            .route("/stats", get(stats))
            .with_state(toy.clone());
        let (tasks, shutdown) = (&toy.process.tasks, toy.process.shutdown.clone());
        let limits = http::Limits::default();
        http::serve("toy", listener, router, limits, tasks, shutdown).unwrap();
        toy.url.push_str("/publish");
        toy
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

impl Inner {
    fn record(&mut self, event: &Event<'_>) -> &'static str {
        self.received += 1;
        let topic = event.topic.as_str().to_owned();
        let key = (topic.clone(), event.event_id.as_str().to_owned());
        let lies = self.mischief == Mischief::ForgetAndLie;
        let forget = (self.mischief == Mischief::Forget || lies) && self.received == 10;
        if forget {
            self.forgotten = Some(key.clone());
        }
        let outcome = match self.events.get(&key) {
            None if !forget && self.forgotten.as_ref() == Some(&key) => "duplicate",
            None => "stored",
            Some((digest, _)) if *digest == event.digest() => "duplicate",
            Some(_) => "conflict",
        };
        let miscounts = self.mischief == Mischief::Miscount
            && outcome == "duplicate"
            && !std::mem::replace(&mut self.has_miscounted, true);
        let takes_twice = self.mischief == Mischief::TakeTwice
            && !std::mem::replace(&mut self.has_taken_twice, true);
        let books = self.books.entry(topic).or_default();
        let mut count = |name| *books.entry(name).or_default() += 1;
        if forget && !lies {
            return "stored";
        }
        count("received");
        match outcome {
            "stored" => count("unique"),
            _ if miscounts => {}
            _ => count("duplicates"),
        }
        if takes_twice {
            count("received");
            count("duplicates");
        }
        let counts_conflict = match self.mischief {
            Mischief::MissConflicts => false,
            Mischief::SeeConflicts => outcome != "stored",
            _ => outcome == "conflict",
        };
        if counts_conflict {
            count("conflicts");
        }
        if outcome == "stored" && !forget {
            let line = format!(
                r#"{{"topic":{},"event_id":{},"timestamp":"{}","source":{},"payload":{},"received_at":"2026-01-01T00:00:00Z"}}"#,
                json!(event.topic.as_str()),
                json!(event.event_id.as_str()),
                event.timestamp,
                json!(event.source.as_str()),
                event.payload.as_str(),
            );
            self.events.insert(key, (event.digest(), line));
        }
        outcome
    }

    /// The lines of a topic, with what mischief does to them.
    fn lines(&self, topic: &str) -> Vec<String> {
        let of_topic = self.events.iter().filter(|((of, _), _)| of == topic);
        let mut lines: Vec<_> = of_topic.map(|(_, (_, line))| line.clone()).collect();
        if let Some(first) = lines.first().cloned() {
            match self.mischief {
                Mischief::Double => lines.push(first),
                Mischief::Alter => lines[0] = first.replacen("\"text\":\"", "\"text\":\"!", 1),
                Mischief::Invent => {
                    lines.push(first.replacen("\"event_id\":\"", "\"event_id\":\"x", 1));
                }
                _ => {}
            }
        }
        lines
    }
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({"detail": detail, "status": status.as_u16()}).to_string();
    (status, [(RETRY_AFTER, "0")], body).into_response()
}

fn is_open(toy: &Inner, headers: &HeaderMap) -> bool {
    let expected = format!("Bearer {KEY}");
    toy.mischief != Mischief::Locked
        || headers
            .get(AUTHORIZATION)
            .is_some_and(|key| *key == expected)
}

async fn publish(
    State(toy): State<Toy>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    toy.taken.notify_one();
    let mut inner = toy.lock();
    inner.requests += 1;
    inner.bodies.insert(bytes.to_vec());
    if !is_open(&inner, &headers) {
        return problem(StatusCode::UNAUTHORIZED, "a key is needed");
    }
    let is_third = inner.requests.is_multiple_of(3);
    match inner.mischief {
        Mischief::Broken => return problem(StatusCode::INTERNAL_SERVER_ERROR, "a defect"),
        Mischief::Busy if is_third => return problem(StatusCode::SERVICE_UNAVAILABLE, "busy"),
        _ => {}
    }
    let is_lines = headers.get(CONTENT_TYPE).unwrap() == "application/x-ndjson";
    let form = if is_lines { Form::Ndjson } else { Form::Json };
    let is = |name: &str, value: &str| query.get(name).is_some_and(|given| given == value);
    let (stored, partial) = (is("ack", "stored"), is("partial", "true"));
    let Ok(parsed) = body::parse(&bytes, form) else {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "malformed");
    };
    let is_refused = parsed.refused > 0 && !partial;
    if is_refused && inner.mischief != Mischief::TakeRefused {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "some are no events");
    }
    let outcomes: Vec<_> = parsed
        .events
        .iter()
        .map(|event| inner.record(event))
        .collect();
    match inner.mischief {
        _ if is_refused => return problem(StatusCode::UNPROCESSABLE_ENTITY, "not all"),
        Mischief::TakeBusy if is_third => {
            return problem(StatusCode::SERVICE_UNAVAILABLE, "busy");
        }
        Mischief::TakeUnknown if is_third => {
            return problem(StatusCode::GATEWAY_TIMEOUT, "it is not known");
        }
        _ => {}
    }
    let count = |wanted: &str| {
        outcomes
            .iter()
            .filter(|outcome| **outcome == wanted)
            .count()
    };
    let taken = parsed.events.len();
    let mut answer = if stored {
        json!({
            "status": "stored", "count": taken, "stored": count("stored"),
            "duplicates": count("duplicate") + count("conflict"),
            "conflicts": count("conflict"), "results": [],
        })
    } else {
        json!({"status": "queued", "count": taken + parsed.refused, "accepted": taken})
    };
    if partial {
        answer["refused"] = json!(parsed.refused);
        answer["errors"] = serde_json::to_value(&parsed.refusals).unwrap();
    }
    answer.to_string().into_response()
}

async fn events(
    State(toy): State<Toy>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let mut inner = toy.lock();
    if !is_open(&inner, &headers) {
        return problem(StatusCode::UNAUTHORIZED, "a key is needed");
    }
    assert_eq!(headers.get("accept").unwrap(), "application/x-ndjson");
    let topic = &query["topic"];
    let lines = inner.lines(topic);
    let from: usize = query
        .get("cursor")
        .map_or(0, |cursor| cursor.parse().unwrap());
    let to = lines.len().min(from + PAGE);
    let page = lines[from..to]
        .iter()
        .flat_map(|line| [line, "\n"])
        .collect::<String>();
    if inner.mischief == Mischief::BreakOff && inner.broken_off.insert(topic.clone()) {
        let half = Bytes::from(page[..page.len() / 2].to_owned());
        let half = stream::once(async { Ok(half) });
        // What came before the failure is on its way by then.
        let end = stream::once(async {
            tokio::task::yield_now().await;
            Err("broken off")
        });
        return Body::from_stream(half.chain(end)).into_response();
    }
    let mut response = page.into_response();
    if to < lines.len() {
        let link = format!(
            "</events?topic={topic}&limit={}&cursor={to}>; rel=\"next\"",
            query["limit"]
        );
        response.headers_mut().insert(LINK, link.parse().unwrap());
    }
    response
}

async fn topics(State(toy): State<Toy>) -> String {
    let inner = toy.lock();
    let view = |(topic, books): (&String, &BTreeMap<&'static str, u64>)| {
        let mut view = json!({
            "topic": topic, "received": 0, "unique": 0, "duplicates": 0, "conflicts": 0,
            "buried": 0, "first_timestamp": null, "last_timestamp": null,
        });
        for (name, count) in books {
            view[name] = json!(count);
        }
        view
    };
    Value::from(inner.books.iter().map(view).collect::<Vec<_>>()).to_string()
}

async fn stats(State(toy): State<Toy>) -> String {
    let mut inner = toy.lock();
    let is_of_others = inner.mischief == Mischief::TakeTwice && inner.requests == 0;
    if !is_of_others {
        inner.looks = inner.looks.saturating_sub(1);
    }
    json!({"received": inner.received, "queue_depth": inner.looks * 10}).to_string()
}

async fn delete_topic(State(toy): State<Toy>, Path(topic): Path<String>) -> StatusCode {
    let mut inner = toy.lock();
    inner.events.retain(|(of, _), _| *of != topic);
    match inner.books.remove(&topic) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}
