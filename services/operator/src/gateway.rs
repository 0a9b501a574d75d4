//! What the operator asks a gateway, over HTTP like anyone else.

use std::path::PathBuf;
use std::time::Duration;

use lifecycle::ConfigError;
use lifecycle::secret::read_key;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::resources::GatewayRef;

/// How long an answer may take. The books are a few rows; who waits longer for them holds
/// up the next look.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a bad key file is told by.
const KEY_FLAG: &str = "--api-key-file";

/// A way to the gateways of all installations.
#[derive(Debug, Clone)]
pub(crate) struct Gateways {
    client: Client,
    key_file: Option<PathBuf>,
}

/// Those of one installation.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    client: Client,
    base: String,
    key_file: Option<PathBuf>,
}

/// What `GET /stats` says, as far as it is of interest here.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Books {
    pub(crate) received: i64,
    pub(crate) unique_processed: i64,
    pub(crate) duplicate_dropped: i64,
    pub(crate) conflicts: i64,
    pub(crate) buried: i64,
    pub(crate) queue_depth: i64,
    pub(crate) oldest_age_seconds: f64,
    pub(crate) recorded_rate: f64,
}

/// Events, or events a second, for a rate.
#[expect(
    clippy::cast_precision_loss,
    reason = "up to 2^53 it is the same number, and more is no rate of anything"
)]
pub(crate) fn as_float(events: i64) -> f64 {
    events as f64
}

/// Why there is no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    #[error(transparent)]
    Key(#[from] ConfigError),
    #[error("no gateway answers at {base}: {why}")]
    Unreachable { base: String, why: String },
    #[error("the gateway at {base} answers what this operator can't read: {why}")]
    Unreadable { base: String, why: String },
    #[error("the gateway at {base} answers {status}: {detail}")]
    Refused {
        base: String,
        status: StatusCode,
        detail: String,
    },
}

#[derive(Deserialize)]
struct Topic {
    topic: String,
}

/// What errors look like.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl Gateways {
    /// The key file is read at each request too: keys may be exchanged while this runs.
    pub(crate) fn new(key_file: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = &key_file {
            read_key(KEY_FLAG, path)?;
        }
        let client = Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        Ok(Self { client, key_file })
    }

    /// The Service that tests ask is on this machine.
    #[cfg(test)]
    pub(crate) fn resolving(addr: std::net::SocketAddr) -> Self {
        let client = Client::builder().no_proxy().timeout(TIMEOUT);
        let client = client.resolve("sekali.test.svc", addr).build().unwrap();
        Self {
            client,
            key_file: None,
        }
    }

    /// By the name that the cluster's DNS has for the Service.
    pub(crate) fn of(&self, namespace: &str, gateway: &GatewayRef) -> Gateway {
        let GatewayRef { service, port } = gateway;
        Gateway {
            client: self.client.clone(),
            base: format!("http://{service}.{namespace}.svc:{port}"),
            key_file: self.key_file.clone(),
        }
    }
}

impl Gateway {
    /// The books, and what is queued.
    pub(crate) async fn books(&self) -> Result<Books, GatewayError> {
        self.get("/stats").await
    }

    /// The names of all topics that begin so.
    pub(crate) async fn topics(&self, prefix: &str) -> Result<Vec<String>, GatewayError> {
        let topics: Vec<Topic> = self.get("/topics").await?;
        let names = topics.into_iter().map(|topic| topic.topic);
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }

    /// Deletes a topic of a name that stands in an address as it is. One that is not there is
    /// deleted.
    pub(crate) async fn delete(&self, topic: &str) -> Result<(), GatewayError> {
        let url = self.url(&format!("/topics/{topic}"));
        match self.send(self.client.delete(url)).await {
            Err(GatewayError::Refused {
                status: StatusCode::NOT_FOUND,
                ..
            }) => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, GatewayError> {
        let answer = self.send(self.client.get(self.url(path))).await?;
        // One that breaks off is no other than one that does not come.
        let body = answer.bytes().await;
        let body = body.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body).map_err(|error| GatewayError::Unreadable {
            base: self.base.clone(),
            why: error.to_string(),
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, GatewayError> {
        let request = match &self.key_file {
            None => request,
            Some(path) => request.bearer_auth(read_key(KEY_FLAG, path)?),
        };
        let answer = request.send().await;
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let detail = match answer.json::<Problem>().await {
            Ok(problem) => problem.detail.chars().take(300).collect(),
            Err(_) => "without a reason".into(),
        };
        Err(GatewayError::Refused {
            base: self.base.clone(),
            status,
            detail,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn unreachable(&self, error: &reqwest::Error) -> GatewayError {
        // The outermost says no more than that a request failed.
        let mut why: &dyn std::error::Error = error;
        while let Some(source) = why.source() {
            why = source;
        }
        GatewayError::Unreachable {
            base: self.base.clone(),
            why: why.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_that_is_none_is_said_to_be_so_at_the_start_and_later() {
        let path = std::env::temp_dir().join(format!("sekali-key-{}", std::process::id()));
        std::fs::write(&path, "a-key\n").unwrap();
        let gateways = Gateways::new(Some(path.clone())).unwrap();
        let gateway = GatewayRef {
            service: "sekali".into(),
            port: 8080,
        };
        let gateway = gateways.of("test", &gateway);
        let words = "it must hold one key and nothing else";
        for written in ["", "one\ntwo"] {
            std::fs::write(&path, written).unwrap();
            let error = gateway.books().await.unwrap_err().to_string();
            assert!(error.starts_with("--api-key-file /"), "{error}");
            assert!(error.ends_with(words), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = Gateways::new(Some(path)).unwrap_err();
        assert!(error.is::<ConfigError>(), "{error}");
    }
}
