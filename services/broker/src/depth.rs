//! How much is in the queue.

use std::time::Duration;

use redis::RedisError;

use crate::check::field;
use crate::{Broker, BrokerError, GROUP};

/// What the queue holds, all of one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Entries in the stream.
    pub entries: i64,
    /// Events that were ever appended.
    pub events_in: i64,
    /// Events that were acknowledged.
    pub events_out: i64,
    /// How long ago the oldest entry was appended, by Redis's clock.
    pub oldest_age: Option<Duration>,
    /// Entries that were delivered and not acknowledged.
    pub pending: i64,
    /// Entries that were not delivered, where Redis knows.
    pub lag: Option<i64>,
}

impl Depth {
    /// Events in the queue: none where there is no entry, whatever is counted.
    pub fn events(&self) -> i64 {
        if self.entries == 0 { 0 } else { self.taken() }
    }

    /// Events that are in the queue, or were in it and are lost.
    pub fn taken(&self) -> i64 {
        (self.events_in - self.events_out).max(0)
    }

    /// Events that an empty queue still counts: a loss.
    pub fn lost(&self) -> i64 {
        if self.entries == 0 {
            self.events_in - self.events_out
        } else {
            0
        }
    }

    /// Entries that no worker has and none will be given, where Redis knows.
    pub fn hidden(&self) -> Option<i64> {
        Some((self.entries - self.lag? - self.pending).max(0))
    }
}

/// What Redis uses of its memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What is used, by everything in it.
    pub used: u64,
    /// The bound, `maxmemory`; 0 is none.
    pub limit: u64,
}

/// Returns entries, in, out, age in milliseconds (-1: empty), pending, lag (-1: not known).
const SCRIPT: &str = r"#!lua flags=no-writes
local age = -1
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
if first[1] then
    local time = redis.call('TIME')
    local added = string.match(first[1][1], '^(%d+)')
    age = math.max(0, time[1] * 1000 + math.floor(time[2] / 1000) - added)
end
local pending, lag = 0, -1
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if not groups.err then
    for _, group in ipairs(groups) do
        local fields = {}
        for i = 1, #group, 2 do fields[group[i]] = group[i + 1] end
        if fields['name'] == ARGV[1] then
            pending = fields['pending']
            lag = fields['lag'] or -1
        end
    end
end
return {
    redis.call('XLEN', KEYS[1]),
    tonumber(redis.call('GET', KEYS[2]) or 0),
    tonumber(redis.call('GET', KEYS[3]) or 0),
    age, pending, lag,
}";

impl Broker {
    /// Reads all of it in one step.
    pub async fn depth(&self) -> Result<Depth, BrokerError> {
        let mut command = redis::cmd("EVAL");
        command
            .arg(SCRIPT)
            .arg(3)
            .arg(&self.keys.events)
            .arg(&self.keys.events_in)
            .arg(&self.keys.events_out)
            .arg(GROUP);
        let [entries, events_in, events_out, age, pending, lag] = self
            .link
            .query::<[i64; 6]>(&command)
            .await
            .map_err(RedisError::from)?;
        Ok(Depth {
            entries,
            events_in,
            events_out,
            oldest_age: u64::try_from(age).ok().map(Duration::from_millis),
            pending,
            lag: (lag >= 0).then_some(lag),
        })
    }

    /// Reads how full Redis is.
    pub async fn memory(&self) -> Result<Memory, BrokerError> {
        let mut command = redis::cmd("INFO");
        command.arg("memory");
        let info: String = self.link.query(&command).await.map_err(RedisError::from)?;
        let bytes = |name| field(&info, name).parse().unwrap_or_default();
        Ok(Memory {
            used: bytes("used_memory"),
            limit: bytes("maxmemory"),
        })
    }
}
