//! How entries are delivered, claimed and acknowledged.
//!
//! Redis remembers for each consumer what it was given and has not acknowledged. So what a
//! read that failed was given, and what a process of the same name was given before it
//! died, is read again first, and so is what could not be acknowledged; what another worker
//! has kept for too long is claimed. So is what was delivered too late to a read that nobody
//! waits for any more, which has to be claimed by its own name too.
//!
//! In an outage of the store nobody claims for long: a worker that can't record takes no more
//! than one delivery ahead.

mod pace;
pub(crate) mod scripts;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use event::{Batch, Partition};
use redis::{Cmd, RedisError, Value};

use self::pace::Pace;
use self::scripts::{ACKNOWLEDGE, CREATE_GROUP, FORGET};
use crate::entry::{self, Read};
use crate::link::{Link, RESPONSE_TIMEOUT};
use crate::{Broker, BrokerError, GROUP};

/// The longest time that one read blocks.
const MAX_BLOCK: Duration = Duration::from_secs(2);

/// Where a delivery is full, in bytes.
const FULL_BYTES: usize = 8 * 1024 * 1024;

/// How often a worker looks for what others have kept, in the time after which that is too
/// long: entries of a dead one wait a tenth longer at most. A look that finds nothing is one
/// round trip.
const CLAIM_LOOKS: u32 = 10;

/// After an entry of a later version nothing is claimed for so long: whoever claims it
/// takes it from a worker that may be recording it.
const LATER_PAUSE: Duration = Duration::from_mins(1);

/// A consumer that did nothing for so long and has nothing pending is forgotten.
const FORGET_AFTER: Duration = Duration::from_hours(1);
const FORGET_EVERY: Duration = Duration::from_mins(10);

/// An entry, and how many events the append counted for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryId {
    pub(crate) id: String,
    pub(crate) events: u64,
}

/// An entry that was delivered and is to be acknowledged.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// To acknowledge it by.
    pub entry: EntryId,
    /// What it holds; if it is garbled, a batch that does not decode.
    pub batch: Batch,
    /// Where its events belong.
    pub partition: Partition,
    /// The W3C trace contexts of requests that it is of.
    pub traceparents: Vec<String>,
}

/// Takes entries out of the queue, for one worker.
#[derive(Debug)]
pub struct Consumer {
    broker: Broker,
    /// A read that blocks would hold up everything else on a shared connection.
    link: Link,
    name: String,
    claim_idle: Duration,
    /// There may be entries that were given to this name and never read: go on after this
    /// one.
    unread: Option<String>,
    /// The ids of what was returned and not acknowledged yet: whoever has it needs it no
    /// second time, wherever else it is found.
    held: HashSet<String>,
    claim: Claim,
    forget_at: Instant,
    pace: Pace,
}

#[derive(Debug)]
struct Claim {
    next_at: Instant,
    /// Where the search goes on.
    cursor: String,
}

/// Which entries a read is after.
#[derive(Debug, Clone, Copy)]
enum Reads<'a> {
    /// Those given to this name before, after this one.
    Unread(&'a str),
    New {
        block: Option<Duration>,
    },
}

impl Consumer {
    pub(crate) fn new(broker: Broker, name: &str, claim_idle: Duration) -> Self {
        let link = broker.link.another(MAX_BLOCK + RESPONSE_TIMEOUT);
        let now = Instant::now();
        Self {
            broker,
            link,
            name: name.to_owned(),
            claim_idle,
            unread: Some(START.into()),
            held: HashSet::new(),
            claim: Claim {
                next_at: now + claim_idle / CLAIM_LOOKS,
                cursor: START.into(),
            },
            forget_at: now + FORGET_EVERY,
            pace: Pace::default(),
        }
    }

    /// What was given to this name before, or what others have kept for too long, or what
    /// is new: up to about `target_events`. Waits up to `wait` if there is nothing. An entry
    /// that was returned is not returned again before it was tried to
    /// [`acknowledge`](Self::acknowledge) it.
    ///
    /// May be dropped while it waits: what Redis delivers meanwhile is read again.
    pub async fn next(
        &mut self,
        target_events: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let found = self.find(target_events, wait).await?;
        // Nothing is waited for from here on, so that what is held was surely returned.
        let ids = found.iter().map(|delivery| delivery.entry.id.clone());
        self.held.extend(ids);
        Ok(found)
    }

