//! The exporter's way over HTTP: the client that is in the tree already, with its TLS.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;

/// How long one attempt may take. The exporter's own time-out is for all attempts.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most that is read of an answer, which says how many spans were refused, and why.
const MAX_ANSWER: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Client {
    inner: Inner,
    /// The exporter has a thread of its own, which is none of the runtime's.
    runtime: Handle,
}

type Inner = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

impl Client {
    /// Must be called within a runtime.
    pub(super) fn new() -> std::io::Result<Self> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            inner: legacy::Client::builder(TokioExecutor::new()).build(connector),
            runtime: Handle::current(),
        })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = exchange(self.inner.clone(), request);
        let bounded = async { tokio::time::timeout(TIMEOUT, exchange).await? };
        self.runtime.spawn(bounded).await?
    }
}

async fn exchange(client: Inner, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let response = client.request(request.map(Full::new)).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await?;
    Ok(Response::from_parts(head, body.to_bytes()))
}
