//! One HTTP/1.1 connection, driven by whoever uses it.
//!
//! The protocol runs inside the caller's task rather than in one of its own: a request
//! then costs no switch between tasks. Nothing is sent twice here and nothing is retried;
//! what is told apart is whether a request that got no answer can have left at all.

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use crate::target::Target;

/// A request got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// It never left.
    NotSent(String),
    /// It may have arrived.
    Unknown(String),
}

/// Makes connections to a gateway. Clones are cheap.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    target: Target,
    connector: Connector,
    headers: HeaderMap,
    timeout: Duration,
}

enum Connector {
    Plain(HttpConnector),
    Tls(HttpsConnector<HttpConnector>),
}

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Driver = http1::Connection<Stream, Full<Bytes>>;

impl Client {
    pub(crate) fn new(
        target: Target,
        api_key: Option<&str>,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(timeout));
        let connector = if target.is_tls {
            http.enforce_http(false);
            let tls = HttpsConnectorBuilder::new()
                .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
                .context("read the system's root certificates")?
                .https_only()
                .enable_http1()
                .wrap_connector(http);
            Connector::Tls(tls)
        } else {
            Connector::Plain(http)
        };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::try_from(&target.authority)?);
        headers.insert(USER_AGENT, HeaderValue::from_static("sekali-publisher"));
        if let Some(key) = api_key {
            let mut value = HeaderValue::try_from(format!("Bearer {key}"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Self(Arc::new(Inner {
            target,
            connector,
            headers,
            timeout,
        })))
    }

    pub(crate) fn target(&self) -> &Target {
        &self.0.target
    }

    /// How long an answer may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    pub(crate) async fn connect(&self) -> Result<Connection, String> {
        // On the heap: it is large, and every future that may connect would hold it.
        let handshake = Box::pin(async {
            let stream = self.0.connector.connect(&self.0.target.uri).await?;
            http1::handshake(stream)
                .await
                .map_err(|error| chain(&error))
        });
        let (sender, driver) = tokio::time::timeout(self.0.timeout, handshake)
            .await
            .map_err(|_| "connect: timed out")??;
        Ok(Connection {
            sender,
            driver: Some(driver),
        })
    }

    pub(crate) fn post(&self, uri: &Uri, kind: &'static str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = self.request(Method::POST, uri, body);
        let kind = HeaderValue::from_static(kind);
        request.headers_mut().insert(CONTENT_TYPE, kind);
        request
    }

    pub(crate) fn get(&self, uri: &Uri, kind: &'static str) -> Request<Full<Bytes>> {
        let mut request = self.request(Method::GET, uri, Bytes::new());
        let kind = HeaderValue::from_static(kind);
        request.headers_mut().insert(ACCEPT, kind);
        request
    }

    pub(crate) fn delete(&self, uri: &Uri) -> Request<Full<Bytes>> {
        self.request(Method::DELETE, uri, Bytes::new())
    }

    fn request(&self, method: Method, uri: &Uri, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.0.headers.clone();
        request
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> Result<Stream, String> {
        match self {
            Self::Plain(http) => http
                .clone()
                .oneshot(uri.clone())
                .await
                .map(MaybeHttpsStream::Http)
                .map_err(|error| chain(&error)),
            Self::Tls(https) => https
                .clone()
                .oneshot(uri.clone())
                .await
                .map_err(|error| chain(&*error)),
        }
    }
}

/// A connection, one request at a time. After an error it is good for nothing.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// None once it has ended.
    driver: Option<Driver>,
}

impl Connection {
    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Unanswered> {
        drive(&mut self.driver, self.sender.ready())
            .await
            .map_err(|error| Unanswered::NotSent(chain(&error)))?;
        let answer = self.sender.try_send_request(request);
        drive(&mut self.driver, answer).await.map_err(|mut error| {
            let left = error.take_message().is_none();
            let why = chain(error.error());
            if left {
                Unanswered::Unknown(why)
            } else {
                Unanswered::NotSent(why)
            }
        })
    }

    /// The next piece of the answer, or none at its end.
    pub(crate) async fn chunk(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, String> {
        while !body.is_end_stream() {
            match drive(&mut self.driver, body.frame()).await {
                Some(Ok(frame)) => {
                    // What is no data are trailers, which nobody here asks for.
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(chain(&error)),
                None => break,
            }
        }
        Ok(None)
    }

    /// Reads the rest of the answer, which must not be longer than `limit` bytes.
    pub(crate) async fn read(
        &mut self,
        mut body: Incoming,
        limit: usize,
        into: &mut BytesMut,
    ) -> Result<(), String> {
        into.clear();
        while let Some(chunk) = self.chunk(&mut body).await? {
            if into.len() + chunk.len() > limit {
                return Err(format!("the answer is longer than {limit} bytes"));
            }
            into.extend_from_slice(&chunk);
        }
        Ok(())
    }
}

/// Runs the protocol for as long as something is waited for. How a connection ended is
/// told to whoever waits for an answer on it.
async fn drive<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Some(running) = driver
            && Pin::new(running).poll(cx).is_ready()
        {
            *driver = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}

/// An error and its causes in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}
