//! HTTP/1.1 on a listener: the accept loop and its bounds.
//!
//! It guarantees that no client and no shortage ends the loop, that what a connection
//! holds is bounded, that a connection closes with its next answer once a drain is
//! announced, and that the drain closes idle connections at once and lets requests in
//! flight finish, unless their readers stall. It never bounds how long a handler reads a
//! body or makes an answer, which is the handler's to say, nor how long a reader takes
//! that goes on taking.
//!
//! Per request it adds no allocation, no timer and no lock: hyper's own time-out for
//! headers would start a timer for each, and would close idle connections too.

mod accept;
mod connection;
mod pulse;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::Tasks;

/// Connections that the kernel completes ahead of the loop. It takes less where
/// `net.core.somaxconn` is less (4096 since Linux 5.4).
const BACKLOG: u32 = 4_096;

/// What a listener and its connections may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many connections are open at once; further ones wait in the kernel's
    /// backlog. Each needs a file descriptor and some 20 KiB.
    pub max_connections: usize,
    /// How long a new connection may take until its first request's headers are
    /// complete.
    pub header_timeout: Duration,
    /// How long a connection may be quiet between two requests, and thus how long the
    /// headers of a later one may take; and for how long a reader may take nothing of its
    /// answer, which in a drain is five seconds at most. More than what clients keep
    /// connections for (most: 60 to 90 s), or they send into closed ones.
    pub idle_timeout: Duration,
    /// How large the request line and the headers may be together, in bytes; larger
    /// ones get 431.
    pub max_header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(2),
            max_header_bytes: 16 * 1024,
        }
    }
}

/// How connections end. A client that keeps one may send into it at the very instant at
/// which it is closed, and then never knows what became of its request; only an answer that
/// says so ends a connection without that risk.
#[derive(Debug, Clone)]
pub struct Closing {
    /// From now on each connection closes with its next answer; new ones are still taken.
    pub announced: CancellationToken,
    /// Idle connections close at once, and no new ones are taken.
    pub begun: CancellationToken,
}

impl From<CancellationToken> for Closing {
    /// Without an announcement.
    fn from(begun: CancellationToken) -> Self {
        Self {
            announced: begun.clone(),
            begun,
        }
    }
}

impl Closing {
    /// For one connection, with tokens of its own: on shared ones, connections would wait
    /// for each other at every request.
    fn of_connection(&self) -> Self {
        Self {
            announced: self.announced.child_token(),
            begun: self.begun.child_token(),
        }
    }
}

/// Binds an address; port 0 takes a free one.
pub fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if addr.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // A restart must not wait for the last connections of the one before it.
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("listen on {addr}"))
}

/// Serves a router until the closing, in a task called `name`, and logs `listening` with
/// `name` and `addr`. Returns the address at once.
pub fn serve(
    name: &'static str,
    listener: TcpListener,
    router: Router,
    limits: Limits,
    tasks: &Tasks,
    closing: impl Into<Closing>,
) -> anyhow::Result<SocketAddr> {
    let addr = listener
        .local_addr()
        .context("read the listener's address")?;
    tracing::info!(%name, %addr, "listening");
    let accept = accept::Accept {
        name,
        listener,
        router,
        limits,
        tasks: tasks.clone(),
        closing: closing.into(),
    };
    tasks.spawn(name, accept.run());
    Ok(addr)
}

#[cfg(test)]
mod tests;
