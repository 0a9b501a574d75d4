//! Faults of Redis and PostgreSQL.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use tests::servers::{Postgres, Redis, execute};

use crate::fault::{Backend, Fault, Queue};
use crate::journal::Journal;
use crate::schedule::Planned;

/// How often what is done again and again is done.
const AGAIN: Duration = Duration::from_millis(40);

/// Does what is planned for Redis.
pub(crate) async fn queue(redis: &mut Redis, faults: &[Planned], journal: &Journal) {
    for planned in faults {
        let Fault::Queue(fault) = planned.fault else {
            continue;
        };
        journal.reach(planned.at).await;
        journal.tell(&format!("{} {}", planned.fault, planned.place));
        of_queue(redis, fault, planned.lasts, journal).await;
        journal.tell(&format!("over: {} {}", planned.fault, planned.place));
    }
}

async fn of_queue(redis: &mut Redis, fault: Queue, lasts: Duration, journal: &Journal) {
    match fault {
        Queue::Kill => {
            redis.program().kill();
            tokio::time::sleep(lasts).await;
            redis.restart().await;
        }
        Queue::KillRewriting => {
            redis.command(&["BGREWRITEAOF"]);
            redis.program().kill();
            tokio::time::sleep(lasts).await;
            redis.restart().await;
        }
        Queue::Terminate => {
            redis.program().terminate().await;
            tokio::time::sleep(lasts).await;
            redis.restart().await;
        }
        Queue::Stop => {
            redis.program().signal("STOP");
            tokio::time::sleep(lasts).await;
            redis.program().signal("CONT");
        }
        Queue::Full => {
            redis.set("maxmemory", "1");
            tokio::time::sleep(lasts).await;
            redis.set("maxmemory", "0");
        }
        Queue::DiskFull if redis.disk().is_small() => {
            redis.disk().fill();
            tokio::time::sleep(lasts).await;
            redis.disk().empty();
            redis.revive().await;
        }
        Queue::DiskFull => journal.tell("left out: no small disk can be mounted here"),
        Queue::Disconnect => {
            let end = Instant::now() + lasts;
            while Instant::now() < end {
                redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Does what is planned for PostgreSQL.
pub(crate) async fn backend(postgres: &mut Postgres, faults: &[Planned], journal: &Journal) {
    for planned in faults {
        let Fault::Backend(fault) = planned.fault else {
            continue;
        };
        journal.reach(planned.at).await;
        journal.tell(&format!("{} {}", planned.fault, planned.place));
        of_backend(postgres, fault, planned, journal).await;
        journal.tell(&format!("over: {} {}", planned.fault, planned.place));
    }
}

async fn of_backend(postgres: &mut Postgres, fault: Backend, planned: &Planned, journal: &Journal) {
    let lasts = planned.lasts;
    match fault {
        Backend::Kill => {
            postgres.program().kill();
            tokio::time::sleep(lasts).await;
            postgres.restart().await;
        }
        Backend::Terminate => {
            shut_down(postgres).await;
            tokio::time::sleep(lasts).await;
            postgres.restart().await;
        }
        Backend::Recovery => {
            shut_down(postgres).await;
            postgres.restart_as_standby().await;
            tokio::time::sleep(lasts).await;
            admin(postgres, "SELECT pg_promote()").await;
        }
        Backend::Stop => {
            let children = postgres.program().children();
            postgres.program().signal("STOP");
            signal(&children, "STOP");
            tokio::time::sleep(lasts).await;
            signal(&children, "CONT");
            postgres.program().signal("CONT");
        }
        Backend::Crash => {
            signal(&one_process(postgres).await, "KILL");
            postgres.answers().await;
        }
        Backend::StopOne => {
            let process = one_process(postgres).await;
            signal(&process, "STOP");
            tokio::time::sleep(lasts).await;
            signal(&process, "CONT");
        }
        Backend::DiskFull if postgres.disk().is_small() => {
            postgres.disk().fill();
            tokio::time::sleep(lasts).await;
            postgres.disk().empty();
            postgres.revive().await;
        }
        Backend::DiskFull => journal.tell("left out: no small disk can be mounted here"),
        Backend::ReadOnly => {
            let set = "ALTER SYSTEM SET default_transaction_read_only = on";
            let reset = "ALTER SYSTEM RESET default_transaction_read_only";
            reload(postgres, set).await;
            tokio::time::sleep(lasts).await;
            reload(postgres, reset).await;
        }
        Backend::Crowded => {
            admin(postgres, "ALTER ROLE sekali CONNECTION LIMIT 0").await;
            admin(postgres, DISCONNECT).await;
            tokio::time::sleep(lasts).await;
            admin(postgres, "ALTER ROLE sekali CONNECTION LIMIT -1").await;
        }
        Backend::Locked => lock(postgres, planned).await,
        Backend::Cancel => again_and_again(postgres, CANCEL, lasts).await,
        Backend::Disconnect => again_and_again(postgres, DISCONNECT, lasts).await,
    }
}

const CANCEL: &str = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
     WHERE usename = 'sekali' AND state = 'active'";

const DISCONNECT: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sekali'";

/// A fast shutdown, which waits for nobody.
async fn shut_down(postgres: &mut Postgres) {
    postgres.program().signal("INT");
    postgres.program().ended().await;
}

async fn again_and_again(postgres: &Postgres, statement: &str, lasts: Duration) {
    let end = Instant::now() + lasts;
    while Instant::now() < end {
        admin(postgres, statement).await;
        tokio::time::sleep(AGAIN).await;
    }
}

/// An outsider locks one of the tables.
async fn lock(postgres: &Postgres, planned: &Planned) {
    let tables = ["events", "batches", "counters", "topics"];
    let table = tables[planned.at.subsec_millis() as usize % tables.len()];
    let mut outsider = connect(postgres).await;
    let statement = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(&mut outsider)
        .await
        .unwrap();
    tokio::time::sleep(planned.lasts).await;
    outsider.close().await.unwrap();
}

/// One of the server's processes that work for Sekali, if there is any.
async fn one_process(postgres: &Postgres) -> Vec<u32> {
    let mut connection = connect(postgres).await;
    let pid: Option<i32> = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE usename = 'sekali'
         ORDER BY state = 'active' DESC, pid LIMIT 1",
    )
    .fetch_optional(&mut connection)
    .await
    .unwrap();
    pid.and_then(|pid| u32::try_from(pid).ok())
        .into_iter()
        .collect()
}

async fn reload(postgres: &Postgres, statement: &str) {
    admin(postgres, statement).await;
    admin(postgres, "SELECT pg_reload_conf()").await;
}

/// Asks as the superuser, past every proxy.
async fn admin(postgres: &Postgres, statement: &str) {
    execute(&postgres.url("sekali"), statement).await;
}

async fn connect(postgres: &Postgres) -> PgConnection {
    PgConnection::connect(&postgres.url("sekali"))
        .await
        .unwrap()
}

/// A process may have ended since it was looked up.
fn signal(processes: &[u32], name: &str) {
    for process in processes {
        let _ = std::process::Command::new("kill")
            .args([format!("-{name}"), process.to_string()])
            .stderr(std::process::Stdio::null())
            .status();
    }
}
