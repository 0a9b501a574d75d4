use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;

use super::{find, free_port};
use crate::{Program, until};

/// A Prometheus that scrapes every second.
pub struct Prometheus {
    port: u16,
    client: Client,
    _program: Program,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes these, as targets of one job, and evaluates these rules.
    pub async fn start(targets: &[SocketAddr], rules: &str) -> Self {
        let directory = crate::directory();
        let mut config = String::from(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n\
             rule_files: [rules.yaml]\n\
             scrape_configs: [{job_name: sekali, static_configs: [{targets: [",
        );
        for target in targets {
            write!(config, "'{target}', ").unwrap();
        }
        config.push_str("]}]}]\n");
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("prometheus.yaml"), config).unwrap();
        std::fs::write(path("rules.yaml"), rules).unwrap();
        let port = free_port();
        let mut command = Command::new(find("find_program prometheus"));
        command
            .arg(format!(
                "--config.file={}",
                path("prometheus.yaml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", path("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let prometheus = Self {
            port,
            client: Client::new(),
            _program: Program::spawn("prometheus", &mut command),
            _directory: directory,
        };
        until("prometheus is ready", async || {
            let ready = prometheus.client.get(prometheus.url("/-/ready"));
            ready
                .send()
                .await
                .is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        prometheus
    }

    /// What a query gives now: its samples, or what is wrong with it.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let encoded = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("query", query)
            .finish();
        let request = self
            .client
            .get(self.url(&format!("/api/v1/query?{encoded}")));
        let answer = request.send().await.unwrap();
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        match answer["data"]["result"].as_array() {
            Some(samples) => Ok(samples.clone()),
            None => Err(answer["error"].to_string()),
        }
    }

    /// The rules and what became of each when it was last evaluated.
    pub async fn rules(&self) -> Vec<Value> {
        let request = self.client.get(self.url("/api/v1/rules"));
        let answer = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let groups = answer["data"]["groups"].as_array().unwrap();
        let rules = groups
            .iter()
            .map(|group| group["rules"].as_array().unwrap());
        rules.flatten().cloned().collect()
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}
