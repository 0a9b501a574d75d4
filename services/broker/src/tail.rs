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

    /// Little-endian: when they were taken (8 bytes), missed (4), count (4), the length of
    /// the events in bytes (4), the events.
    fn write(&self, message: &mut Vec<u8>) {
        let events = self.events.as_bytes();
        let length = u32::try_from(events.len()).expect("a batch has less than 4 GiB");
        message.extend_from_slice(&self.received_at.as_micros().to_le_bytes());
        message.extend_from_slice(&self.missed.to_le_bytes());
        message.extend_from_slice(&self.events.count().to_le_bytes());
        message.extend_from_slice(&length.to_le_bytes());
        message.extend_from_slice(events);
    }

    /// The first of a message, and what comes after it.
    fn read(message: &Bytes) -> Option<(Self, Bytes)> {
        let (received_at, rest) = message.split_first_chunk()?;
        let (missed, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (events, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let count = u32::from_le_bytes(*count);
        let told = Self {
            received_at: Timestamp::from_micros(i64::from_le_bytes(*received_at))?,
            missed: u32::from_le_bytes(*missed),
            events: EncodedEvents::from_parts(message.slice_ref(events), count),
        };
        Some((told, message.slice_ref(rest)))
    }
}

fn read(mut message: Bytes) -> Option<Vec<Told>> {
    let mut all = Vec::new();
    while !message.is_empty() {
        let (told, rest) = Told::read(&message)?;
        all.push(told);
        message = rest;
    }
    Some(all)
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
        let listened = self.listeners().await.is_ok_and(|listeners| listeners > 0);
        *self
            .listened
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), listened));
        listened
    }

    /// How many listen. One that listens and is not counted is connected to another Redis than
    /// those who tell: to a primary that became a replica, say.
    pub async fn listeners(&self) -> Result<u64, BrokerError> {
        let mut command = redis::cmd("PUBSUB");
        command.arg("NUMSUB").arg(&self.keys.tail);
        let listeners = self.link.query::<(String, u64)>(&command).await;
        Ok(listeners.map_err(RedisError::from)?.1)
    }

    /// Tells whoever listens now, in one message. Whether anyone heard is not known.
    pub async fn tell(&self, all: &[Told]) -> Result<(), BrokerError> {
        let mut message = Vec::new();
        for told in all {
            told.write(&mut message);
        }
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.keys.tail).arg(message);
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
    pub async fn next(&mut self) -> Result<Vec<Told>, BrokerError> {
        loop {
            let Some(message) = self.0.next().await else {
                return Err(gone(std::io::ErrorKind::ConnectionReset));
            };
            let bytes: Vec<u8> = message.get_payload()?;
            // One of another release is skipped.
            if let Some(all) = read(bytes.into()) {
                return Ok(all);
            }
        }
    }
}

fn gone(why: std::io::ErrorKind) -> BrokerError {
    RedisError::from(std::io::Error::from(why)).into()
}
