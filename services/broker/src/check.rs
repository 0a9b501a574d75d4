//! Whether Redis would keep what it acknowledges.

use redis::RedisError;

use crate::{Broker, BrokerError};

impl Broker {
    /// Whether Redis answers, takes writes, syncs them and evicts nothing. Read from INFO,
    /// which managed services allow where they don't allow CONFIG.
    pub async fn check(&self) -> Result<(), BrokerError> {
        let mut command = redis::cmd("INFO");
        command.arg("persistence").arg("memory").arg("replication");
        let info: String = self.link.query(&command).await.map_err(RedisError::from)?;
        if field(&info, "role") != PRIMARY {
            // As in [`link`](crate::link): the address may lead elsewhere by now.
            self.link.let_go().await;
        }
        judge(&info).map_err(BrokerError::Unfit)
    }
}

const PRIMARY: &str = "master";

/// The value of a field in the answer to INFO; nothing if there is none.
pub(crate) fn field<'i>(info: &'i str, name: &str) -> &'i str {
    let of = |line: &'i str| line.strip_prefix(name)?.strip_prefix(':');
    info.lines().find_map(of).unwrap_or_default()
}

fn judge(info: &str) -> Result<(), String> {
    let field = |name| field(info, name);
    if field("loading") == "1" {
        return Err("Redis is loading its data".into());
    }
    match field("role") {
        PRIMARY => {}
        role => return Err(format!("it is a {role}, which takes no writes")),
    }
    if field("aof_enabled") != "1" {
        return Err("Redis has no append-only file: set appendonly yes".into());
    }
    if field("aof_last_write_status") != "ok" {
        return Err("Redis can't write its append-only file".into());
    }
    match field("maxmemory_policy") {
        "noeviction" => Ok(()),
        policy => Err(format!(
            "Redis evicts keys ({policy}): set maxmemory-policy noeviction"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Persistence\r\nloading:0\r\naof_enabled:1\r\n\
         aof_last_write_status:ok\r\nmaxmemory_policy:noeviction\r\nrole:master\r\n";

    #[test]
    fn a_redis_that_would_lose_something_is_named_for_what_it_is() {
        assert_eq!(judge(GOOD), Ok(()));
        for (before, after, expected) in [
            ("aof_enabled:1", "aof_enabled:0", "appendonly yes"),
            ("noeviction", "allkeys-lru", "evicts keys (allkeys-lru)"),
            ("role:master", "role:slave", "it is a slave"),
            ("status:ok", "status:err", "can't write"),
            ("loading:0", "loading:1", "is loading"),
        ] {
            let error = judge(&GOOD.replace(before, after)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
