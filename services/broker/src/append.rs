//! How entries get into the stream.

use event::{Batch, Partition};
use redis::Cmd;

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
        let mut events = 0;
        let mut commands = Vec::with_capacity(entries.len() + 1);
        for outgoing in entries {
            let mut command = Cmd::new();
            command.arg("XADD").arg(&self.keys.events).arg("*");
            entry::write(&mut command, outgoing);
            commands.push(command);
            events += u64::from(outgoing.batch.events.count());
        }
        let mut count = Cmd::new();
        count.arg("INCRBY").arg(&self.keys.events_in).arg(events);
        commands.push(count);
        crash::point!("append");
        self.link.transaction(commands).await.map_err(of)?;
        crash::point!("appended");
        Ok(())
    }
}

fn of(failure: Failure) -> AppendError {
    match failure {
        Failure::Refused(error) if says(&error, "OOM") => AppendError::Full,
        Failure::Connect(error) | Failure::Refused(error) => AppendError::Unavailable(error),
        Failure::Unknown(error) => AppendError::OutcomeUnknown(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_without_memory_is_full_whenever_it_says_so() {
        let at_exec = "EXECABORT Transaction discarded because of: OOM command not allowed";
        for (answer, is_full) in [
            ("OOM command not allowed", true),
            (at_exec, true),
            ("MISCONF Errors writing to the AOF file", false),
        ] {
            let answer = format!("-{answer}\r\n");
            let value = redis::parse_redis_value(answer.as_bytes()).unwrap();
            let error = of(Failure::Refused(value.extract_error().unwrap_err()));
            assert_eq!(matches!(error, AppendError::Full), is_full, "{answer}");
        }
    }
}
