//! The live tail: what was stored, told to whoever listens at this moment.
//!
//! Nothing depends on it: a message that is lost is one that nobody saw.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event::{Batch, EncodedEvents, Event, Timestamp};
use futures::StreamExt as _;
use redis::RedisError;
use redis::aio::PubSubStream;

use crate::link::CONNECT_TIMEOUT;
use crate::{Broker, BrokerError};

/// The most bytes of events in one message; what is beyond is only counted.
pub const MAX_TOLD_BYTES: usize = 1024 * 1024;

/// How long an answer to "does anyone listen" is good for.
const REMEMBER: Duration = Duration::from_secs(1);

/// Some of a batch's events, told to whoever listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// When a gateway took them.
    pub received_at: Timestamp,
    /// How many events are not told, since there were too many.
    pub missed: u32,
    /// The events.
    pub events: EncodedEvents,
}

impl Told {
    /// The events of a batch for which `is_stored` holds, by their place in it. None if
    /// there are none.
    pub fn of(batch: &Batch, is_stored: impl Fn(usize) -> bool) -> Option<Self> {
        let events = batch.events.decode().ok()?;
        let stored: Vec<Event<'_>> = events
            .into_iter()
            .enumerate()
            .filter_map(|(at, event)| is_stored(at).then_some(event))
            .collect();
        let mut parts = EncodedEvents::encode(&stored, MAX_TOLD_BYTES).into_iter();
        let events = parts.next()?;
        Some(Self {
            received_at: batch.received_at,
            missed: parts.map(|part| part.count()).sum(),
            events,
        })
    }

    /// Little-endian: when they were taken (8 bytes), missed (4), count (4), the events.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.events.as_bytes().len());
        bytes.extend_from_slice(&self.received_at.as_micros().to_le_bytes());
        bytes.extend_from_slice(&self.missed.to_le_bytes());
        bytes.extend_from_slice(&self.events.count().to_le_bytes());
        bytes.extend_from_slice(self.events.as_bytes());
        bytes
    }

    fn from_bytes(bytes: &Bytes) -> Option<Self> {
        let (received_at, rest) = bytes.split_first_chunk()?;
        let (missed, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        Some(Self {
            received_at: Timestamp::from_micros(i64::from_le_bytes(*received_at))?,
            missed: u32::from_le_bytes(*missed),
            events: EncodedEvents::from_parts(bytes.slice_ref(rest), u32::from_le_bytes(*count)),
        })
    }
}

/// Whether anyone listens, as of a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Listened(Mutex<Option<(Instant, bool)>>);

/// Hears what is told.
pub struct Listener(PubSubStream);

impl Broker {
    /// Whether anyone listens, to save the work of telling. An error is a no.
    pub async fn has_listeners(&self) -> bool {
        let remembered = *self
            .listened
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match remembered {
            Some((asked, listened)) if asked.elapsed() < REMEMBER => return listened,
            _ => {}
        }
        let mut command = redis::cmd("PUBSUB");
        command.arg("NUMSUB").arg(&self.keys.tail);
        let listened = match self.link.query::<(String, i64)>(&command).await {
            Ok((_, listeners)) => listeners > 0,
            Err(_) => false,
        };
        *self
            .listened
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), listened));
        listened
    }

    /// Tells whoever listens now. Whether anyone heard is not known.
    pub async fn tell(&self, told: &Told) -> Result<(), BrokerError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.keys.tail).arg(told.to_bytes());
        self.link
            .query::<i64>(&command)
            .await
            .map_err(RedisError::from)?;
        Ok(())
    }

    /// Listens, on a connection of its own.
    pub async fn listen(&self) -> Result<Listener, BrokerError> {
        let subscribe = async {
            let mut pubsub = self.link.client().get_async_pubsub().await?;
            pubsub.subscribe(&self.keys.tail).await?;
            Ok(Listener(pubsub.into_on_message()))
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, subscribe).await {
            Ok(listener) => listener,
            Err(_) => Err(gone(std::io::ErrorKind::TimedOut)),
        }
    }
}

impl Listener {
    /// The next message; an error if the connection is gone.
    pub async fn next(&mut self) -> Result<Told, BrokerError> {
        loop {
            let Some(message) = self.0.next().await else {
                return Err(gone(std::io::ErrorKind::ConnectionReset));
            };
            let bytes: Vec<u8> = message.get_payload()?;
            // One of another release is skipped.
            if let Some(told) = Told::from_bytes(&bytes.into()) {
                return Ok(told);
            }
        }
    }
}

fn gone(why: std::io::ErrorKind) -> BrokerError {
    RedisError::from(std::io::Error::from(why)).into()
}
