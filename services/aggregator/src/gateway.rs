//! What every handler is given, and which path is whose.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use broker::Broker;
use http::HeaderValue;
use http::header::X_CONTENT_TYPE_OPTIONS;
use lifecycle::{CancellationToken, Readiness};
use prometheus::Registry;
use store::Store;
use tokio_util::sync::DropGuard;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use crate::body;
use crate::intake::Intake;
use crate::keys::{self, Guard, Keys, Scope};
use crate::metrics::{self, Metrics};
use crate::tail::Tail;
use crate::{error, events, index, letters, openapi, publish, stats, tail};

/// What every handler is given. Clones are the same gateway.
#[derive(Clone)]
pub(crate) struct Gateway(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) broker: Option<Broker>,
    pub(crate) intake: Intake,
    pub(crate) bodies: body::Reader,
    pub(crate) tail: Tail,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) started: Instant,
    pub(crate) shutdown: CancellationToken,
    /// Tells, when the last handler is gone, that the store may be closed.
    pub(crate) _unused: DropGuard,
}

impl std::ops::Deref for Gateway {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Gateway {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Everything on the port for senders and readers.
    pub(crate) fn router(
        self,
        keys: Option<&Keys>,
        readiness: &Readiness,
        registry: Registry,
    ) -> Router {
        let metrics = Arc::clone(&self.metrics);
        let keys = keys.map(|keys| (keys, &metrics));
        let (guarded, _) = routes(keys).split_for_parts();
        guarded
            .with_state(self)
            .merge(index::router())
            .merge(openapi::router())
            .layer(map_response(no_sniffing))
            .merge(readiness.router())
            .merge(lifecycle::metrics::router(registry))
            .fallback(error::not_found)
            .method_not_allowed_fallback(error::method_not_allowed)
            .layer(from_fn_with_state(metrics, metrics::observe))
    }
}

/// What is described in the OpenAPI document, each behind the scope that it needs.
fn routes(keys: Option<(&Keys, &Arc<Metrics>)>) -> OpenApiRouter<Gateway> {
    let guard = |scope, routes: Vec<UtoipaMethodRouter<Gateway>>| {
        let router = routes
            .into_iter()
            .fold(OpenApiRouter::new(), OpenApiRouter::routes);
        match keys {
            None => router,
            Some((keys, metrics)) => {
                let state = Guard {
                    keys: keys.clone(),
                    scope,
                    metrics: Arc::clone(metrics),
                };
                router.route_layer(from_fn_with_state(state, keys::require))
            }
        }
    };
    guard(Scope::Write, vec![routes!(publish::publish)])
        .merge(guard(
            Scope::Read,
            vec![
                routes!(events::list),
                routes!(events::one),
                routes!(tail::follow),
                routes!(stats::stats),
                routes!(stats::topics),
                routes!(letters::conflicts),
                routes!(letters::dead_letters),
            ],
        ))
        .merge(guard(
            Scope::Admin,
            vec![
                routes!(stats::delete_topic),
                routes!(letters::replay),
                routes!(letters::drop_letter),
            ],
        ))
}

/// The paths of [`routes`], described.
pub(crate) fn describe() -> OpenApi {
    routes(None).into_openapi()
}

/// What a sender wrote is never run as a page by a browser that guesses.
async fn no_sniffing(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
