//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower::Service as _;

use super::pulse::{Busy, Pulse, Socket, Watched};
use super::{Closing, Limits};

/// How much of a body is read at once, or of an answer held before its handler is asked for
/// no more; the last piece that a handler makes comes on top, whole. Times the most
/// connections it is a gigabyte, which only clients that all send large bodies at one
/// instant would fill.
const MAX_BUFFER: usize = 64 * 1024;

/// How long the reader of an answer may take nothing of it in a drain. A follower that
/// stands still would hold up the drain to its deadline, and make a failure of it; with
/// less, one that a network holds up for a moment loses an answer that it would have had.
const DRAIN_STALL: Duration = Duration::from_secs(5);

pub(super) fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(MAX_BUFFER)
        .max_header_size(limits.max_header_bytes)
        // See `Pulse`, which does the same for less.
        .header_read_timeout(None);
    builder
}

pub(super) async fn run(
    stream: TcpStream,
    builder: http1::Builder,
    router: Router,
    mut limits: Limits,
    closing: Closing,
) {
    let pulse = Arc::new(Pulse::new());
    let socket = TokioIo::new(Socket::new(stream, &pulse));
    let busy_pulse = Arc::clone(&pulse);
    let Closing { announced, begun } = closing;
    let watched = service_fn(move |request: Request<Incoming>| {
        let busy = Busy::begin(&busy_pulse);
        // A router is always ready, and its clone is a count.
        let response = router.clone().call(request);
        let announced = announced.clone();
        async move {
            let mut response = response.await?;
            if announced.is_cancelled() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response.map(|body| Watched::new(body, busy)))
        }
    });
    let mut connection = pin!(builder.serve_connection(socket, watched));
    let mut alarm = pin!(tokio::time::sleep(limits.header_timeout));
    let mut draining = false;
    loop {
        tokio::select! {
            // First the connection: a request that has arrived is answered even if the
            // drain began in the same instant.
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = begun.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
                limits.idle_timeout = limits.idle_timeout.min(DRAIN_STALL);
                alarm.as_mut().reset(Instant::now() + limits.idle_timeout);
            }
            () = alarm.as_mut() => match pulse.next_look(&limits) {
                Some(next) => alarm.as_mut().reset(next),
                None => return,
            }
        }
    }
}
