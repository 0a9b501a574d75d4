use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::OnceCell;

use super::{Disk, find, free_port};
use crate::{Program, until};

/// A PostgreSQL with its data on a disk of its own.
pub struct Postgres {
    // First, so that it ends before its disk goes away.
    program: Program,
    disk: Disk,
    port: u16,
    settings: Vec<String>,
}

/// The address of a new, empty database on the server that all tests share.
pub async fn database() -> String {
    static SHARED: OnceCell<Postgres> = OnceCell::const_new();
    // Nothing here outlives the tests, so that syncing would only cost time.
    let unsynced = &["fsync=off", "full_page_writes=off"];
    let server = SHARED.get_or_init(|| Postgres::start(unsynced)).await;
    server.database().await
}

/// Runs statements on a database.
pub async fn execute(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
}

/// Whether somebody waits for a lock in a database's server.
pub async fn somebody_waits(url: &str) -> bool {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)";
    let waiting = sqlx::query_scalar(waiting).fetch_one(&mut connection).await;
    waiting.unwrap()
}

/// Whether somebody waits there for a lock with a statement that begins like this.
pub async fn somebody_waits_to(url: &str, statement: &str) -> bool {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND starts_with(query, $1))";
    let waiting = sqlx::query_scalar(waiting).bind(statement);
    waiting.fetch_one(&mut connection).await.unwrap()
}

/// Ends every connection of a database, as a failover would.
pub async fn cut_off(url: &str) {
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid()";
    execute(url, others).await;
}

impl Postgres {
    /// Makes and starts one with these settings, and waits until it answers.
    pub async fn start(settings: &[&str]) -> Self {
        Self::start_on(Disk::roomy(), settings).await
    }

    /// The same on this disk.
    pub async fn start_on(disk: Disk, settings: &[&str]) -> Self {
        make_data(&disk);
        let port = free_port();
        let settings: Vec<_> = settings
            .iter()
            .map(|setting| (*setting).to_owned())
            .collect();
        let program = spawn(&disk, port, &settings);
        let server = Self {
            program,
            disk,
            port,
            settings,
        };
        server.answers().await;
        server
    }

    /// The address of a new, empty database.
    pub async fn database(&self) -> String {
        let name = format!("sekali_{}", uuid::Uuid::new_v4().simple());
        execute(&self.url("postgres"), &format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// Removes a database that nobody uses any more.
    pub async fn drop_database(&self, url: &str) {
        let (_, name) = url.rsplit_once('/').unwrap();
        let statement = format!("DROP DATABASE {name} WITH (FORCE)");
        execute(&self.url("postgres"), &statement).await;
    }

    /// The process, to kill, stop and continue.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// The disk that it is on.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Starts it again as a standby: in recovery, and read-only, until it is promoted.
    pub async fn restart_as_standby(&mut self) {
        self.program.kill();
        let signal = self.disk.path().join("data/standby.signal");
        std::fs::write(signal, []).unwrap();
        self.restart().await;
    }

    /// Waits until it answers, starting it again if it has ended.
    pub async fn revive(&mut self) {
        until("postgres is up or gone", async || {
            self.is_up().await || self.program.has_ended()
        })
        .await;
        if self.program.has_ended() {
            self.restart().await;
        }
    }

    /// Kills it and removes its data.
    pub async fn lose(&mut self) {
        self.program.kill();
        let data = self.disk.path().join("data");
        // Its other processes write until they see that it is gone.
        until("its data is gone", async || {
            let _ = std::fs::remove_dir_all(&data);
            !data.exists()
        })
        .await;
    }

    /// Makes and starts one in place of that which was lost, on the same port.
    pub async fn replace(&mut self) {
        make_data(&self.disk);
        self.restart().await;
    }

    /// Starts it again with the same data on the same port.
    pub async fn restart(&mut self) {
        self.program.kill();
        let lock = self.disk.path().join("data/postmaster.pid");
        // Its other processes see that it is gone, and end; then a new one may start.
        until("postgres starts again", async || {
            let _ = std::fs::remove_file(&lock);
            self.program = spawn(&self.disk, self.port, &self.settings);
            until("postgres is up or gone", async || {
                self.is_up().await || self.program.has_ended()
            })
            .await;
            !self.program.has_ended()
        })
        .await;
    }

    /// The address of a database, for its superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Waits until it answers.
    pub async fn answers(&self) {
        until("postgres answers", async || self.is_up().await).await;
    }

    async fn is_up(&self) -> bool {
        PgConnection::connect(&self.url("postgres")).await.is_ok()
    }
}

fn make_data(disk: &Disk) {
    if let Some((user, group)) = server_user() {
        std::os::unix::fs::chown(disk.path(), Some(user), Some(group)).unwrap();
    }
    let made = command("find_program initdb")
        .args(["--auth=trust", "--username=postgres", "--encoding=UTF8"])
        .args(["--locale=C", "--no-sync"])
        // In MiB: a small disk is to hold some.
        .arg(format!(
            "--wal-segsize={}",
            if disk.is_small() { 1 } else { 16 }
        ))
        .arg("--pgdata")
        .arg(disk.path().join("data"))
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

fn spawn(disk: &Disk, port: u16, settings: &[String]) -> Program {
    let mut command = command("find_program postgres");
    command
        .arg("-D")
        .arg(disk.path().join("data"))
        .args(["-p", &port.to_string()])
        .args(["-c", "listen_addresses=127.0.0.1"])
        .args(["-c", "unix_socket_directories="])
        .args(["-c", "max_connections=200"])
        .stderr(Stdio::null());
    for setting in settings {
        command.args(["-c", setting]);
    }
    Program::spawn("postgres", &mut command)
}

fn command(search: &'static str) -> Command {
    let mut command = Command::new(find(search));
    // A directory that the other user may be in.
    command.current_dir("/").stdout(Stdio::null());
    if let Some((user, group)) = server_user() {
        command.uid(user).gid(group);
    }
    command
}

/// PostgreSQL refuses to run as root: the user for it, then.
fn server_user() -> Option<(u32, u32)> {
    let me = std::fs::metadata("/proc/self").ok()?;
    if std::os::unix::fs::MetadataExt::uid(&me) != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let ids = |name: &str| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody"))
}
