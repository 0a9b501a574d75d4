//! The publisher, as the load and as a witness.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::{Program, binaries};

use crate::journal::Journal;
use crate::schedule::Load;

/// How long it may take: it sends on through every fault.
const PATIENCE: Duration = Duration::from_mins(10);

/// A sender with its seed, and its verdict at the end.
pub(crate) struct Publisher {
    pub(crate) name: String,
    load: Load,
    door: SocketAddr,
    directory: TempDir,
    pub(crate) program: Program,
}

impl Publisher {
    pub(crate) fn start(number: usize, load: Load, door: SocketAddr) -> Self {
        let directory = tests::directory();
        Self {
            name: format!("publisher-{number}"),
            program: run(&load, door, directory.path().join("report")),
            load,
            door,
            directory,
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, journal: &Journal) {
        self.program.kill();
        journal.keep(&self.name, &self.program.whole_log());
    }

    /// Starts it again, with its seed.
    pub(crate) fn come_back(&mut self) {
        let report = self.directory.path().join("report");
        self.program = run(&self.load, self.door, report);
    }

    /// Waits for its verdict, which must be good.
    pub(crate) async fn verdict(&mut self, journal: &Journal) {
        let status = self.program.ended_within(PATIENCE).await;
        journal.keep(&self.name, &self.program.whole_log());
        let report = std::fs::read(self.directory.path().join("report"));
        let report = report.unwrap_or_default();
        let report: Value = serde_json::from_slice(&report).unwrap_or_default();
        let words = &report["verdict"]["words"];
        if status.success() && report["passed"] == true {
            journal.tell(&format!("{}: {words}", self.name));
        } else {
            journal.find(&format!("{}: {status}, {report}", self.name));
        }
    }
}

fn run(load: &Load, door: SocketAddr, report: PathBuf) -> Program {
    let mut command = Command::new(binaries().join("sekali-publisher"));
    command
        .env_clear()
        .arg(format!("--target-url=http://{door}"))
        .arg(format!("--seed={}", load.seed))
        .arg(format!("--events={}", load.events))
        .arg(format!("--rate={}", load.rate))
        .arg(format!("--batch={}", load.batch))
        .arg(format!("--concurrency={}", load.connections))
        .arg(format!("--payload-bytes={}", load.payload_bytes))
        .arg(format!(
            "--ack={}",
            if load.is_stored { "stored" } else { "queued" }
        ))
        .args(["--duplicates=0.3", "--conflicts=0.02", "--malformed=0.02"])
        .args(["--timeout-ms=4000", "--verify", "--log-format=json"])
        .arg("--report")
        .arg(report)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Program::spawn("sekali-publisher", &mut command)
}
