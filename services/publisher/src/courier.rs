//! Sends one request after another over one connection, each until it is decided.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode, Uri};
use lifecycle::trace::TRACEPARENT;
use lifecycle::{Backoff, CancellationToken};

use crate::client::{Client, Connection, Unanswered};
use crate::metrics::Metrics;
use crate::retry::{self, Again, Attempt, Decision, End, Wish};
use crate::spans;

/// The first wait before a request is sent again, doubled from there.
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// The longest: a gateway that is back is found within so much.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The longest answer: with `ack=stored`, it names each of up to 10,000 events.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// What a request is sent as.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) uri: Uri,
    pub(crate) content_type: &'static str,
}

/// One connection and what it takes to keep it.
pub(crate) struct Courier {
    client: Client,
    address: Address,
    connection: Option<Connection>,
    backoff: Backoff,
    patience: Duration,
    stop: CancellationToken,
    /// Why an attempt failed after the stop: no connection is asked for any more.
    given_up: Option<String>,
    answer: BytesMut,
    metrics: Arc<Metrics>,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) outcome: Outcome,
    /// How often it left.
    pub(crate) sent: u64,
    /// How often it may have been taken, the acknowledged time included.
    pub(crate) taken_at_most: u64,
    /// How often it was tried again.
    pub(crate) retries: u64,
    /// From the first attempt to the end.
    pub(crate) took: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Over(End),
    /// It was tried for as long as was asked for.
    GaveUp(String),
    /// The run was stopped before it could be sent again.
    Interrupted(String),
}

impl Courier {
    pub(crate) fn new(
        client: Client,
        address: Address,
        patience: Duration,
        stop: CancellationToken,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            address,
            connection: None,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT, lifecycle::backoff::seed()),
            patience,
            stop,
            given_up: None,
            answer: BytesMut::new(),
            metrics,
        }
    }

    /// Sends the same bytes until they are taken or refused. After a stop one attempt is made
    /// and waited for, unless it is under way, and no other follows it.
    pub(crate) async fn deliver(&mut self, body: Bytes, wish: Wish) -> Delivery {
        let begun = Instant::now();
        let (mut sent, mut taken_at_most, mut retries) = (0, 0, 0);
        let outcome = loop {
            let again = match self.attempt(body.clone(), wish).await {
                Decision::Over(end) => {
                    sent += 1;
                    taken_at_most += u64::from(!matches!(end, End::Refused(_)));
                    self.backoff.reset();
                    break Outcome::Over(end);
                }
                Decision::Again(again) => again,
            };
            sent += u64::from(again.left);
            taken_at_most += u64::from(again.may_be_taken);
            if self.stop.is_cancelled() {
                self.given_up = Some(again.why.clone());
                break Outcome::Interrupted(again.why);
            }
            if begun.elapsed() >= self.patience {
                break Outcome::GaveUp(again.why);
            }
            self.metrics.retry(&again.why);
            if !self.pause(&again).await {
                break Outcome::Interrupted(again.why);
            }
            retries += 1;
        };
        self.metrics.attempted.inc_by(sent * wish.events);
        Delivery {
            outcome,
            sent,
            taken_at_most,
            retries,
            took: begun.elapsed(),
        }
    }

    /// As long as the gateway asks for, and a drawn time on top, so that not all who were
    /// told the same come back at once. False if the run was stopped.
    async fn pause(&mut self, again: &Again) -> bool {
        let wait = again.wait.unwrap_or_default() + self.backoff.next_wait();
        let pause = tokio::time::sleep(wait);
        self.stop.run_until_cancelled(pause).await.is_some()
    }

    async fn attempt(&mut self, body: Bytes, wish: Wish) -> Decision {
        let attempt = match self.exchange(body).await {
            Ok((status, retry_after)) => Attempt::Answered {
                status,
                retry_after,
                body: &self.answer,
            },
            Err(unanswered) => Attempt::Unanswered(unanswered),
        };
        retry::decide(attempt, wish)
    }

    async fn exchange(
        &mut self,
        body: Bytes,
    ) -> Result<(StatusCode, Option<Duration>), Unanswered> {
        if let Some(connection) = self.connection.take() {
            match self.exchange_over(connection, body.clone()).await {
                // The gateway closed it meanwhile, which is its right.
                Err(Unanswered::NotSent(_)) => {}
                answered => return answered,
            }
        }
        // What a pipe gave is given by nobody again, so a stop does not end the connecting.
        // One attempt that fails then is enough: all of them would outlast the drain.
        let connection = match &self.given_up {
            Some(why) => Err(why.clone()),
            None => self.client.connect().await,
        };
        let connection = connection.map_err(Unanswered::NotSent)?;
        self.exchange_over(connection, body).await
    }

    /// Keeps the connection if it is good for another request.
    async fn exchange_over(
        &mut self,
        mut connection: Connection,
        body: Bytes,
    ) -> Result<(StatusCode, Option<Duration>), Unanswered> {
        let Address { uri, content_type } = &self.address;
        let mut request = self.client.post(uri, content_type, body);
        let span = spans::request(self.client.target(), uri);
        if let Some(value) = span.as_ref().and_then(spans::header) {
            request.headers_mut().insert(TRACEPARENT, value);
        }
        let exchange = async {
            let (head, body) = connection.send(request).await?.into_parts();
            connection
                .read(body, MAX_ANSWER, &mut self.answer)
                .await
                .map_err(Unanswered::Unknown)?;
            Ok((head.status, retry_after(&head.headers)))
        };
        let answered = tokio::time::timeout(self.client.timeout(), exchange)
            .await
            .unwrap_or_else(|_| Err(Unanswered::Unknown("no answer in time".into())));
        if let Some(span) = span {
            spans::answered(&span, answered.as_ref().ok().map(|(status, _)| *status));
        }
        let answered = answered?;
        self.connection = Some(connection);
        Ok(answered)
    }
}

/// In seconds; the other form, a date, is not understood and thus as good as none.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse();
    seconds.ok().map(Duration::from_secs)
}
