//! Ships real events: the lines of a file or of standard input.
//!
//! Lines are gathered into requests and handed to as many connections as there are; what is
//! held in memory is a few requests, however long the input. The gateway says which lines
//! are no events; they are told of, and hold up no others. What was read is sent even after
//! a signal, since a pipe gives nothing twice.

mod read;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use lifecycle::{CancellationToken, ConfigError, Process};
use tokio::io::AsyncRead;
use tokio::sync::{Mutex, mpsc};

use crate::Session;
use crate::args::Ack;
use crate::courier::{Address, Courier, Delivery, Outcome};
use crate::load::{MAX_FAILED, Pace};
use crate::metrics::Metrics;
use crate::progress::{Phase, Progress};
use crate::report::Report;
use crate::retry::{End, ItemError, Request, Wish};
use crate::tally::{Parcel, Tally};
use read::Reader;

/// How many refused lines are told of one by one; the others are counted.
const MAX_TOLD: u64 = 1_000;

/// Lines on their way.
struct Batch {
    body: Bytes,
    /// The number of each line, counted from 1.
    numbers: Vec<u64>,
}

/// Sends all lines and says what became of them.
pub(crate) async fn run(
    process: &Process,
    session: &Session,
    path: &Path,
) -> anyhow::Result<Report> {
    let input = open(path).await?;
    tracing::info!(file = %path.display(), target = session.client.target().name(), "publishing");
    let progress = Progress::start(Phase::Sending(None), &session.metrics, &process.tasks);
    let begun = Instant::now();
    let stop = process.shutdown.child_token();
    let (batches, queue) = mpsc::channel(session.connections);
    let shared = Arc::new(Shared {
        queue: Mutex::new(queue),
        ack: session.ack,
        told: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        stop: stop.clone(),
        metrics: Arc::clone(&session.metrics),
    });
    let start = |_| {
        let connection = Connection::new(session, Arc::clone(&shared));
        process
            .tasks
            .spawn_transient("connection", connection.send_all())
    };
    let connections: Vec<_> = (0..session.connections).map(start).collect();
    let pace = Pace {
        begun,
        rate: session.rate,
    };
    let reader = Reader::new(input, session.batch.into());
    let Read {
        mut tally,
        next_line,
    } = read_all(reader, batches, pace, &shared).await;
    for connection in connections {
        tally = tally.join(connection.await.context("send over a connection")?);
    }
    let resume_from = tally.doubtful.iter().min().copied().or(next_line);
    let name = session.client.target().name();
    let mut report = Report::of(name, tally, next_line.is_none(), begun.elapsed());
    report.resume_from_line = resume_from;
    progress.finish().await;
    Ok(report)
}

async fn open(path: &Path) -> anyhow::Result<Box<dyn AsyncRead + Send + Unpin>> {
    if path == Path::new("-") {
        return Ok(Box::new(tokio::io::stdin()));
    }
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| ConfigError::new(format!("--file {}: {error}", path.display())))?;
    Ok(Box::new(file))
}

/// How far the input was read.
struct Read {
    /// Of lines that were refused before they were sent, and of an input that broke off.
    tally: Tally,
    /// The first line that was not read, if it ended early.
    next_line: Option<u64>,
}

/// Reads until the end, until the run is stopped, or until no more can be read; what was read
/// by then is sent all the same.
async fn read_all(
    mut reader: Reader<impl AsyncRead + Unpin>,
    batches: mpsc::Sender<Batch>,
    pace: Pace,
    shared: &Shared,
) -> Read {
    let mut tally = Tally::new(0);
    let mut sent = 0;
    let mut is_early = false;
    loop {
        let read = if is_early {
            None
        } else {
            shared.stop.run_until_cancelled(reader.next()).await
        };
        let next = match read {
            Some(Ok(next)) => next,
            Some(Err(error)) => {
                tally.tell(format!("read the input: {error}"));
                is_early = true;
                reader.rest()
            }
            None => {
                is_early = true;
                reader.rest()
            }
        };
        for (line, fault) in reader.faults() {
            tally.refused_unexpectedly += 1;
            shared.metrics.refused.inc();
            tally.tell(shared.tell(line, fault));
        }
        let Some(batch) = next else {
            return Read {
                tally,
                next_line: is_early.then(|| reader.next_line()),
            };
        };
        pace.is_due(sent, &shared.stop).await;
        sent += batch.numbers.len() as u64;
        // The channel closes only if all connections have panicked, which who joins them tells.
        is_early |= batches.send(batch).await.is_err();
    }
}

/// What the connections share.
struct Shared {
    queue: Mutex<mpsc::Receiver<Batch>>,
    ack: Ack,
    told: AtomicU64,
    failed: AtomicU64,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
}

impl Shared {
    /// Tells of a refused line.
    fn tell(&self, line: u64, why: impl std::fmt::Display) -> String {
        if self.told.fetch_add(1, Ordering::Relaxed) < MAX_TOLD {
            tracing::warn!(line, %why, "refused");
        }
        format!("line {line}: {why}").chars().take(300).collect()
    }
}

/// One connection.
struct Connection {
    shared: Arc<Shared>,
    courier: Courier,
    tally: Tally,
}

impl Connection {
    fn new(session: &Session, shared: Arc<Shared>) -> Self {
        let path = match session.ack {
            Ack::Queued => "/publish?partial=true",
            Ack::Stored => "/publish?partial=true&ack=stored",
        };
        let address = Address {
            uri: session.client.target().path(path),
            content_type: "application/x-ndjson",
        };
        let courier = Courier::new(
            session.client.clone(),
            address,
            session.patience,
            shared.stop.clone(),
            Arc::clone(&shared.metrics),
        );
        Self {
            shared,
            courier,
            tally: Tally::new(0),
        }
    }

