//! How entries get into the stream.

use event::{Batch, Partition};
use redis::{Cmd, RedisError};

use crate::link::{Failure, says};
use crate::{AppendError, Broker, entry};

/// A batch on its way to the workers.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The batch.
    pub batch: Batch,
    /// Where all of its events belong.
    pub partition: Partition,
    /// Of the requests that it is of, the W3C trace contexts of those that are recorded.
    pub traceparents: Vec<String>,
}

impl Broker {
    /// Appends entries, all of them or none.
    ///
    /// One MULTI: of the commands in it a full Redis refuses each, and then the whole, and
    /// what is counted is what is in the stream.
    pub async fn append(&self, entries: &[Outgoing]) -> Result<(), AppendError> {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        let mut events = 0;
        for outgoing in entries {
            let mut command = Cmd::new();
            command.arg("XADD").arg(&self.keys.events).arg("*");
            entry::write(&mut command, outgoing);
            pipeline.add_command(command).ignore();
            events += u64::from(outgoing.batch.events.count());
        }
        pipeline
            .cmd("INCRBY")
            .arg(&self.keys.events_in)
            .arg(events)
            .ignore();
        crash::point!("append");
        self.link.transaction(&pipeline).await.map_err(of)?;
        crash::point!("appended");
        Ok(())
    }
}

fn of(failure: Failure) -> AppendError {
    match failure {
        Failure::Connect(error) => AppendError::Unavailable(error),
        Failure::Refused(error) if says(&error, "OOM") => AppendError::Full,
        Failure::Refused(error) if nothing_was_done(&error) => AppendError::Unavailable(error),
        Failure::Refused(error) | Failure::Silence(error) => AppendError::OutcomeUnknown(error),
    }
}

/// Refusals that come before a transaction runs. Any other may be of one command in it.
fn nothing_was_done(error: &RedisError) -> bool {
    const BEFORE: [&str; 12] = [
        "EXECABORT",
        "LOADING",
        "READONLY",
        "MISCONF",
        "NOAUTH",
        "NOPERM",
        "NOREPLICAS",
        "CLUSTERDOWN",
        "MASTERDOWN",
        "MOVED",
        "TRYAGAIN",
        "BUSY",
    ];
    error.code().is_some_and(|code| BEFORE.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(answer: &str) -> AppendError {
        let answer = format!("-{answer}\r\n");
        let value = redis::parse_redis_value(answer.as_bytes()).unwrap();
        of(Failure::Refused(value.extract_error().unwrap_err()))
    }

    #[test]
    fn only_what_surely_did_nothing_is_called_unavailable() {
        let at_exec = "EXECABORT Transaction discarded because of: OOM command not allowed";
        for full in ["OOM command not allowed", at_exec] {
            assert!(matches!(refused(full), AppendError::Full), "{full}");
        }
        for nothing in [
            "EXECABORT Transaction discarded because of previous errors.",
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "MISCONF Errors writing to the AOF file",
            "NOAUTH Authentication required.",
        ] {
            let error = refused(nothing);
            assert!(matches!(error, AppendError::Unavailable(_)), "{nothing}");
        }
        // Of one command in a transaction that ran.
        for unknown in ["WRONGTYPE Operation against a key", "ERR not an integer"] {
            let error = refused(unknown);
            assert!(matches!(error, AppendError::OutcomeUnknown(_)), "{unknown}");
        }
    }
}
