//! The port for whoever runs the process: `/livez`, `/readyz`, `/healthz`, `/health` and
//! `/metrics`. It answers from before the start is complete until the drain is.

use std::net::SocketAddr;

use axum::Router;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::http::{self, Limits};
use crate::{Readiness, Tasks};

/// Enough for every prober and scraper; more is a leak in one of them.
const MAX_CONNECTIONS: usize = 256;

/// What is on the port. Must be called within the runtime that does the work, see
/// [`Readiness::router`].
pub fn routes(readiness: &Readiness, metrics: Registry) -> Router {
    readiness.router().merge(crate::metrics::router(metrics))
}

/// Binds the port and serves it, on the runtime within which it is called. Returns the
/// address, which port 0 leaves open.
pub fn serve(
    addr: SocketAddr,
    routes: Router,
    tasks: &Tasks,
    shutdown: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let limits = Limits {
        max_connections: MAX_CONNECTIONS,
        ..Limits::default()
    };
    http::serve("admin", http::bind(addr)?, routes, limits, tasks, shutdown)
}
