//! Sends a load that is made up, over many connections at once.
//!
//! Connections take the numbers of requests from one counter, so the original of an event
//! and its resends leave over whichever of them are free, and one that waits holds up no
//! other. What was sent is all requests below the counter's last value, but for a few that
//! are listed: nothing else has to be remembered to know what must be there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use lifecycle::{CancellationToken, Process};

use crate::args::Ack;
use crate::client::Client;
use crate::courier::{Address, Courier, Outcome};
use crate::make::Maker;
use crate::make::fault::Fault;
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::retry::{Request, Wish};
use crate::tally::{Parcel, Tally};

/// After so many failed requests the run is over: what goes wrong is known by then.
pub(crate) const MAX_FAILED: u64 = 100;

/// How the load is sent.
pub(crate) struct Load {
    pub(crate) plan: Plan,
    pub(crate) maker: Maker,
    pub(crate) client: Client,
    pub(crate) ack: Ack,
    pub(crate) connections: usize,
    /// Events a second.
    pub(crate) rate: f64,
    pub(crate) patience: Duration,
    pub(crate) metrics: Arc<Metrics>,
}

/// What was sent.
pub(crate) struct Sent {
    pub(crate) tally: Tally,
    /// The requests below this number were sent, but for those of `not_acknowledged`.
    pub(crate) requests: u64,
    /// Sound requests that were not acknowledged, in order: some were sent, perhaps, some
    /// were not.
    pub(crate) not_acknowledged: Vec<u64>,
    /// Whether all that there was to send was sent.
    pub(crate) is_complete: bool,
    pub(crate) took: Duration,
}

impl Sent {
    /// The positions below this were sent, but for those of requests that were not.
    pub(crate) fn end(&self, plan: &Plan) -> u64 {
        let last = self.requests.checked_sub(1);
        last.map_or(0, |last| plan.positions(last).end)
    }
}

impl Load {
    /// Sends until all is sent, or too much has failed, or the process is told to stop.
    pub(crate) async fn send(self: &Arc<Self>, process: &Process) -> anyhow::Result<Sent> {
        let begun = Instant::now();
        let run = Arc::new(Run {
            load: Arc::clone(self),
            next: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stop: process.shutdown.child_token(),
            pace: Pace {
                begun,
                rate: self.rate,
            },
        });
        let start = |_| {
            let connection = Connection::new(Arc::clone(&run));
            process
                .tasks
                .spawn_transient("connection", connection.send_all())
        };
        let connections: Vec<_> = (0..self.connections).map(start).collect();
        let mut tally = Tally::new(self.maker.topics().len());
        let mut unsent = 0;
        for connection in connections {
            let (other, other_unsent) = connection.await.context("send over a connection")?;
            tally = tally.join(other);
            unsent += other_unsent;
        }
        let all = self.plan.requests();
        let requests = run.next.load(Ordering::Relaxed).min(all);
        let mut not_acknowledged = std::mem::take(&mut tally.doubtful);
        not_acknowledged.sort_unstable();
        Ok(Sent {
            is_complete: self.plan.events.is_none() || (requests == all && unsent == 0),
            tally,
            requests,
            not_acknowledged,
            took: begun.elapsed(),
        })
    }
}

/// What the connections share.
struct Run {
    load: Arc<Load>,
    next: AtomicU64,
    failed: AtomicU64,
    stop: CancellationToken,
    pace: Pace,
}

impl Run {
    /// The next request's number, until there is none.
    fn take(&self) -> Option<u64> {
        if self.stop.is_cancelled() {
            return None;
        }
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        (request < self.load.plan.requests()).then_some(request)
    }

    /// Waits until a request is due. False if the run was stopped before.
    async fn is_due(&self, request: u64) -> bool {
        let before = request.saturating_mul(self.load.plan.batch);
        self.pace.is_due(before, &self.stop).await
    }
}

/// How fast events may leave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) begun: Instant,
    /// Events a second; 0 is without a limit.
    pub(crate) rate: f64,
}