    async fn find(
        &mut self,
        target_events: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let found = self.read_unread(target_events).await?;
        if !found.is_empty() {
            return Ok(found);
        }
        if Instant::now() >= self.claim.next_at {
            let found = self.claim(target_events).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        if Instant::now() >= self.forget_at {
            self.forget_consumers().await;
        }
        self.read_new(target_events, wait.min(MAX_BLOCK)).await
    }

    /// Acknowledges entries whose events are committed, and removes them. Returns how many
    /// were still there: one that somebody else acknowledged is not counted twice. After an
    /// error those that are left come again with the next read.
    pub async fn acknowledge(&mut self, entries: &[EntryId]) -> Result<u64, BrokerError> {
        if entries.is_empty() {
            return Ok(0);
        }
        let mut command = redis::cmd("EVAL");
        command
            .arg(ACKNOWLEDGE)
            .arg(2)
            .arg(&self.broker.keys.events)
            .arg(&self.broker.keys.events_out)
            .arg(GROUP);
        for entry in entries {
            command.arg(&entry.id).arg(entry.events);
            self.held.remove(&entry.id);
        }
        // On the shared connection: this one may be blocked in a read.
        let deleted = self.broker.link.query(&command).await;
        if deleted.is_err() {
            self.unread = Some(START.into());
        }
        Ok(deleted.map_err(RedisError::from)?)
    }

    async fn read_unread(&mut self, target_events: usize) -> Result<Vec<Delivery>, BrokerError> {
        let mut found = Vec::new();
        // Kept only with what was found: whoever drops this while it waits has not seen it.
        let mut unread = self.unread.clone();
        while let Some(after) = &unread {
            let Some(room) = room(&found, target_events) else {
                break;
            };
            let entries = match self.read(Reads::Unread(after), room).await {
                Ok((entries, _)) => entries,
                // What came before is not lost with it.
                Err(_) if !found.is_empty() => break,
                Err(error) => return Err(error),
            };
            // There are no more once a read finds none.
            unread = entries.last().map(|(id, _)| id.clone());
            found.extend(self.sort_out(entries).await);
        }
        self.unread = unread;
        Ok(found)
    }

    async fn read_new(
        &mut self,
        target_events: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let mut found = Vec::new();
        let mut block = (!wait.is_zero()).then_some(wait);
        while let Some(room) = room(&found, target_events) {
            // Until its answer is read, what Redis delivers counts as unread.
            self.unread = Some(START.into());
            let (entries, is_full) = match self.read(Reads::New { block }, room).await {
                Ok(read) => read,
                Err(_) if !found.is_empty() => break,
                Err(error) => return Err(error),
            };
            let is_answered = !entries.is_empty();
            found.extend(self.sort_out(entries).await);
            self.unread = None;
            if found.is_empty() && is_answered {
                // Nothing for this worker, as when a later release appends: whoever reads on
                // at once takes the rest away from the workers that know it.
                tokio::time::sleep(wait).await;
            }
            if !is_full || found.is_empty() {
                break;
            }
            block = None;
        }
        Ok(found)
    }

    /// Reads entries, of about so many events, and says whether there were as many entries
    /// as were asked for.
    async fn read(
        &mut self,
        which: Reads<'_>,
        events: usize,
    ) -> Result<(Vec<(String, Value)>, bool), BrokerError> {
        let count = self.pace.count(events);
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.name);
        command.arg("COUNT").arg(count);
        let after = match which {
            Reads::Unread(after) => after,
            Reads::New { block } => {
                if let Some(block) = block {
                    // 0 would block for ever.
                    command.arg("BLOCK").arg(millis(block).max(1));
                }
                ">"
            }
        };
        command
            .arg("STREAMS")
            .arg(&self.broker.keys.events)
            .arg(after);
        let entries = match self.deliver(&command).await? {
            Value::Nil => Vec::new(),
            streams => entries_of(streams),
        };
        let is_full = entries.len() == count;
        Ok((entries, is_full))
    }

    /// Takes over what has been pending for too long. Redis gives back what is pending for
    /// this very name too, of which only what nobody holds is new.
    async fn claim(&mut self, target_events: usize) -> Result<Vec<Delivery>, BrokerError> {
        let mut command = redis::cmd("XAUTOCLAIM");
        command
            .arg(&self.broker.keys.events)
            .arg(GROUP)
            .arg(&self.name)
            .arg(millis(self.claim_idle))
            .arg(&self.claim.cursor)
            .arg("COUNT")
            .arg(self.pace.count(target_events));
        // Until its answer is read, what Redis gives counts as unread.
        self.unread = Some(START.into());
        let Value::Array(parts) = self.deliver(&command).await? else {
            return Err(unexpected("an answer to XAUTOCLAIM"));
        };
        let mut parts = parts.into_iter();
        self.claim.cursor = match parts.next() {
            Some(Value::BulkString(cursor)) => String::from_utf8_lossy(&cursor).into_owned(),
            _ => START.into(),
        };
        let entries = match parts.next() {
            Some(Value::Array(entries)) => with_ids(entries),
            _ => Vec::new(),
        };
        if self.claim.cursor == START {
            // That was the last of them.
            self.claim.next_at = Instant::now() + self.claim_idle / CLAIM_LOOKS;
        }
        let found = self.sort_out(entries).await;
        self.unread = None;
        if !found.is_empty() {
            crash::point!("claimed");
            let entries = found.len();
            self.broker.metrics.claimed_entries.inc_by(entries as u64);
            tracing::info!(entries, "claimed what was pending for too long");
        }
        Ok(found)
    }

