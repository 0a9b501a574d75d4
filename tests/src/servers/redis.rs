use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{find, free_port};
use crate::{Program, until};

/// A Redis with its append-only file synced at every write, and its data in a directory of
/// its own.
pub struct Redis {
    directory: TempDir,
    port: u16,
    program: Program,
}

impl Redis {
    /// Starts one, and waits until it answers.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let program = spawn(&directory, port);
        let redis = Self {
            directory,
            port,
            program,
        };
        redis.answers().await;
        redis
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The process, to kill, stop and continue.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Starts it again with the same data on the same port.
    pub async fn restart(&mut self) {
        self.program.kill();
        self.program = spawn(&self.directory, self.port);
        self.answers().await;
    }

    async fn answers(&self) {
        let address = ("127.0.0.1", self.port);
        until("redis answers", async || {
            let ping = async {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
                stream.write_all(b"PING\r\n").await.ok()?;
                let mut answer = [0; 5];
                stream.read_exact(&mut answer).await.ok()?;
                (&answer == b"+PONG").then_some(())
            };
            let answered = tokio::time::timeout(Duration::from_secs(1), ping).await;
            matches!(answered, Ok(Some(())))
        })
        .await;
    }
}

fn spawn(directory: &TempDir, port: u16) -> Program {
    let mut command = Command::new(find(&["redis-server", "valkey-server"], &[]));
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .arg("--dir")
        .arg(directory.path())
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        .args(["--auto-aof-rewrite-min-size", "1gb"])
        .args(["--save", "", "--maxmemory-policy", "noeviction"])
        .stdout(Stdio::null());
    Program::spawn("redis", &mut command)
}