impl Pace {
    /// Waits until what comes after so many events is due. False if it was stopped before.
    pub(crate) async fn is_due(&self, before: u64, stop: &CancellationToken) -> bool {
        if self.rate == 0.0 {
            return true;
        }
        let due = self.begun + due_after(before, self.rate);
        let wait = tokio::time::sleep_until(due.into());
        stop.run_until_cancelled(wait).await.is_some()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a second is missed only after 2^53 events"
)]
fn due_after(events: u64, rate: f64) -> Duration {
    Duration::try_from_secs_f64(events as f64 / rate).unwrap_or(Duration::from_hours(24 * 365))
}

/// One connection.
struct Connection {
    run: Arc<Run>,
    courier: Courier,
    tally: Tally,
    body: BytesMut,
    /// The topics of the events in the body.
    topics: Vec<usize>,
}

impl Connection {
    fn new(run: Arc<Run>) -> Self {
        let load = &run.load;
        let path = match load.ack {
            Ack::Queued => "/publish",
            Ack::Stored => "/publish?ack=stored",
        };
        let address = Address {
            uri: load.client.target().path(path),
            content_type: "application/json",
        };
        let courier = Courier::new(
            load.client.clone(),
            address,
            load.patience,
            run.stop.clone(),
            Arc::clone(&load.metrics),
        );
        Self {
            tally: Tally::new(load.maker.topics().len()),
            courier,
            body: BytesMut::new(),
            topics: Vec::new(),
            run,
        }
    }

    /// Also says how many requests it had taken and did not send.
    async fn send_all(mut self) -> (Tally, u64) {
        let mut unsent = 0;
        while let Some(number) = self.run.take() {
            if self.run.is_due(number).await {
                self.send(number).await;
            } else {
                self.tally.doubtful.push(number);
                unsent += 1;
            }
        }
        (self.tally, unsent)
    }

    async fn send(&mut self, number: u64) {
        let run = Arc::clone(&self.run);
        let (request, body) = self.write(number);
        let positions = run.load.plan.positions(number);
        let wish = Wish {
            events: positions.end - positions.start,
            ack: run.load.ack,
            request,
        };
        let delivery = self.courier.deliver(body, wish).await;
        let parcel = Parcel {
            number,
            request,
            events: wish.events,
            topics: &self.topics,
        };
        if self.tally.enter(&parcel, &delivery, &run.load.metrics) {
            return;
        }
        let failed = run.failed.fetch_add(1, Ordering::Relaxed) + 1;
        if failed >= MAX_FAILED || matches!(delivery.outcome, Outcome::GaveUp(_)) {
            run.stop.cancel();
        }
    }

    /// The bytes of a request: one event as it is, more as an array.
    fn write(&mut self, number: u64) -> (Request, Bytes) {
        let Load { plan, maker, .. } = &*self.run.load;
        let positions = plan.positions(number);
        let is_array = plan.batch > 1;
        let fault = plan.is_malformed(number).then(|| {
            let len = positions.end - positions.start;
            let (fault, at) = Fault::of_request(plan.seed, number, len);
            (fault, positions.start + at)
        });
        self.topics.clear();
        let mut separator = b'[';
        for position in positions {
            if is_array {
                self.body.put_u8(separator);
                separator = b',';
            }
            let item = plan.item(position);
            match fault {
                Some((fault, at)) if at == position => {
                    maker.write_broken(item, fault, &mut self.body);
                }
                Some(_) => maker.write(item, &mut self.body),
                None => {
                    maker.write(item, &mut self.body);
                    self.topics.push(maker.topic_of(item.key));
                }
            }
        }
        if is_array {
            self.body.put_u8(b']');
        }
        let request = match fault {
            Some(_) => Request::Malformed,
            None => Request::Sound,
        };
        // The buffer is free again once the request is over.
        (request, self.body.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_the_rate_that_was_asked_for() {
        assert_eq!(due_after(0, 50.0), Duration::ZERO);
        assert_eq!(due_after(1_000, 50.0), Duration::from_secs(20));
        assert!(due_after(u64::MAX, 1e-300) > Duration::from_hours(24));
    }
}
