//! PostgreSQL and Redis, found on this machine and run privately.
//!
//! One PostgreSQL serves all tests of a process, each with databases of its own; who kills
//! it starts one for itself. Every test has its own Redis.

mod disk;
mod postgres;
mod prometheus;
mod redis;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

pub use disk::Disk;
pub use postgres::{Postgres, cut_off, database, execute, somebody_waits, somebody_waits_to};
pub use prometheus::Prometheus;
pub use redis::Redis;

/// Ports that the kernel gives nobody by itself (it begins at 32768), so that a server that
/// is started again finds its own still free.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A port that is free, and that nobody else in this process is given.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let draw = u16::from_ne_bytes(*uuid::Uuid::new_v4().as_bytes().first_chunk().unwrap());
        AtomicU16::new(draw)
    });
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + number % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The path of a program, where the scripts find it: `search` is one of their functions, with
/// what it is told.
pub(crate) fn find(search: &'static str) -> PathBuf {
    static FOUND: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let path = found.entry(search).or_insert_with(|| {
        let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/lib.sh");
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!(". {scripts} && {search}")]);
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{search}: run scripts/servers");
        String::from_utf8(output.stdout).unwrap().trim_end().into()
    });
    path.clone()
}
