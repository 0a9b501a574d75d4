//! What is asked of the gateway apart from sending: its books, its events, and to delete.
//!
//! Whatever fails is asked again for as long as the caller has patience, since a verdict
//! is wanted most of all where processes are being killed. A page of events that broke off
//! is asked for again and taken up where it broke off.

mod lines;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use http::header::LINK;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use lifecycle::Backoff;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::{Client, Connection, Unanswered};
use crate::retry::explain;
use lines::Lines;

/// The longest JSON answer: the books of ten thousand topics take some three megabytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The most that the gateway puts on a page, and the cheapest way to read all.
const PAGE: u16 = 10_000;

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Of `GET /stats`, what is looked at.
#[derive(Debug, Deserialize)]
struct Stats {
    queue_depth: i64,
}

/// Of `GET /topics`, the books of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Books {
    pub(crate) topic: String,
    pub(crate) received: u64,
    pub(crate) unique: u64,
    pub(crate) duplicates: u64,
    pub(crate) conflicts: u64,
    pub(crate) buried: u64,
}

/// Asks, over a connection of its own.
pub(crate) struct Gateway {
    client: Client,
    connection: Option<Connection>,
    patience: Duration,
}

/// Why an attempt failed.
enum Fault {
    /// The gateway says so, in these words.
    Answer(StatusCode, String),
    /// There was no answer, or not all of it.
    Lost(anyhow::Error),
    /// The caller wants no more.
    Caller(anyhow::Error),
}

impl Fault {
    /// Whether another attempt would fail likewise.
    fn is_final(&self) -> bool {
        match self {
            Self::Answer(status, _) => {
                status.is_client_error()
                    && *status != StatusCode::TOO_MANY_REQUESTS
                    && *status != StatusCode::REQUEST_TIMEOUT
            }
            Self::Lost(_) => false,
            Self::Caller(_) => true,
        }
    }

