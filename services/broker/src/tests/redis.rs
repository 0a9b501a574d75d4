//! A real Redis, which tests fill, kill and start again.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ::redis::Value;

use crate::{Args, Broker};

const PATIENCE: Duration = Duration::from_secs(20);

/// A Redis of its own for each test. Ends with it.
pub(super) struct Redis {
    directory: tempfile::TempDir,
    pub(super) port: u16,
    child: Child,
}

impl Redis {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let child = spawn(&directory, port);
        Self {
            directory,
            port,
            child,
        }
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(super) fn restart(&mut self) {
        self.child = spawn(&self.directory, self.port);
    }

    pub(super) fn broker(&self) -> Broker {
        at(&format!("redis://127.0.0.1:{}", self.port))
    }

    /// A broker that has been heard from.
    pub(super) async fn ready(&self) -> Broker {
        let broker = self.broker();
        eventually("redis answers", async || broker.check().await.is_ok()).await;
        broker
    }

    pub(super) async fn command(&self, words: &[&str]) -> Value {
        let mut command = ::redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        self.broker().link.query(&command).await.unwrap()
    }
}

fn spawn(directory: &tempfile::TempDir, port: u16) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--dir", directory.path().to_str().unwrap()])
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        .args(["--save", "", "--maxmemory-policy", "noeviction"])
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

/// The queue at an address.
pub(super) fn at(url: &str) -> Broker {
    let args = Args {
        broker_prefix: "test".into(),
    };
    Broker::new(&url.parse().unwrap(), &args)
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "{what} does not come true");
        tokio::task::yield_now().await;
    }
}
