//! What is asked of a Prometheus, wherever it runs.

use reqwest::Client;
use serde_json::Value;

use crate::{Answer, until};

/// The interface of the one at an address.
pub struct Api {
    url: String,
    client: Client,
}

impl Api {
    /// Of that at this address, such as `http://localhost:9090`.
    pub fn at(url: String) -> Self {
        Self {
            url,
            client: Client::new(),
        }
    }

    /// Whether it has read its data, and answers.
    pub async fn is_ready(&self) -> bool {
        let ready = self.client.get(format!("{}/-/ready", self.url));
        let answer = ready.send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// What a query gives now: its samples, or what is wrong with it.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let mut parameters = url::form_urlencoded::Serializer::new(String::new());
        let parameters = parameters.append_pair("query", query).finish();
        let data = self.data(&format!("query?{parameters}")).await?;
        Ok(data["result"].as_array().unwrap().clone())
    }

    /// What it scrapes, and how it went.
    pub async fn targets(&self) -> Vec<Value> {
        let data = self.data("targets?state=active").await.unwrap();
        data["activeTargets"].as_array().unwrap().clone()
    }

    /// Waits until each of our rules was evaluated, which must go well, and returns them.
    pub async fn evaluates_every_rule(&self) -> Vec<Value> {
        let mut rules = Vec::new();
        until("every rule is evaluated", async || {
            rules = self.rules().await;
            let failed: Vec<_> = rules
                .iter()
                .filter(|rule| rule["health"] == "err")
                .collect();
            assert!(failed.is_empty(), "{failed:?}");
            rules.len() > 20 && rules.iter().all(|rule| rule["health"] == "ok")
        })
        .await;
        rules
    }

    /// The rules, and what became of each when it was last evaluated.
    async fn rules(&self) -> Vec<Value> {
        let data = self.data("rules").await.unwrap();
        let groups = data["groups"].as_array().unwrap().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
        rules.cloned().collect()
    }

    async fn data(&self, path: &str) -> Result<Value, String> {
        let request = self.client.get(format!("{}/api/v1/{path}", self.url));
        let answer = Answer::of(request).await.json();
        match &answer["error"] {
            Value::Null => Ok(answer["data"].clone()),
            error => Err(error.to_string()),
        }
    }
}

/// The chart's rules. Those that it has evaluated every few minutes are as frequent as the others.
pub fn rules() -> String {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../charts/sekali/rules/sekali.yaml"
    );
    let rules = std::fs::read_to_string(path).unwrap();
    let lines = rules.lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("interval:"));
    lines.flat_map(|line| [line, "\n"]).collect()
}
