//! What a run did and saw.

use std::fmt::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// One run's. Written by all of its parts at once.
pub(crate) struct Journal {
    made: Instant,
    /// When the load and the schedule began.
    began: OnceLock<Instant>,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    lines: Vec<String>,
    findings: Vec<String>,
    logs: String,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self {
            made: Instant::now(),
            began: OnceLock::new(),
            entries: Mutex::default(),
        }
    }

    /// The schedule begins now.
    pub(crate) fn begin(&self) -> Instant {
        *self.began.get_or_init(Instant::now)
    }

    /// Waits for an instant of the schedule.
    pub(crate) async fn reach(&self, at: Duration) {
        tokio::time::sleep_until((self.begin() + at).into()).await;
    }

    /// Something happened.
    pub(crate) fn tell(&self, what: &str) {
        let began = self.began.get().unwrap_or(&self.made);
        let at = began.elapsed().as_secs_f32();
        self.with(|entries| entries.lines.push(format!("{at:7.3} s  {what}")));
    }

    /// Something happened that must not.
    pub(crate) fn find(&self, what: &str) {
        self.tell(&format!("FOUND: {what}"));
        self.with(|entries| entries.findings.push(what.to_owned()));
    }

    /// What a process said until it ended. Its errors are findings: they are for somebody
    /// to act upon, and nobody should have to.
    pub(crate) fn keep(&self, name: &str, log: &str) {
        self.with(|entries| {
            let _ = write!(entries.logs, "\n--- {name} said last:\n{log}");
        });
        let errors = log
            .lines()
            .filter(|line| line.contains("\"level\":\"ERROR\""));
        for error in errors {
            self.find(&format!("{name} logs an error: {error}"));
        }
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        self.with(|entries| entries.findings.clone())
    }

    /// What happened, in order.
    pub(crate) fn story(&self) -> String {
        self.with(|entries| entries.lines.join("\n"))
    }

    /// The same, and what every process said.
    pub(crate) fn all(&self) -> String {
        self.with(|entries| format!("{}\n{}", entries.lines.join("\n"), entries.logs))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Entries) -> T) -> T {
        work(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
