//! Who may do what.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tests::{Answer, Sekali, metrics, until};

use crate::contract::is_problem;
use crate::path::event;

/// The line of a key that is its own name.
pub(crate) fn key(name: &str, scope: &str) -> String {
    let hash = tests::hex(&Sha256::digest(name));
    format!("{name} {scope} {hash}\n")
}

#[tokio::test]
async fn a_key_opens_what_its_scope_says_and_a_new_file_is_read() {
    let directory = tests::directory();
    let file = directory.path().join("keys");
    let keys = key("writer", "write") + &key("reader", "read") + &key("boss", "admin");
    std::fs::write(&file, &keys).unwrap();
    let sekali = Sekali::embedded_with(&["--api-keys-file", file.to_str().unwrap()]).await;
    let status =
        async |method: &str, path: &str, key: &str| asked(&sekali, method, path, key).await;
    let api = sekali.get("/openapi.json").await.ok();
    for (method, path) in operations(&api) {
        let open_to = match (method, path) {
            ("post", "/publish") => "writer",
            ("get", _) => "reader",
            _ => "boss",
        };
        let path = path
            .replace("{topic}", "none")
            .replace("{event_id}", "1")
            .replace("{id}", "1");
        assert_eq!(status(method, &path, "").await, 401, "{path}");
        assert_eq!(status(method, &path, "stranger").await, 401, "{path}");
        for key in ["writer", "reader", "boss"] {
            let got = status(method, &path, key).await;
            if key == open_to || key == "boss" {
                assert!([200, 404].contains(&got), "{path} {key}: {got}");
            } else {
                assert_eq!(got, 403, "{path} {key}");
            }
        }
    }
    for path in [
        "/livez",
        "/readyz",
        "/healthz",
        "/metrics",
        "/",
        "/docs",
        "/openapi.json",
    ] {
        assert_eq!(status("GET", path, "").await, 200, "{path}");
    }
    let text = sekali.metrics(0).await;
    // Nobody, a stranger and a reader.
    for (reason, requests) in [("unauthorized", 2), ("forbidden", 1)] {
        let label = format!("reason=\"{reason}\"");
        let told = metrics::sum(&text, "sekali_gateway_refused_requests_total", &label);
        assert_eq!(told, Some(requests), "{reason}");
    }
    std::fs::write(&file, keys + &key("newcomer", "read")).unwrap();
    until("the new key is known", async || {
        status("GET", "/stats", "newcomer").await == 200
    })
    .await;
}

/// The status that a key gets; what it opens is not read, since it may have no end.
async fn asked(sekali: &Sekali, method: &str, path: &str, key: &str) -> u16 {
    let method = method.to_uppercase().parse().unwrap();
    let mut request = sekali.client().request(method, sekali.url(path)).body("[]");
    if !key.is_empty() {
        request = request.bearer_auth(key);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    if status >= 400 {
        let answer = Answer {
            status,
            headers: response.headers().clone(),
            body: response.text().await.unwrap(),
        };
        is_problem(&answer, path);
    }
    status
}

/// The methods and paths that an OpenAPI document describes.
pub(crate) fn operations(api: &Value) -> impl Iterator<Item = (&str, &str)> {
    let paths = api["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(move |method| (&method[..], &path[..]))
    })
}

#[tokio::test]
async fn a_key_that_is_taken_out_opens_nothing_and_a_file_cut_short_changes_nothing() {
    let directory = tests::directory();
    let file = directory.path().join("keys");
    std::fs::write(&file, key("boss", "admin") + &key("gone", "read")).unwrap();
    let mut sekali = Sekali::embedded_with(&["--api-keys-file", file.to_str().unwrap()]).await;
    assert_eq!(asked(&sekali, "get", "/stats", "gone").await, 200);
    std::fs::write(&file, "").unwrap();
    until("it was looked at", async || {
        sekali.gateway(0).log().contains("it holds no key")
    })
    .await;
    assert_eq!(asked(&sekali, "get", "/stats", "gone").await, 200);
    std::fs::write(&file, key("boss", "admin")).unwrap();
    until("the key is not known any more", async || {
        asked(&sekali, "get", "/stats", "gone").await == 401
    })
    .await;
    assert_eq!(asked(&sekali, "get", "/stats", "boss").await, 200);
}

#[tokio::test]
async fn whoever_follows_with_a_key_hears_nothing_after_it_was_taken_out() {
    let directory = tests::directory();
    let file = directory.path().join("keys");
    std::fs::write(&file, key("boss", "admin") + &key("gone", "read")).unwrap();
    let sekali = Sekali::embedded_with(&["--api-keys-file", file.to_str().unwrap()]).await;
    let follow = async |key: &str| {
        let request = sekali.client().get(sekali.url("/events/stream"));
        request.bearer_auth(key).send().await.unwrap()
    };
    let store = async |id: &str| {
        let request = sekali.client().post(sekali.url("/publish?ack=stored"));
        let request = request.bearer_auth("boss");
        let answer = sekali.ask(request.body(event("t", id).to_string())).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    let mut stream = follow("gone").await;
    let mut heard = String::new();
    store("before").await;
    until("an event is told", async || {
        heard.push_str(&piece(&mut stream).await.unwrap());
        heard.contains("before")
    })
    .await;
    std::fs::write(&file, key("boss", "admin")).unwrap();
    until("the stream ends", async || {
        piece(&mut stream).await.is_none()
    })
    .await;
    assert_eq!(follow("gone").await.status(), 401);
    let mut stream = follow("boss").await;
    store("after").await;
    let mut heard = String::new();
    until("who has a key is told again", async || {
        heard.push_str(&piece(&mut stream).await.unwrap());
        heard.contains("after")
    })
    .await;
}

/// What is told next; nothing once the stream has ended.
async fn piece(stream: &mut reqwest::Response) -> Option<String> {
    let chunk = stream.chunk().await.unwrap()?;
    Some(String::from_utf8(chunk.to_vec()).unwrap())
}
