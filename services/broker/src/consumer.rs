//! How entries are delivered, claimed and acknowledged.
//!
//! Redis remembers for each consumer what it was given and has not acknowledged. So what a
//! read that failed was given, and what a process of the same name was given before it
//! died, is read again first; and what another worker has kept for too long is claimed,
//! though only by one whose own last commit succeeded: in an outage of the store workers
//! would else pass entries around until it ends.

use std::time::{Duration, Instant};

use event::Batch;
use redis::{Cmd, RedisError, Value};

use crate::entry::{self, Read};
use crate::link::{Link, RESPONSE_TIMEOUT};
use crate::{Broker, BrokerError, GROUP};

/// The longest time that one read blocks.
const MAX_BLOCK: Duration = Duration::from_secs(2);

/// Entries of one read. With the largest entries that gateways make it is 32 MiB, once;
/// then reads get shorter.
pub(crate) const MAX_COUNT: usize = 128;

/// What is aimed at for one read, and where a delivery is full, in bytes.
const READ_BYTES: usize = 4 * 1024 * 1024;
const FULL_BYTES: usize = 8 * 1024 * 1024;

/// What is expected of entries until some were seen, in bytes: the most that gateways join.
const LARGE_ENTRY: usize = 256 * 1024;

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
    /// The W3C trace context of the request that it is of.
    pub traceparent: Option<String>,
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
    /// Whether the last commit succeeded.
    committed: bool,
    claim: Claim,
    forget_at: Instant,
    /// What entries have been like lately, in bytes.
    entry_bytes: usize,
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
            committed: true,
            claim: Claim {
                next_at: now + claim_idle / 2,
                cursor: START.into(),
            },
            forget_at: now + FORGET_EVERY,
            entry_bytes: LARGE_ENTRY,
        }
    }

    /// What was given to this name before, or what others have kept for too long, or what
    /// is new: up to about `target_events`. Waits up to `wait` if there is nothing.
    ///
    /// May be dropped while it waits: what Redis delivers meanwhile is read again.
    pub async fn next(
        &mut self,
        target_events: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, BrokerError> {
        while let Some(after) = self.unread.clone() {
            let found = self.read_unread(after).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        if self.committed && Instant::now() >= self.claim.next_at {
            let found = self.claim_from_others().await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        if Instant::now() >= self.forget_at {
            self.forget_consumers().await?;
        }
        self.read_new(target_events, wait.min(MAX_BLOCK)).await
    }

    /// Tells whether the store took what was delivered.
    pub fn committed(&mut self, committed: bool) {
        self.committed = committed;
    }

    /// Acknowledges entries whose events are committed, and removes them. Returns how many
    /// were still there: one that somebody else acknowledged is not counted twice.
    pub async fn acknowledge(&self, entries: &[EntryId]) -> Result<u64, BrokerError> {
        let mut command = redis::cmd("EVAL");
        command
            .arg(ACKNOWLEDGE)
            .arg(2)
            .arg(&self.broker.keys.events)
            .arg(&self.broker.keys.events_out)
            .arg(GROUP);
        for entry in entries {
            command.arg(&entry.id).arg(entry.events);
        }
        // On the shared connection: this one may be blocked in a read.
        let deleted = self.broker.link.query(&command).await;
        Ok(deleted.map_err(RedisError::from)?)
    }

    async fn read_unread(&mut self, after: String) -> Result<Vec<Delivery>, BrokerError> {
        let (entries, _) = self.read(Reads::Unread(&after)).await?;
        // There are no more once a read finds none.
        self.unread = entries.last().map(|(id, _)| id.clone());
        self.sort_out(entries).await
    }

    async fn read_new(
        &mut self,
        target_events: usize,
        block: Duration,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let mut found = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        let mut block = Some(block);
        loop {
            // Until its answer is read, what Redis delivers counts as unread.
            self.unread = Some(START.into());
            let (entries, is_full) = match self.read(Reads::New { block }).await {
                Ok(read) => read,
                // What came before is not lost with it.
                Err(_) if !found.is_empty() => return Ok(found),
                Err(error) => return Err(error),
            };
            self.unread = None;
            let sorted = self.sort_out(entries).await?;
            for delivery in &sorted {
                events += delivery.batch.events.count() as usize;
                bytes += delivery.batch.events.as_bytes().len();
            }
            found.extend(sorted);
            if !is_full || events >= target_events || bytes >= FULL_BYTES {
                return Ok(found);
            }
            block = None;
        }
    }

    /// Reads entries, and says whether there were as many as were asked for.
    async fn read(
        &mut self,
        which: Reads<'_>,
    ) -> Result<(Vec<(String, Value)>, bool), BrokerError> {
        let count = (READ_BYTES / self.entry_bytes.max(1)).clamp(1, MAX_COUNT);
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
        let entries = match self.query(&command).await? {
            Value::Nil => Vec::new(),
            streams => entries_of(streams),
        };
        let is_full = entries.len() == count;
        Ok((entries, is_full))
    }

    async fn claim_from_others(&mut self) -> Result<Vec<Delivery>, BrokerError> {
        let mut command = redis::cmd("XAUTOCLAIM");
        command
            .arg(&self.broker.keys.events)
            .arg(GROUP)
            .arg(&self.name)
            .arg(millis(self.claim_idle))
            .arg(&self.claim.cursor)
            .arg("COUNT")
            .arg((READ_BYTES / self.entry_bytes.max(1)).clamp(1, MAX_COUNT));
        // Until its answer is read, what Redis gives counts as unread.
        self.unread = Some(START.into());
        let answer = self.query(&command).await?;
        self.unread = None;
        let Value::Array(parts) = answer else {
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
        if self.claim.cursor == START && entries.is_empty() {
            self.claim.next_at = Instant::now() + self.claim_idle / 2;
        }
        if !entries.is_empty() {
            tracing::info!(entries = entries.len(), "claimed from another worker");
        }
        self.sort_out(entries).await
    }

    /// Takes entries apart. What is gone is acknowledged, what is of a later version left.
    async fn sort_out(
        &mut self,
        entries: Vec<(String, Value)>,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let mut found = Vec::with_capacity(entries.len());
        let mut gone = Vec::new();
        for (id, entry) in entries {
            match entry::read(entry) {
                Some(Read::Delivery(delivery)) => found.push(delivery),
                Some(Read::Gone(entry)) => gone.push(entry),
                Some(Read::Later(id)) => {
                    tracing::warn!(entry = id, "an entry of a later version is left alone");
                    self.claim.next_at = Instant::now() + LATER_PAUSE;
                }
                None => tracing::error!(entry = id, "not an entry"),
            }
        }
        if !gone.is_empty() {
            self.acknowledge(&gone).await?;
        }
        if !found.is_empty() {
            let size = |delivery: &Delivery| delivery.batch.events.as_bytes().len();
            let mean = found.iter().map(size).sum::<usize>() / found.len();
            // Up at once, down by halves: one large entry says that there may be more.
            self.entry_bytes = mean.max(self.entry_bytes / 2).max(1);
        }
        Ok(found)
    }

    /// Removes consumers that are no more, each only if nothing is pending for it: to
    /// remove one that has would hide its entries for ever.
    async fn forget_consumers(&mut self) -> Result<(), BrokerError> {
        self.forget_at = Instant::now() + FORGET_EVERY;
        let mut command = redis::cmd("EVAL");
        command
            .arg(FORGET)
            .arg(1)
            .arg(&self.broker.keys.events)
            .arg(GROUP)
            .arg(millis(FORGET_AFTER));
        let forgotten = self.query(&command).await?;
        tracing::debug!(?forgotten, "consumers that are no more");
        Ok(())
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

/// In one step, and also when the memory is full: it is what frees it.
const ACKNOWLEDGE: &str = r"#!lua flags=allow-oom
local deleted, events = 0, 0
for i = 2, #ARGV, 2 do
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
    if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then
        deleted = deleted + 1
        events = events + ARGV[i + 1]
    end
end
if events > 0 then redis.call('INCRBY', KEYS[2], events) end
return deleted";

/// From the first entry on: those that came before the group are to be delivered too.
const CREATE_GROUP: &str = r"#!lua flags=allow-oom
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
return redis.status_reply('OK')";

pub(crate) const FORGET: &str = r"#!lua flags=allow-oom
local forgotten = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local fields = {}
    for i = 1, #consumer, 2 do fields[consumer[i]] = consumer[i + 1] end
    if fields['pending'] == 0 and fields['idle'] > tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], fields['name'])
        forgotten = forgotten + 1
    end
end
return forgotten";

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
