//! Since when a connection has been of no use.
//!
//! One timer looks at it from time to time, so that a request costs a few stores rather
//! than a timer of its own.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Limits;

/// What is known of a connection.
pub(super) struct Pulse {
    opened: Instant,
    /// Milliseconds since `opened`, or `BUSY`, or `NEW`.
    quiet_since: AtomicU64,
    /// Since when the other side takes nothing of what there is to write, in milliseconds
    /// since `opened`, or `FLOWING`.
    stalled_since: AtomicU64,
}

/// A request is being answered.
const BUSY: u64 = u64::MAX;
/// No request has come yet.
const NEW: u64 = 0;
/// The other side takes what there is.
const FLOWING: u64 = 0;

impl Pulse {
    pub(super) fn new() -> Self {
        Self {
            opened: Instant::now(),
            quiet_since: AtomicU64::new(NEW),
            stalled_since: AtomicU64::new(FLOWING),
        }
    }

    /// When to look again; `None` if the connection has been quiet, or its reader has
    /// stalled, for too long. A handler that has nothing to say yet is neither.
    pub(super) fn next_look(&self, limits: &Limits) -> Option<Instant> {
        let now = Instant::now();
        let since = |millis| self.opened + Duration::from_millis(millis);
        let stalled_since = self.stalled_since.load(Ordering::Relaxed);
        let quiet_since = self.quiet_since.load(Ordering::Relaxed);
        let due = match (stalled_since, quiet_since) {
            (FLOWING, BUSY) => return Some(now + limits.idle_timeout),
            (FLOWING, NEW) => self.opened + limits.header_timeout,
            (FLOWING, quiet_since) => since(quiet_since) + limits.idle_timeout,
            (stalled_since, _) => since(stalled_since) + limits.idle_timeout,
        };
        (due > now).then_some(due)
    }

    /// What an attempt to write came to.
    fn wrote<T>(&self, written: &Poll<T>) {
        let is_stalled = self.stalled_since.load(Ordering::Relaxed) != FLOWING;
        match written {
            Poll::Pending if !is_stalled => {
                self.stalled_since.store(self.millis(), Ordering::Relaxed);
            }
            Poll::Ready(_) if is_stalled => {
                self.stalled_since.store(FLOWING, Ordering::Relaxed);
                // The answer may be over for its handler, but it was not for its reader.
                if self.quiet_since.load(Ordering::Relaxed) != BUSY {
                    self.quiet_since.store(self.millis(), Ordering::Relaxed);
                }
            }
            Poll::Pending | Poll::Ready(_) => {}
        }
    }

    /// The time now, which is none of the special values.
    fn millis(&self) -> u64 {
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(BUSY - 1);
        millis.max(NEW + 1)
    }
}

/// Lives as long as a request and its answer.
pub(super) struct Busy(Arc<Pulse>);

impl Busy {
    pub(super) fn begin(pulse: &Arc<Pulse>) -> Self {
        pulse.quiet_since.store(BUSY, Ordering::Relaxed);
        Self(Arc::clone(pulse))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.quiet_since.store(self.0.millis(), Ordering::Relaxed);
    }
}

/// The body of an answer. Hyper drops it once the last of it is given up or waits to be
/// written: how that goes on, [`Socket`] sees.
pub(super) struct Watched {
    inner: axum::body::Body,
    _busy: Busy,
}

impl Watched {
    pub(super) fn new(inner: axum::body::Body, busy: Busy) -> Self {
        Self { inner, _busy: busy }
    }
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

/// A stream whose writes are noticed: while one of them waits, hyper asks the body for
/// nothing more, so that no handler can tell that its reader has stalled.
pub(super) struct Socket {
    stream: TcpStream,
    pulse: Arc<Pulse>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, pulse: &Arc<Pulse>) -> Self {
        let pulse = Arc::clone(pulse);
        Self { stream, pulse }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.pulse.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.pulse.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
