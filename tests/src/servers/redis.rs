use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Disk, find, free_port};
use crate::{Program, until};

/// A Redis with its append-only file synced at every write, and its data on a disk of its
/// own.
pub struct Redis {
    // First, so that it ends before its disk goes away.
    program: Program,
    disk: Disk,
    port: u16,
}

impl Redis {
    /// Starts one, and waits until it answers.
    pub async fn start() -> Self {
        Self::start_on(Disk::roomy()).await
    }

    /// The same on this disk.
    pub async fn start_on(disk: Disk) -> Self {
        let port = free_port();
        let program = spawn(&disk, port);
        let redis = Self {
            program,
            disk,
            port,
        };
        redis.answers().await;
        redis
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Asks it itself, past every proxy. It must need no password.
    pub fn command(&self, words: &[&str]) {
        let mut client = redis::Client::open(self.url()).unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).exec(&mut client).unwrap();
    }

    /// Changes a setting, until it is started again.
    pub fn set(&self, setting: &str, value: &str) {
        self.command(&["CONFIG", "SET", setting, value]);
    }

    /// The disk that it is on.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The process, to kill, stop and continue.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Starts it again with the same data on the same port.
    pub async fn restart(&mut self) {
        self.program.kill();
        self.program = spawn(&self.disk, self.port);
        self.answers().await;
    }

    /// Waits until it answers, starting it again if it has ended.
    pub async fn revive(&mut self) {
        until("redis is up or gone", async || {
            self.is_up().await || self.program.has_ended()
        })
        .await;
        if self.program.has_ended() {
            self.restart().await;
        }
    }

    async fn answers(&self) {
        until("redis answers", async || self.is_up().await).await;
    }

    async fn is_up(&self) -> bool {
        let ping = async {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut stream = tokio::net::TcpStream::connect(self.address()).await.ok()?;
            stream.write_all(b"PING\r\n").await.ok()?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await.ok()?;
            (&answer == b"+PONG").then_some(())
        };
        let answered = tokio::time::timeout(Duration::from_secs(1), ping).await;
        matches!(answered, Ok(Some(())))
    }
}

fn spawn(disk: &Disk, port: u16) -> Program {
    let mut command = Command::new(find("find_redis"));
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .arg("--dir")
        .arg(disk.path())
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        .args(["--auto-aof-rewrite-min-size", "1gb"])
        .args(["--save", "", "--maxmemory-policy", "noeviction"])
        .stdout(Stdio::null());
    Program::spawn("redis", &mut command)
}
