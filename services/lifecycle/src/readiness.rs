//! What a process says of itself: that it lives, and whether to send it work.
//!
//! Liveness is only that the work makes progress: it never depends on another server,
//! or one outage there restarts everything here. Readiness is what the owners of the
//! checks last said, and no server is asked while a probe waits.
//!
//! Progress is asked for, by a task that takes a turn, rather than told by a heartbeat:
//! nothing runs while nobody asks, and the port may answer from a runtime of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::runtime::Handle;

/// The name under which the process itself is listed while it starts, drains or is stuck.
const PROCESS: &str = "process";

/// How long a turn sleeps: just long enough that a timer has to wake it, which happens where
/// sockets are looked at too.
const TURN: Duration = Duration::from_millis(1);

/// How long a turn may be waited for: far longer than any task may keep a thread to itself,
/// and shorter than probes wait for an answer (in the chart 3 s and 5 s), so that they read
/// why.
const PATIENCE: Duration = Duration::from_secs(2);

/// The checks of a process. Clones are the same checks.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    phase: Phase,
    checks: BTreeMap<&'static str, Result<(), String>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Starting,
    Serving,
    Draining,
}

impl Readiness {
    /// Records the latest outcome of a check; `Err` holds the reason, which anyone who
    /// reaches the port can read. A change is logged, one of the reason too; a repetition
    /// is not.
    pub fn set(&self, check: &'static str, outcome: Result<(), String>) {
        let before = self.lock().checks.insert(check, outcome.clone());
        if before.as_ref() == Some(&outcome) {
            return;
        }
        match outcome {
            Ok(()) => tracing::info!(check, "check passes"),
            Err(reason) => tracing::warn!(check, reason, "check fails"),
        }
    }

    /// The process has started: from now on only the checks decide.
    pub fn started(&self) {
        let mut inner = self.lock();
        if inner.phase == Phase::Starting {
            inner.phase = Phase::Serving;
        }
    }

    /// Readiness goes off, for good. Says whether the process ever served.
    pub fn drain(&self) -> bool {
        let before = std::mem::replace(&mut self.lock().phase, Phase::Draining);
        before == Phase::Serving
    }

    /// Whether the process is to be sent work: it has started, does not drain, and no
    /// check fails.
    pub fn is_ready(&self) -> bool {
        self.lock().is_ready()
    }

    /// `/livez`, which is 200 while the work makes progress and 503 while it is stuck;
    /// `/readyz`, `/healthz` and `/health`, which are 200 or 503 and say what was checked:
    /// `{"status": "unavailable", "checks": {"broker": "ok", "store": "connection refused"}}`.
    /// Must be called within the runtime that does the work, which is the one that is asked
    /// for a turn, wherever these are served.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/healthz", get(readyz))
            .route("/health", get(readyz))
            .with_state((self.clone(), Handle::current()))
    }

    fn report(&self, turns: bool) -> (StatusCode, String) {
        let inner = self.lock();
        let mut checks: BTreeMap<_, _> = inner
            .checks
            .iter()
            .map(|(&name, outcome)| {
                (
                    name,
                    outcome.as_ref().map_or_else(String::as_str, |()| "ok"),
                )
            })
            .collect();
        match inner.phase {
            Phase::Starting => checks.insert(PROCESS, "starting"),
            Phase::Serving => None,
            Phase::Draining => checks.insert(PROCESS, "draining"),
        };
        if !turns {
            checks.insert(PROCESS, "stuck");
        }
        let (status, word) = if turns && inner.is_ready() {
            (StatusCode::OK, "ok")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        };
        (
            status,
            json!({"status": word, "checks": checks}).to_string(),
        )
    }

    /// Nothing here panics while it holds the lock, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_ready(&self) -> bool {
        self.phase == Phase::Serving && self.checks.values().all(Result::is_ok)
    }
}

async fn livez(State((_, work)): State<(Readiness, Handle)>) -> Response {
    let (status, said) = if turns(&work).await {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "stuck")
    };
    answer(status, json!({"status": said}).to_string())
}

async fn readyz(State((readiness, work)): State<(Readiness, Handle)>) -> Response {
    let turns = turns(&work).await;
    let (status, body) = readiness.report(turns);
    answer(status, body)
}

/// Whether the runtime that does the work gets round to a task and to a timer.
async fn turns(work: &Handle) -> bool {
    // Nobody owns it: it lives for a millisecond, or as long as nothing does, and holds nothing.
    let turn = work.spawn(async { tokio::time::sleep(TURN).await });
    matches!(tokio::time::timeout(PATIENCE, turn).await, Ok(Ok(())))
}

fn answer(status: StatusCode, body: String) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn report(readiness: &Readiness) -> (u16, String) {
        let (status, body) = readiness.report(true);
        assert_eq!(status == StatusCode::OK, readiness.is_ready());
        (status.as_u16(), body)
    }

    #[test]
    fn a_process_is_ready_between_its_start_and_its_drain_while_no_check_fails() {
        let readiness = Readiness::default();
        let starting = r#"{"checks":{"process":"starting"},"status":"unavailable"}"#;
        assert_eq!(report(&readiness), (503, starting.into()));

        readiness.started();
        readiness.set("broker", Ok(()));
        let good = r#"{"checks":{"broker":"ok"},"status":"ok"}"#;
        assert_eq!(report(&readiness), (200, good.into()));

        readiness.set("store", Err("connection refused".into()));
        let bad =
            r#"{"checks":{"broker":"ok","store":"connection refused"},"status":"unavailable"}"#;
        assert_eq!(report(&readiness), (503, bad.into()));

        readiness.set("store", Ok(()));
        assert!(readiness.is_ready());

        assert!(readiness.drain());
        readiness.started();
        let draining = r#"{"checks":{"broker":"ok","process":"draining","store":"ok"},"status":"unavailable"}"#;
        assert_eq!(report(&readiness), (503, draining.into()));
    }

    #[test]
    fn a_process_that_is_stuck_is_not_ready_whatever_the_checks_say() {
        let readiness = Readiness::default();
        readiness.started();
        readiness.set("broker", Ok(()));
        let (status, body) = readiness.report(false);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let stuck = r#"{"checks":{"broker":"ok","process":"stuck"},"status":"unavailable"}"#;
        assert_eq!(body, stuck);
    }

    #[test]
    fn a_reason_that_reads_ok_is_still_a_failure() {
        let readiness = Readiness::default();
        readiness.started();
        readiness.set("broker", Err("ok".into()));
        assert_eq!(report(&readiness).0, 503);
    }

    /// What was logged, line by line.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_change_is_logged_one_of_the_reason_too_and_a_repetition_is_not() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let readiness = Readiness::default();
            for outcome in [
                Err("is loading"),
                Err("is loading"),
                Err("evicts keys"),
                Ok(()),
                Ok(()),
            ] {
                readiness.set("queue", outcome.map_err(str::to_owned));
            }
        });
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = log.lines().collect();
        let expected = ["is loading", "evicts keys", "check passes"];
        assert_eq!(lines.len(), expected.len(), "{log}");
        for (line, expected) in lines.into_iter().zip(expected) {
            assert!(line.contains(expected), "{line}");
        }
    }
}