    async fn send_all(mut self) -> Tally {
        loop {
            let batch = self.shared.queue.lock().await.recv().await;
            let Some(batch) = batch else {
                return self.tally;
            };
            self.send(batch).await;
        }
    }

    async fn send(&mut self, Batch { body, numbers }: Batch) {
        let wish = Wish {
            events: numbers.len() as u64,
            ack: self.shared.ack,
            request: Request::Partial,
        };
        let delivery = self.courier.deliver(body, wish).await;
        let parcel = Parcel {
            number: numbers[0],
            request: wish.request,
            events: wish.events,
            topics: &[],
        };
        self.tell(&delivery, &numbers);
        if self.tally.enter(&parcel, &delivery, &self.shared.metrics) {
            return;
        }
        let failed = self.shared.failed.fetch_add(1, Ordering::Relaxed) + 1;
        if failed >= MAX_FAILED || matches!(delivery.outcome, Outcome::GaveUp(_)) {
            self.shared.stop.cancel();
        }
    }

    /// Tells of the lines that the gateway refused.
    fn tell(&mut self, delivery: &Delivery, numbers: &[u64]) {
        let Outcome::Over(End::Acknowledged(receipt)) = &delivery.outcome else {
            return;
        };
        let refused = refused(&receipt.errors);
        for (index, why) in &refused {
            if let Some(line) = numbers.get(*index) {
                let why = self.shared.tell(*line, why);
                self.tally.tell(why);
            }
        }
        let more = receipt.refused.saturating_sub(refused.len() as u64);
        if let (1.., [first, .., last]) = (more, numbers) {
            tracing::warn!(
                more,
                first,
                last,
                "further lines between these were refused"
            );
        }
    }
}

/// Why each line is refused, by its index in the request. The gateway counts the lines of
/// the request, which is not what their sender counts.
fn refused(errors: &[ItemError]) -> BTreeMap<usize, String> {
    let mut lines = BTreeMap::<usize, String>::new();
    for ItemError { index, message } in errors {
        let own = format!("line {} ", index + 1);
        let message = message
            .strip_prefix(&own)
            .map_or_else(|| message.clone(), |rest| format!("it {rest}"));
        lines
            .entry(*index)
            .and_modify(|why| *why = format!("{why}; {message}"))
            .or_insert(message);
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context as TaskContext, Poll};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};

    use super::*;

    /// A disk that fails.
    struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut TaskContext<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other("the disk is broken")))
        }
    }

    fn shared() -> Shared {
        let (_, none) = mpsc::channel(1);
        let registry = lifecycle::metrics::registry("test").unwrap();
        Shared {
            queue: Mutex::new(none),
            ack: Ack::Queued,
            told: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stop: CancellationToken::new(),
            metrics: Arc::new(Metrics::register(&registry).unwrap()),
        }
    }

    fn at_once() -> Pace {
        Pace {
            begun: Instant::now(),
            rate: 0.0,
        }
    }

    #[tokio::test]
    async fn what_a_pipe_gave_before_a_stop_is_sent_to_the_last_whole_line() {
        let (mut pipe, input) = tokio::io::duplex(64 * 1024);
        pipe.write_all(("line\n".repeat(300) + "rest").as_bytes())
            .await
            .unwrap();
        let (batches, mut queue) = mpsc::channel::<Batch>(1);
        let shared = shared();
        let take_all = async {
            let mut numbers = queue.recv().await.unwrap().numbers;
            shared.stop.cancel();
            while let Some(batch) = queue.recv().await {
                numbers.extend(batch.numbers);
            }
            numbers
        };
        let reading = read_all(Reader::new(input, 100), batches, at_once(), &shared);
        let (read, numbers) = tokio::join!(reading, take_all);
        assert_eq!(numbers, (1..=300).collect::<Vec<_>>());
        assert_eq!(read.next_line, Some(301));
    }

    #[tokio::test]
    async fn what_was_read_before_the_input_broke_off_is_sent_and_the_next_line_is_named() {
        let (batches, mut queue) = mpsc::channel(1);
        let shared = shared();
        let reader = Reader::new((&b"a\n\xff\nb\nrest"[..]).chain(Broken), 100);
        let read = read_all(reader, batches, at_once(), &shared).await;
        assert_eq!(queue.recv().await.unwrap().numbers, [1, 3]);
        assert!(queue.recv().await.is_none());
        assert_eq!(read.next_line, Some(4));
        assert_eq!(read.tally.refused_unexpectedly, 1);
        let told = &read.tally.failures;
        assert!(
            told.contains(&"read the input: the disk is broken".into()),
            "{told:?}"
        );
    }

    #[test]
    fn all_that_is_wrong_with_a_line_is_told_together_and_by_its_own_number() {
        let error = |index, message: &str| ItemError {
            index,
            message: message.into(),
        };
        let lines = refused(&[
            error(0, "line 1 is not JSON: what"),
            error(3, "`source` is missing"),
            error(3, "`topic` must not be empty"),
        ]);
        let expected = [
            (0, "it is not JSON: what".to_owned()),
            (
                3,
                "`source` is missing; `topic` must not be empty".to_owned(),
            ),
        ];
        assert_eq!(lines, BTreeMap::from(expected));
    }
}
