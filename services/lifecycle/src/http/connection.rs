//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower::Service as _;

use super::{Closing, Limits};

/// How much of a body is read, or of an answer held, at once; beyond it the other side
/// waits. Times the most connections it is a gigabyte, which only clients that all send
/// large bodies at one instant would fill.
const MAX_BUFFER: usize = 64 * 1024;

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
    limits: Limits,
    closing: Closing,
) {
    let pulse = Arc::new(Pulse::new());
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
            Ok::<_, Infallible>(response.map(|inner| Watched { inner, _busy: busy }))
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), watched));
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
            }
            () = alarm.as_mut() => match pulse.next_look(&limits) {
                Some(next) => alarm.as_mut().reset(next),
                None => return,
            }
        }
    }
}

/// Since when a connection has been quiet. One timer looks at it from time to time, so
/// that a request costs two stores rather than a timer of its own.
struct Pulse {
    opened: Instant,
    /// Milliseconds since `opened`, or `BUSY`, or `NEW`.
    quiet_since: AtomicU64,
}

/// A request is being answered.
const BUSY: u64 = u64::MAX;
/// No request has come yet.
const NEW: u64 = 0;

impl Pulse {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            quiet_since: AtomicU64::new(NEW),
        }
    }

    /// When to look again; `None` if the connection has been quiet for too long.
    fn next_look(&self, limits: &Limits) -> Option<Instant> {
        let now = Instant::now();
        let due = match self.quiet_since.load(Ordering::Relaxed) {
            BUSY => return Some(now + limits.idle_timeout),
            NEW => self.opened + limits.header_timeout,
            millis => self.opened + Duration::from_millis(millis) + limits.idle_timeout,
        };
        (due > now).then_some(due)
    }
}

/// Lives as long as a request and its answer.
struct Busy(Arc<Pulse>);

impl Busy {
    fn begin(pulse: &Arc<Pulse>) -> Self {
        pulse.quiet_since.store(BUSY, Ordering::Relaxed);
        Self(Arc::clone(pulse))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let millis = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(BUSY - 1);
        let quiet_since = millis.max(NEW + 1);
        self.0.quiet_since.store(quiet_since, Ordering::Relaxed);
    }
}

/// The body of an answer; hyper drops it once the last of it is written or given up.
struct Watched {
    inner: axum::body::Body,
    _busy: Busy,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