    /// Takes entries apart. What is held already is passed over, what is gone acknowledged,
    /// what is of a later version left.
    async fn sort_out(&mut self, entries: Vec<(String, Value)>) -> Vec<Delivery> {
        let mut found = Vec::with_capacity(entries.len());
        let mut gone = Vec::new();
        let mut later = Vec::new();
        for (id, entry) in entries {
            if self.held.contains(&id) {
                continue;
            }
            match entry::read(entry) {
                Some(Read::Delivery(delivery)) => found.push(delivery),
                Some(Read::Gone(entry)) => gone.push(entry),
                Some(Read::Later(id)) => later.push(id),
                None => tracing::error!(entry = id, "not an entry"),
            }
        }
        if let Some(first) = later.first() {
            // Once, however many: while an upgrade rolls most entries may be.
            let entries = later.len();
            tracing::warn!(
                entries,
                entry = first,
                "entries of a later version are left alone"
            );
            self.claim.next_at = Instant::now() + LATER_PAUSE;
        }
        if let Err(error) = self.acknowledge(&gone).await {
            // They are found again by whoever reads or claims next.
            tracing::debug!(%error, "can't acknowledge what is gone");
        }
        self.pace.saw(&found);
        found
    }

    /// Removes consumers that are no more. What went wrong does again in ten minutes.
    async fn forget_consumers(&mut self) {
        self.forget_at = Instant::now() + FORGET_EVERY;
        let mut command = redis::cmd("EVAL");
        command
            .arg(FORGET)
            .arg(1)
            .arg(&self.broker.keys.events)
            .arg(GROUP)
            .arg(millis(FORGET_AFTER));
        match self.query(&command).await {
            Ok(Value::Int(0)) => {}
            Ok(forgotten) => tracing::info!(?forgotten, "forgot consumers that are no more"),
            Err(error) => tracing::debug!(%error, "can't forget consumers that are no more"),
        }
    }

    /// Sends a command that is answered with entries.
    async fn deliver(&mut self, command: &Cmd) -> Result<Value, BrokerError> {
        let delivered = self.query(command).await;
        if delivered.is_err() {
            self.pace.failed();
        }
        delivered
    }

    /// Sends a command that needs the group, making it if it is not there: at the first
    /// start, and after a Redis has lost its data.
    async fn query(&self, command: &Cmd) -> Result<Value, BrokerError> {
        let result = self.link.query(command).await.map_err(RedisError::from);
        match result {
            Err(error) if error.code() == Some("NOGROUP") => {}
            result => return Ok(result?),
        }
        let mut create = redis::cmd("EVAL");
        create
            .arg(CREATE_GROUP)
            .arg(1)
            .arg(&self.broker.keys.events)
            .arg(GROUP);
        self.link
            .query::<Value>(&create)
            .await
            .map_err(RedisError::from)?;
        Ok(self.link.query(command).await.map_err(RedisError::from)?)
    }
}

/// Before every entry.
const START: &str = "0-0";

/// How many more events a delivery is to hold. None if it is full.
fn room(found: &[Delivery], target_events: usize) -> Option<usize> {
    let (bytes, events) = pace::size(found);
    let is_full = bytes >= FULL_BYTES || events >= target_events;
    (!is_full || found.is_empty()).then(|| target_events - events)
}

/// The entries in `[[stream, [entry, ...]]]`.
fn entries_of(streams: Value) -> Vec<(String, Value)> {
    let Value::Array(streams) = streams else {
        return Vec::new();
    };
    let entries = streams.into_iter().filter_map(|stream| match stream {
        Value::Array(mut parts) => match parts.pop() {
            Some(Value::Array(entries)) => Some(entries),
            _ => None,
        },
        _ => None,
    });
    with_ids(entries.flatten().collect())
}

fn with_ids(entries: Vec<Value>) -> Vec<(String, Value)> {
    let id = |entry: &Value| match entry {
        Value::Array(parts) => match parts.first() {
            Some(Value::BulkString(id)) => String::from_utf8(id.clone()).ok(),
            _ => None,
        },
        _ => None,
    };
    entries
        .into_iter()
        .filter_map(|entry| Some((id(&entry)?, entry)))
        .collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unexpected(what: &'static str) -> BrokerError {
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, what)).into()
}
