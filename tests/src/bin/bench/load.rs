//! The publisher as a load, and what processes use of a core.

use std::fmt::Display;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tests::{Program, Sekali};

/// A run of the publisher.
pub(crate) struct Load {
    arguments: Vec<String>,
}

/// What the publisher reported.
pub(crate) struct Measured {
    /// Events a second, from the first request to the last acknowledgement.
    pub(crate) acknowledged: f64,
    /// Events a second, from the first request until the queue was empty.
    pub(crate) end_to_end: f64,
    /// Of a request.
    pub(crate) p99_ms: f64,
}

impl Load {
    pub(crate) fn new(events: u64) -> Self {
        let load = Self {
            arguments: Vec::new(),
        };
        load.with("--events", &events).with("--log-format", &"json")
    }

    pub(crate) fn batch(self, events: u16) -> Self {
        self.with("--batch", &events).concurrency(16)
    }

    pub(crate) fn concurrency(mut self, connections: u16) -> Self {
        self.arguments
            .retain(|argument| !argument.starts_with("--concurrency"));
        self.with("--concurrency", &connections)
    }

    pub(crate) fn seed(self, seed: u64) -> Self {
        self.with("--seed", &seed)
    }

    pub(crate) fn ids(self, form: &str) -> Self {
        self.with("--ids", &form)
    }

    pub(crate) fn stored(self) -> Self {
        self.with("--ack", &"stored")
    }

    pub(crate) fn rate(self, events: f64) -> Self {
        self.with("--rate", &events)
    }

    pub(crate) fn without_waiting(self) -> Self {
        self.with("--queue-wait-seconds", &0)
    }

    fn with(mut self, flag: &str, value: &dyn Display) -> Self {
        self.arguments.push(format!("{flag}={value}"));
        self
    }

    pub(crate) async fn run(self, sekali: &Sekali) -> Measured {
        let directory = tests::directory();
        let report = directory.path().join("report.json");
        let mut command = Command::new(tests::binaries().join("sekali-publisher"));
        command
            .args(&self.arguments)
            .arg(format!("--target-url={}", sekali.url("")))
            .arg("--report")
            .arg(&report)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut publisher = Program::spawn("sekali-publisher", &mut command);
        let status = publisher.ended_within(Duration::from_hours(1)).await;
        assert!(status.success(), "{}", publisher.log());
        let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
        let figure = |of: &Value, name: &str| of[name].as_f64().unwrap_or(f64::NAN);
        Measured {
            acknowledged: figure(&report, "events_per_second"),
            end_to_end: figure(&report["end_to_end"], "events_per_second"),
            p99_ms: figure(&report["latency_ms"], "p99"),
        }
    }
}

/// What a process has used of a core, in seconds.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // After the name, which may hold anything: user and system time, in hundredths.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<_> = fields.split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}
