//! The publisher as a load, and what processes use.

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

/// 64 senders of bodies as large as may be, for some rounds.
pub(crate) async fn large_bodies(sekali: &Sekali) {
    let event = serde_json::json!({
        "topic": "large", "event_id": "@", "timestamp": "2026-01-01T00:00:00Z",
        "source": "bench", "payload": {"filler": "x".repeat(1000)},
    })
    .to_string();
    let send = async |sender: usize| {
        for round in 0..5 {
            let body: String = (0..7_000)
                .map(|n| event.replace('@', &format!("{sender}-{round}-{n}")) + "\n")
                .collect();
            let answer = sekali.publish_bytes("", "application/x-ndjson", body).await;
            assert!([200, 503].contains(&answer.status), "{}", answer.body);
        }
    };
    futures::future::join_all((0..64).map(send)).await;
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

/// The most memory that a process ever held, in bytes.
pub(crate) fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}
