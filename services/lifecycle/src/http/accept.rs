//! The loop that takes connections, which nothing but the shutdown ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Closing, Limits, connection};
use crate::Tasks;

/// How long to wait when the process or the system has run out of something that
/// connections need: long enough for some to end, short enough for a client to wait.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Accept {
    pub(super) name: &'static str,
    pub(super) listener: TcpListener,
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) tasks: Tasks,
    pub(super) closing: Closing,
}

impl Accept {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let builder = connection::builder(&self.limits);
        let places = Arc::new(Semaphore::new(self.limits.max_connections));
        while let Some((stream, place)) = self.next(&places).await {
            let (builder, router) = (builder.clone(), self.router.clone());
            let limits = self.limits;
            let closing = self.closing.of_connection();
            self.tasks.spawn_transient(self.name, async move {
                let _place = place;
                connection::run(stream, builder, router, limits, closing).await;
            });
        }
        Ok(())
    }

    /// The next connection and its place among the most that may be open; none after the
    /// closing. What the kernel's backlog holds by then is taken first, unless every place
    /// is taken or the system is short of something: the rest of it is reset.
    async fn next(&self, places: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        let place = self.place(places).await?;
        let mut short = false;
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = self.listener.accept() => accepted,
                () = self.closing.begun.cancelled() => return None,
            };
            match accepted {
                Ok((stream, _)) => {
                    if short {
                        tracing::info!(name = %self.name, "accepts connections again");
                    }
                    // An answer is one write; to hold it back for more only delays it.
                    let _ = stream.set_nodelay(true);
                    return Some((stream, place));
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    if !short {
                        tracing::warn!(name = %self.name, %error, "can't accept connections, trying on");
                        short = true;
                    }
                    let pause = tokio::time::sleep(SHORTAGE_PAUSE);
                    self.closing.begun.run_until_cancelled(pause).await?;
                }
            }
        }
    }

    async fn place(&self, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Some(place);
        }
        crate::seldom!(
            warn,
            name = %self.name,
            max_connections = self.limits.max_connections,
            "every connection is taken, further ones wait"
        );
        let free = Arc::clone(places).acquire_owned();
        // Nobody closes the semaphore, so an error can't be.
        self.closing.begun.run_until_cancelled(free).await?.ok()
    }
}

/// The client is gone before it was accepted; that says nothing of the next one.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
