//! One connection, made when it is needed and given up when it fails.
//!
//! Commands of several callers are pipelined on it, which is also what lets Redis sync its
//! append-only file once for all of them. A client that reconnects by itself might send a
//! command twice; this one fails instead, and the next caller connects.

use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, ProtocolVersion,
    RedisError, RedisResult, Value,
};
use tokio::sync::Mutex;

use crate::metrics::{self, Metrics};
use crate::transaction;

/// How long to try to connect. A Redis on the same network takes milliseconds.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait for an answer: some syncs of a slow disk.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is silent before the peer is asked whether it is still there: one
/// that listens sends nothing that could go unanswered.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How all connections are made.
pub(crate) fn client(info: ConnectionInfo) -> RedisResult<Client> {
    // Answers of RESP3 have other shapes; an address could ask for it.
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP2);
    let tcp = TcpSettings::default()
        // Nagle's algorithm would hold an append back until the one before it is answered.
        .set_nodelay(true)
        .set_keepalive(
            TcpKeepalive::new()
                .with_time(KEEP_ALIVE)
                .with_interval(KEEP_ALIVE),
        );
    Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp))
}

#[derive(Debug)]
pub(crate) struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    current: Mutex<Current>,
    metrics: Metrics,
}

#[derive(Default)]
struct Current {
    connection: Option<MultiplexedConnection>,
    /// Which connection it is: a caller that fails late must not give up the next one.
    number: u64,
    /// When connecting failed last, and why.
    failed: Option<(Instant, RedisError)>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// Where an exchange with Redis failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Before anything was sent.
    Connect(RedisError),
    /// Redis answered that it will not, and did nothing.
    Refused(RedisError),
    /// After it was sent, or perhaps sent: what became of it is not known.
    Unknown(RedisError),
}

impl From<RedisError> for Failure {
    /// Of one command.
    fn from(error: RedisError) -> Self {
        if error.code().is_some() {
            Self::Refused(error)
        } else {
            Self::Unknown(error)
        }
    }
}

impl From<Failure> for RedisError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Connect(error) | Failure::Refused(error) | Failure::Unknown(error) => error,
        }
    }
}

impl Link {
    pub(crate) fn new(client: Client, response_timeout: Duration, metrics: Metrics) -> Self {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout));
        Self {
            client,
            config,
            current: Mutex::default(),
            metrics,
        }
    }

    /// Another connection to the same Redis, for what must not hold up the others.
    pub(crate) fn another(&self, response_timeout: Duration) -> Self {
        Self::new(self.client.clone(), response_timeout, self.metrics.clone())
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        let (number, mut connection) = self.connection().await?;
        let answer = connection.req_packed_command(command).await;
        let answer = answer.and_then(Value::extract_error);
        let value = self.account(number, answer.map_err(Failure::from)).await?;
        redis::from_redis_value(value).map_err(|error| Failure::Unknown(error.into()))
    }

    /// Does all of the commands, or none.
    pub(crate) async fn transaction(&self, commands: Vec<Cmd>) -> Result<(), Failure> {
        let pipeline = transaction::of(commands);
        let (number, mut connection) = self.connection().await?;
        let replies = connection.req_packed_commands(&pipeline, 0, pipeline.len());
        let outcome = match replies.await {
            Ok(replies) => transaction::outcome(replies),
            Err(error) => Err(Failure::Unknown(error)),
        };
        self.account(number, outcome).await
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection), Failure> {
        let asked = Instant::now();
        let mut current = self.current.lock().await;
        if let Some(connection) = &current.connection {
            return Ok((current.number, connection.clone()));
        }
        // Who waited while another tried in vain tried with it: one after the other, the
        // last of a hundred callers would learn of an outage after minutes.
        if let Some((at, error)) = &current.failed
            && *at > asked
        {
            return Err(Failure::Connect(error.clone()));
        }
        let connection = match self.connect().await {
            Ok(connection) => connection,
            Err(error) => {
                self.metrics.failed(metrics::CONNECT);
                current.failed = Some((Instant::now(), error.clone()));
                return Err(Failure::Connect(error));
            }
        };
        self.metrics.connects.inc();
        current.number += 1;
        current.connection = Some(connection.clone());
        Ok((current.number, connection))
    }

    /// Connects, and asks for an answer: one who may not even say PING, or while Redis still
    /// loads, has not sent anything yet. Nor has one who may not say MULTI, whose commands
    /// Redis would do one by one before it refuses the EXEC.
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&self.config)
            .await?;
        for command in ["PING", "MULTI", "EXEC"] {
            let answer = connection.req_packed_command(&redis::cmd(command)).await?;
            answer.extract_error()?;
        }
        Ok(connection)
    }

    /// Counts what failed on a connection, and gives that up if it is of no more use.
    async fn account<T>(&self, number: u64, outcome: Result<T, Failure>) -> Result<T, Failure> {
        let (kind, is_over) = match &outcome {
            Ok(_) => return outcome,
            // A primary that became a replica keeps its connections; the address may lead
            // elsewhere by now.
            Err(Failure::Refused(error)) => (metrics::REFUSED, says(error, "READONLY")),
            Err(Failure::Connect(_) | Failure::Unknown(_)) => (metrics::UNANSWERED, true),
        };
        self.metrics.failed(kind);
        if is_over {
            self.give_up(number).await;
        }
        outcome
    }

    async fn give_up(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.number == number {
            current.connection = None;
        }
    }

    /// Has the next caller connect, whatever becomes of what is under way.
    pub(crate) async fn let_go(&self) {
        self.current.lock().await.connection = None;
    }
}

/// Whether Redis refused with this code, which may stand in the words of a refused EXEC.
pub(crate) fn says(error: &RedisError, code: &str) -> bool {
    let in_words = || error.detail().is_some_and(|why| why.contains(code));
    error.code() == Some(code) || error.code() == Some("EXECABORT") && in_words()
}
