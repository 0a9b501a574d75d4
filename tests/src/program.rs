//! One process, of ours or a server.

mod build;

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{reaper, until};

pub use build::binaries;
use build::doomed_binaries;

/// How long a script has to end what it has started: as long as it gives each of that, which
/// needs moments.
const FAREWELL: Duration = Duration::from_secs(30);

/// Log lines that are kept.
const KEPT: usize = 100_000;

/// Log lines that are shown if the test fails.
const SHOWN: usize = 200;

/// What programs of ours get of the environment.
const KEPT_VARIABLES: [&str; 5] = ["PATH", "HOME", "TMPDIR", "RUST_LOG", "RUST_BACKTRACE"];

/// A process that ends with the value.
pub struct Program {
    name: String,
    child: Child,
    /// It is told to end before it is killed.
    is_script: bool,
    status: Option<ExitStatus>,
    log: Arc<Mutex<Log>>,
    /// Reads what it says, and ends with it.
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Log {
    lines: VecDeque<String>,
    listening: Vec<(String, SocketAddr)>,
}

impl Program {
    /// Starts a program of ours, with its log as JSON. Nothing of the environment that means
    /// something to it reaches it, so that it does what its flags say.
    pub fn start(binary: &str, arguments: &[&str]) -> Self {
        Self::start_in(binary, arguments, &[])
    }

    /// The same with these variables in its environment.
    pub fn start_in(binary: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let directory = if binary.ends_with("-doomed") {
            doomed_binaries()
        } else {
            binaries()
        };
        let mut command = Command::new(directory.join(binary));
        command
            .env_clear()
            .envs(
                std::env::vars_os()
                    .filter(|(name, _)| KEPT_VARIABLES.iter().any(|kept| name == kept)),
            )
            .envs(variables.iter().copied())
            .args(arguments)
            .args(["--log-format", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Self::spawn(binary, &mut command)
    }

    /// Starts any program.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        Self::begin(name, command, false)
    }

    /// Starts a script, which ends what it has started when it is told to end. Killed, it would
    /// leave that running.
    pub fn spawn_script(name: &str, command: &mut Command) -> Self {
        Self::begin(name, command, true)
    }

    fn begin(name: &str, command: &mut Command, is_script: bool) -> Self {
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        if is_script {
            reaper::terminate(&child);
        } else {
            reaper::kill(&child);
        }
        let log = Arc::new(Mutex::new(Log::default()));
        let reader = child.stderr.take().map(|stderr| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    log.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .take(line);
                }
            })
        });
        Self {
            name: name.to_owned(),
            child,
            is_script,
            status: None,
            log,
            reader,
        }
    }

    /// Where it listens, once it has said so: `http` or `admin`.
    pub async fn address(&mut self, name: &str) -> SocketAddr {
        let mut found = None;
        until(&format!("{} listens on {name}", self.name), async || {
            assert!(!self.has_ended(), "{} ended: {}", self.name, self.log());
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            found = log
                .listening
                .iter()
                .find(|(listener, _)| listener == name)
                .map(|(_, address)| *address);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// What it logged last.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let last = log.lines.iter().skip(log.lines.len().saturating_sub(SHOWN));
        last.flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// All that it logged.
    pub fn whole_log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(log.lines.len() < KEPT, "not all of it was kept");
        log.lines
            .iter()
            .flat_map(|line| [line.as_str(), "\n"])
            .collect()
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let status = self.child.wait().ok();
            self.is_over(status);
        }
    }

    /// SIGTERM, and waits for a while until it is gone. Nothing here panics: the test may have.
    fn bid_farewell(&mut self) {
        let id = self.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// The numbers of the processes that it has started.
    pub fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.id());
        let children = std::fs::read_to_string(path).unwrap_or_default();
        let children = children.split_whitespace();
        children.filter_map(|child| child.parse().ok()).collect()
    }

    /// A signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success(), "send {name} to {}", self.name);
    }

    /// SIGTERM, and the status with which it ends.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        until(&what, async || self.has_ended()).await;
        self.status.unwrap()
    }

    /// The same of one that may take so long.
    pub async fn ended_within(&mut self, time: Duration) -> ExitStatus {
        let deadline = Instant::now() + time;
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while !self.has_ended() {
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            look.tick().await;
        }
        self.status.unwrap()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            let status = self.child.try_wait().unwrap();
            self.is_over(status);
        }
        self.status.is_some()
    }

    /// With a status it has ended, and all that it said is in its log.
    fn is_over(&mut self, status: Option<ExitStatus>) {
        self.status = status;
        if status.is_none() {
            return;
        }
        reaper::spare(&self.child);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }

    /// Whether a signal has stopped it.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()));
        // After the name, which may hold anything.
        stat.is_ok_and(|stat| {
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// What it holds in memory, in bytes.
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }
}

impl Drop for Program {
    #[expect(
        clippy::print_stdout,
        reason = "the test runner shows it if the test fails"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            if !log.is_empty() {
                println!("--- {} said last:\n{log}", self.name);
            }
        }
        if self.is_script && self.status.is_none() {
            self.bid_farewell();
        }
        self.kill();
    }
}

impl Log {
    fn take(&mut self, line: String) {
        if let Ok(said) = serde_json::from_str::<Value>(&line)
            && said["message"] == "listening"
            && let (Some(name), Some(address)) = (said["name"].as_str(), said["addr"].as_str())
            && let Ok(address) = address.parse()
        {
            self.listening.push((name.to_owned(), address));
        }
        self.lines.push_back(line);
        if self.lines.len() > KEPT {
            self.lines.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[tokio::test]
    async fn a_script_that_is_dropped_ends_what_it_has_started() {
        // A process group and a log of its own, as those of a server.
        let lines =
            "set -m; sleep 1000 2>/dev/null & trap 'kill $!; wait $!' EXIT; trap 'exit 143' TERM
                     echo $! >&2; while sleep 0.1; do :; done";
        let mut command = Command::new("bash");
        command.args(["-c", lines]).stderr(Stdio::piped());
        let script = Program::spawn_script("script", &mut command);
        let mut server = String::new();
        until("it has started another", async || {
            script.log().trim_end().clone_into(&mut server);
            !server.is_empty()
        })
        .await;
        let server = PathBuf::from("/proc").join(server);
        assert!(server.exists());
        drop(script);
        assert!(!server.exists());
    }
}