    fn into_error(self) -> anyhow::Error {
        match self {
            Self::Answer(_, words) => anyhow::Error::msg(words),
            Self::Lost(why) | Self::Caller(why) => why,
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Fault {
    fn from(why: E) -> Self {
        Self::Lost(why.into())
    }
}

impl Gateway {
    /// `patience` is how long one question is asked again and again.
    pub(crate) fn new(client: Client, patience: Duration) -> Self {
        Self {
            client,
            connection: None,
            patience,
        }
    }

    /// Waits until nothing is in the queue, for at most `bound`. Without a broker nothing
    /// ever is.
    pub(crate) async fn settle(&mut self, bound: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut before = None;
        loop {
            let stats: Stats = self.json("/stats").await?;
            let now = Instant::now();
            let Ok(depth @ 1..) = u64::try_from(stats.queue_depth) else {
                return Ok(());
            };
            if begun.elapsed() >= bound {
                bail!("{depth} events are still in the queue after {bound:?}");
            }
            let look = before.map_or(SOONEST_LOOK, |(then, at)| next_look(then, depth, now - at));
            before = Some((depth, now));
            tokio::time::sleep(look).await;
        }
    }

    /// The books of all topics.
    pub(crate) async fn topics(&mut self) -> anyhow::Result<Vec<Books>> {
        self.json("/topics").await
    }

    /// Hands every event of a topic, as a line of JSON, to `each`.
    pub(crate) async fn events(
        &mut self,
        topic: &str,
        each: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut query = format!("topic={topic}&limit={PAGE}");
        loop {
            let mut taken = 0;
            let mut retries = Retries::new(self.patience);
            let next = loop {
                match self.page(&query, &mut taken, each).await {
                    Ok(next) => break next,
                    Err(fault) => retries.after(fault).await?,
                }
            };
            match next {
                None => return Ok(()),
                Some(next) if next == query || taken == 0 => {
                    bail!("the pages of {topic} lead nowhere: {next}")
                }
                Some(next) => query = next,
            }
        }
    }

    /// Deletes a topic, which may be gone already.
    pub(crate) async fn delete(&mut self, topic: &str) -> anyhow::Result<()> {
        let mut retries = Retries::new(self.patience);
        loop {
            match self.try_delete(topic).await {
                Ok(()) => return Ok(()),
                Err(fault) => retries.after(fault).await?,
            }
        }
    }

    async fn json<T: DeserializeOwned>(&mut self, path: &str) -> anyhow::Result<T> {
        let mut retries = Retries::new(self.patience);
        loop {
            match self.try_json(path).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => retries
                    .after(fault)
                    .await
                    .with_context(|| format!("ask for {path}"))?,
            }
        }
    }

    async fn try_json<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Fault> {
        let uri = self.client.target().path(path);
        let request = self.client.get(&uri, "application/json");
        let (_, body) = self.ask(request).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    async fn try_delete(&mut self, topic: &str) -> Result<(), Fault> {
        let uri = self.client.target().path(&format!("/topics/{topic}"));
        match self.ask(self.client.delete(&uri)).await {
            Ok(_) | Err(Fault::Answer(StatusCode::NOT_FOUND, _)) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// The first `taken` lines of the page were handed on before. Returns the query of the
    /// next page.
    async fn page(
        &mut self,
        query: &str,
        taken: &mut usize,
        each: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> Result<Option<String>, Fault> {
        let uri = self.client.target().path(&format!("/events?{query}"));
        let request = self.client.get(&uri, "application/x-ndjson");
        let (mut connection, head, mut body) = self.begin(request).await?;
        let mut lines = Lines::default();
        let mut skip = *taken;
        let mut hand_on = |line: &[u8]| {
            if skip > 0 {
                skip -= 1;
                return Ok(());
            }
            *taken += 1;
            each(line).map_err(Fault::Caller)
        };
        loop {
            let chunk = connection.chunk(&mut body);
            let chunk = tokio::time::timeout(self.client.timeout(), chunk).await?;
            match chunk.map_err(anyhow::Error::msg)? {
                Some(chunk) => lines.feed(&chunk, &mut hand_on)?,
                None => break,
            }
        }
        lines.end(&mut hand_on)?;
        self.connection = Some(connection);
        Ok(next_query(&head))
    }

    /// Asks and reads the whole answer.
    async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<(HeaderMap, BytesMut), Fault> {
        let (mut connection, head, body) = self.begin(request).await?;
        let mut read = BytesMut::new();
        let answer = connection.read(body, MAX_ANSWER, &mut read);
        tokio::time::timeout(self.client.timeout(), answer)
            .await?
            .map_err(anyhow::Error::msg)?;
        self.connection = Some(connection);
        Ok((head, read))
    }

    /// Asks and reads the head of the answer, which must be a good one.
    async fn begin(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Connection, HeaderMap, Incoming), Fault> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.client.connect().await.map_err(anyhow::Error::msg)?,
        };
        let answer = tokio::time::timeout(self.client.timeout(), connection.send(request)).await?;
        let (head, body) = answer
            .map_err(|(Unanswered::NotSent(why) | Unanswered::Unknown(why))| {
                anyhow::Error::msg(why)
            })?
            .into_parts();
        if head.status.is_success() {
            return Ok((connection, head.headers, body));
        }
        let mut read = BytesMut::new();
        let rest = connection.read(body, MAX_ANSWER, &mut read);
        // What it says is of use, if it comes; the status is enough.
        let _ = tokio::time::timeout(self.client.timeout(), rest).await;
        Err(Fault::Answer(head.status, explain(head.status, &read)))
    }
}

/// For how long, and how often.
struct Retries {
    begun: Instant,
    patience: Duration,
    backoff: Backoff,
}

impl Retries {
    fn new(patience: Duration) -> Self {
        Self {
            begun: Instant::now(),
            patience,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT, lifecycle::backoff::seed()),
        }
    }

    /// Waits, if there is hope.
    async fn after(&mut self, fault: Fault) -> anyhow::Result<()> {
        let is_over = fault.is_final() || self.begun.elapsed() >= self.patience;
        let why = fault.into_error();
        if is_over {
            return Err(why);
        }
        tracing::debug!(why = format!("{why:#}"), "ask again");
        tokio::time::sleep(self.backoff.next_wait()).await;
        Ok(())
    }
}

/// How soon the queue is looked at again, at the soonest and the latest. The end-to-end
/// rate is as exact as the last look, and each costs the server a little.
const SOONEST_LOOK: Duration = Duration::from_millis(10);
const LATEST_LOOK: Duration = Duration::from_millis(500);

/// Half of the time that the queue would need at the pace since the last look.
fn next_look(before: u64, depth: u64, between: Duration) -> Duration {
    let Some(drained @ 1..) = before.checked_sub(depth) else {
        return LATEST_LOOK;
    };
    let factor = u32::try_from((depth / drained).max(1)).unwrap_or(u32::MAX);
    (between.saturating_mul(factor) / 2).clamp(SOONEST_LOOK, LATEST_LOOK)
}

/// The query of the address that `Link` calls the next page. Its path is not looked at: a
/// gateway behind a proxy may be known by another.
fn next_query(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|link| {
            let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
            let is_next = parameters
                .split(';')
                .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
            let (_, query) = address.split_once('?')?;
            is_next.then(|| query.to_owned())
        })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_queue_is_looked_at_more_often_the_emptier_it_gets() {
        let ms = Duration::from_millis;
        assert_eq!(next_look(1_000, 900, ms(100)), ms(450));
        assert_eq!(next_look(200, 100, ms(100)), ms(50));
        assert_eq!(next_look(10_000, 1, ms(100)), ms(50));
        assert_eq!(next_look(1_000, 1, ms(2)), ms(10));
        assert_eq!(next_look(u64::MAX, u64::MAX - 1, ms(100)), LATEST_LOOK);
        assert_eq!(next_look(100, 200, ms(100)), LATEST_LOOK);
        assert_eq!(next_look(100, 100, ms(100)), LATEST_LOOK);
    }

    #[test]
    fn the_next_page_is_found_among_the_links() {
        let next = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, HeaderValue::from_static(value));
            next_query(&headers)
        };
        let query = Some("topic=a&cursor=b".to_owned());
        assert_eq!(next("</events?topic=a&cursor=b>; rel=\"next\""), query);
        assert_eq!(
            next("</a?b>; rel=\"prev\", </x?topic=a&cursor=b>; rel=next"),
            query
        );
        assert_eq!(next("</events?topic=a>; rel=\"prev\""), None);
        assert_eq!(next("nonsense"), None);
        assert_eq!(next_query(&HeaderMap::new()), None);
    }
}
