//! What is asked of it over HTTP.

use reqwest::Client;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::Sekali;
use crate::until;

/// What a gateway answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Sends a request and reads the answer.
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        Self {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.text().await.unwrap(),
        }
    }

    /// The body, which is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }

    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The body, after a look at the status.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }
}

impl Sekali {
    /// The address of a path on the first gateway.
    pub fn url(&self, path: &str) -> String {
        self.url_of(0, path)
    }

    /// The address of a path on a gateway.
    pub fn url_of(&self, gateway: usize, path: &str) -> String {
        format!("http://{}{path}", self.address(gateway))
    }

    /// A client to ask with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a request and reads the answer.
    pub async fn ask(&self, request: reqwest::RequestBuilder) -> Answer {
        Answer::of(request).await
    }

    /// GET of a path.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(self.client.get(self.url(path))).await
    }

    /// POST of JSON to `/publish`.
    pub async fn publish(&self, events: &Value) -> Answer {
        self.publish_bytes("", "application/json", events.to_string())
            .await
    }

    /// POST of JSON to `/publish?ack=stored`.
    pub async fn store(&self, events: &Value) -> Answer {
        self.publish_bytes("?ack=stored", "application/json", events.to_string())
            .await
    }

    /// POST of bytes to `/publish`, with a query.
    pub async fn publish_bytes(
        &self,
        query: &str,
        kind: &str,
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let request = self.client.post(self.url(&format!("/publish{query}")));
        self.ask(request.header("content-type", kind).body(body))
            .await
    }

    /// The metrics of a gateway.
    pub async fn metrics(&self, gateway: usize) -> String {
        self.ask(self.client.get(self.url_of(gateway, "/metrics")))
            .await
            .body
    }

    /// The metrics of a worker.
    pub async fn worker_metrics(&mut self, worker: usize) -> String {
        let address = self.workers[worker].address("admin").await;
        let url = format!("http://{address}/metrics");
        self.ask(self.client.get(url)).await.body
    }

    /// The statistics.
    pub async fn stats(&self) -> Value {
        self.get("/stats").await.ok()
    }

    /// Waits until so many more events are stored, while servers come and go.
    pub async fn stores_more(&self, events: i64) {
        let mut before = None;
        until("more is stored", async || {
            let stats = self.get("/stats").await;
            if stats.status != 200 {
                return false;
            }
            let stored = stats.json()["unique_processed"].as_i64().unwrap();
            stored >= *before.get_or_insert(stored) + events
        })
        .await;
    }

    /// What a query lists.
    pub async fn events(&self, query: &str) -> Vec<Value> {
        let page = self.get(&format!("/events{query}")).await.ok();
        page.as_array().unwrap().clone()
    }

    /// Waits until the queue is empty; then the books must balance.
    pub async fn settled(&self) -> Value {
        let mut stats = Value::Null;
        until("the queue is empty", async || {
            stats = self.stats().await;
            stats["queue_depth"] == 0
        })
        .await;
        balance(&stats);
        stats
    }
}

/// The statistics of an empty queue must balance.
pub fn balance(stats: &Value) {
    let count = |name: &str| stats[name].as_i64().unwrap();
    assert_eq!(
        count("received"),
        count("unique_processed") + count("duplicate_dropped") + count("buried"),
        "{stats}"
    );
}
