//! What the replies to a transaction say has become of it.
//!
//! The library would say it too, but takes any refusal for a transaction that was discarded: a
//! MULTI that is refused discards nothing, and each command is then done by itself.

use redis::{Cmd, Pipeline, RedisError, Value};

use crate::link::Failure;

/// The commands between MULTI and EXEC, each of which is answered by itself.
pub(crate) fn of(commands: Vec<Cmd>) -> Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.cmd("MULTI");
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline.cmd("EXEC");
    pipeline
}

/// Judges the replies, from that of MULTI to that of EXEC.
///
/// Nothing was done if Redis says that it discarded the transaction, or did not take one word
/// of it. Everything was done if EXEC has an answer for each command and none is an error. Of
/// all else nobody can tell.
pub(crate) fn outcome(mut replies: Vec<Value>) -> Result<(), Failure> {
    let exec = replies.pop().unwrap_or(Value::Nil);
    let is_refused = |reply: &Value| matches!(reply, Value::ServerError(_));
    let nothing_was_done = match &exec {
        Value::ServerError(error) => error.code() == "EXECABORT" || replies.iter().all(is_refused),
        _ => false,
    };
    let has_run = matches!(exec, Value::Array(_));
    // Why a transaction was discarded its commands say, or, if they were taken and things
    // changed meanwhile, the EXEC's own refusal.
    let errors = replies.into_iter().chain([exec]);
    let error = errors.map(Value::extract_error).find_map(Result::err);
    match error {
        None if has_run => Ok(()),
        None => Err(Failure::Unknown(unexpected())),
        Some(error) if nothing_was_done => Err(Failure::Refused(error)),
        Some(error) => Err(Failure::Unknown(error)),
    }
}

fn unexpected() -> RedisError {
    let kind = redis::ErrorKind::UnexpectedReturnType;
    RedisError::from((kind, "not an answer to EXEC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(replies: &[&str]) -> Result<(), Failure> {
        let parse = |reply: &&str| {
            let bytes = format!("{reply}\r\n");
            redis::parse_redis_value(bytes.as_bytes()).unwrap()
        };
        outcome(replies.iter().map(parse).collect())
    }

    const QUEUED: &str = "+QUEUED";
    const DONE: &str = "*2\r\n$3\r\n1-1\r\n:1";

    #[test]
    fn what_ran_without_an_error_is_done() {
        judge(&["+OK", QUEUED, QUEUED, DONE]).unwrap();
    }

    #[test]
    fn only_what_surely_did_nothing_is_called_refused() {
        let discarded = "-EXECABORT Transaction discarded because of previous errors.";
        for (replies, code) in [
            (["+OK", "-OOM memory", QUEUED, discarded], "OOM"),
            (["+OK", QUEUED, "-NOPERM incrby", discarded], "NOPERM"),
            (
                ["+OK", "-MISCONF file", "-MISCONF file", discarded],
                "MISCONF",
            ),
            (
                ["+OK", QUEUED, QUEUED, "-EXECABORT because of: OOM memory"],
                "EXECABORT",
            ),
            (
                ["-NOAUTH a", "-NOAUTH b", "-NOAUTH c", "-NOAUTH d"],
                "NOAUTH",
            ),
        ] {
            match judge(&replies) {
                Err(Failure::Refused(error)) => assert_eq!(error.code(), Some(code)),
                other => panic!("{replies:?}: {other:?}"),
            }
        }
        for replies in [
            // One command of a transaction that ran.
            [
                "+OK",
                QUEUED,
                QUEUED,
                "*2\r\n$3\r\n1-1\r\n-ERR not an integer",
            ],
            // No transaction: each command was done by itself.
            [
                "-NOPERM multi",
                "$3\r\n1-1",
                ":1",
                "-ERR EXEC without MULTI",
            ],
            // It may be that the connection has a transaction open now.
            ["+OK", QUEUED, QUEUED, "-NOPERM exec"],
            ["+OK", QUEUED, QUEUED, "$-1"],
        ] {
            let outcome = judge(&replies);
            assert!(matches!(outcome, Err(Failure::Unknown(_))), "{outcome:?}");
        }
    }
}
