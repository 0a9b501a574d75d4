//! What runs: servers, our processes, and a bad network between any two of them.

use tests::servers::{Disk, Postgres, Redis, execute};
use tests::{Program, Proxy};

use crate::fault::Member;
use crate::journal::Journal;
use crate::schedule::CLAIM_IDLE;

/// How large the servers' disks are, in MiB.
const REDIS_DISK: u32 = 128;
const POSTGRES_DISK: u32 = 320;

/// Where nobody listens, so that connections to a process that is gone are refused: its
/// port may be another's by now.
const NOWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 1);

/// A whole installation.
pub(crate) struct World {
    pub(crate) redis: Redis,
    pub(crate) postgres: Postgres,
    /// In the order of `Member::ALL`, as are their lines.
    pub(crate) members: Vec<Process>,
    pub(crate) queue_lines: Vec<Proxy>,
    pub(crate) backend_lines: Vec<Proxy>,
    /// Of the gateways.
    pub(crate) doors: Vec<Proxy>,
}

/// One of our processes.
pub(crate) struct Process {
    pub(crate) member: Member,
    pub(crate) program: Program,
    arguments: Vec<String>,
    /// Workers that came in place of this one.
    replaced: usize,
}

impl World {
    pub(crate) async fn start() -> Self {
        let redis = Redis::start_on(disk(REDIS_DISK)).await;
        let settings = [
            "max_wal_size=32MB",
            "min_wal_size=4MB",
            "max_connections=100",
        ];
        let postgres = Postgres::start_on(disk(POSTGRES_DISK), &settings).await;
        // No superuser, so that what binds users binds Sekali.
        execute(&postgres.url("postgres"), "CREATE ROLE sekali LOGIN").await;
        execute(
            &postgres.url("postgres"),
            "CREATE DATABASE sekali OWNER sekali",
        )
        .await;
        let mut world = Self {
            redis,
            postgres,
            members: Vec::new(),
            doors: Vec::new(),
            queue_lines: Vec::new(),
            backend_lines: Vec::new(),
        };
        for member in Member::ALL {
            world.add(member).await;
        }
        world
    }

    async fn add(&mut self, member: Member) {
        let queue = Proxy::to(self.redis.address()).await;
        let backend = Proxy::to(self.postgres.address()).await;
        let mut arguments = vec![
            format!("--broker-url=redis://{}", queue.address()),
            format!(
                "--database-url=postgres://sekali@{}/sekali",
                backend.address()
            ),
            "--admin-addr=127.0.0.1:0".to_owned(),
        ];
        self.queue_lines.push(queue);
        self.backend_lines.push(backend);
        match member {
            Member::Gateway(_) => {
                arguments.push("--http-addr=127.0.0.1:0".to_owned());
                self.doors.push(Proxy::to(NOWHERE.into()).await);
            }
            Member::Worker(_) => {
                arguments.push(format!("--claim-idle-ms={}", CLAIM_IDLE.as_millis()));
            }
        }
        let mut process = Process {
            member,
            program: run(member, &arguments, 0),
            arguments,
            replaced: 0,
        };
        // Gateways come first, so that theirs is the last door.
        process.open(self.doors.last()).await;
        self.members.push(process);
    }
}

impl Process {
    /// SIGKILL. Who connects to it is refused from now on.
    pub(crate) fn kill(&mut self, door: Option<&Proxy>, journal: &Journal) {
        self.program.kill();
        self.gone(door, journal);
    }

    /// It has ended.
    pub(crate) fn gone(&self, door: Option<&Proxy>, journal: &Journal) {
        if let (Member::Gateway(_), Some(door)) = (self.member, door) {
            door.lead_to(NOWHERE.into());
        }
        journal.keep(&self.member.to_string(), &self.program.whole_log());
    }

    /// Starts it again.
    pub(crate) async fn come_back(&mut self, door: Option<&Proxy>) {
        self.program = run(self.member, &self.arguments, self.replaced);
        self.open(door).await;
    }

    /// Starts another in its place.
    pub(crate) async fn replace(&mut self, door: Option<&Proxy>) {
        self.replaced += 1;
        self.come_back(door).await;
    }

    /// Waits until it listens: told to end before that, it has nothing to drain, and ends by
    /// the signal.
    async fn open(&mut self, door: Option<&Proxy>) {
        self.program.address("admin").await;
        if let (Member::Gateway(_), Some(door)) = (self.member, door) {
            door.lead_to(self.program.address("http").await);
        }
    }
}

fn run(member: Member, arguments: &[String], replaced: usize) -> Program {
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let name = format!("--name={member}-{replaced}");
    match member {
        Member::Gateway(_) => Program::start("sekali-aggregator", &arguments),
        Member::Worker(_) => {
            arguments.push(&name);
            Program::start("sekali-worker", &arguments)
        }
    }
}

/// A small one, so that it can be full; where none can be had, faults of disks do nothing,
/// and say so.
fn disk(mib: u32) -> Disk {
    Disk::small(mib).unwrap_or_else(Disk::roomy)
}
