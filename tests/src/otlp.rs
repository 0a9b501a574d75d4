//! Who receives traces: a collector that keeps what it is sent, or behaves as it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It keeps what it is sent.
    Willing,
    /// It refuses everything.
    Refusing,
    /// It never answers.
    Silent,
}

/// A receiver of both protocols on one port, until it is dropped.
pub struct Receiver {
    address: SocketAddr,
    seen: Seen,
    _server: JoinSet<()>,
}

/// A span, as it was sent.
#[derive(Debug, Clone)]
pub struct Received {
    /// Of which process it is.
    pub service: String,
    /// Its name.
    pub name: String,
    /// In hexadecimal.
    pub trace: String,
    /// In hexadecimal.
    pub id: String,
    /// In hexadecimal; nothing for the first of a trace.
    pub parent: String,
    /// The spans that it is linked to.
    pub links: Vec<String>,
    /// As OTLP numbers them: 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
struct Seen {
    spans: Arc<Mutex<Vec<Received>>>,
    manner: Manner,
}

impl Receiver {
    /// Starts one.
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Seen {
            spans: Arc::default(),
            manner,
        };
        let grpc = Routes::new(TraceServiceServer::new(seen.clone())).into_axum_router();
        let http = Router::new()
            .route("/v1/traces", post(over_http))
            .with_state(seen.clone());
        let serve = Server::builder()
            .accept_http1(true)
            .add_routes(Routes::from(grpc.merge(http)))
            .serve_with_incoming(TcpIncoming::from(listener));
        let mut server = JoinSet::new();
        server.spawn(async { serve.await.unwrap() });
        Self {
            address,
            seen,
            _server: server,
        }
    }

    /// What processes are told, for one of the two protocols.
    pub fn variables(&self, protocol: &str) -> Vec<(String, String)> {
        [
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("http://{}", self.address),
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// What was received by now.
    pub fn spans(&self) -> Vec<Received> {
        let spans = self.seen.spans.lock();
        spans.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Seen {
    async fn take(&self, request: ExportTraceServiceRequest) -> Result<(), Status> {
        match self.manner {
            Manner::Willing => {}
            Manner::Refusing => return Err(Status::permission_denied("not from you")),
            Manner::Silent => std::future::pending().await,
        }
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for of_process in request.resource_spans {
            let resource = of_process.resource.unwrap_or_default();
            let resource = texts(resource.attributes);
            let service = &resource["service.name"];
            let received = of_process.scope_spans.into_iter();
            let received = received.flat_map(|of_scope| of_scope.spans);
            spans.extend(received.map(|span| Received::of(service, span)));
        }
        Ok(())
    }
}

impl Received {
    fn of(service: &str, span: Span) -> Self {
        let links = span.links.iter().map(|link| crate::hex(&link.span_id));
        Self {
            service: service.to_owned(),
            name: span.name,
            trace: crate::hex(&span.trace_id),
            id: crate::hex(&span.span_id),
            parent: crate::hex(&span.parent_span_id),
            links: links.collect(),
            kind: span.kind,
            attributes: texts(span.attributes),
        }
    }
}

#[tonic::async_trait]
impl TraceService for Seen {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request.into_inner()).await?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn over_http(State(seen): State<Seen>, body: Bytes) -> StatusCode {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    match seen.take(request).await {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::FORBIDDEN,
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|any| any.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = attributes.into_iter();
    pairs.map(|pair| (pair.key, text(pair.value))).collect()
}
