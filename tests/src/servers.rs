//! PostgreSQL and Redis, found on this machine and run privately.
//!
//! One PostgreSQL serves all tests of a process, each with databases of its own; who kills
//! it starts one for itself. Every test has its own Redis.

mod disk;
mod postgres;
mod prometheus;
mod redis;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

pub use disk::Disk;
pub use postgres::{Postgres, cut_off, database, execute, somebody_waits};
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

/// Finds one of these programs, the first if there are several, in PATH or in one of these
/// directories, of which the last is tried first: they are sorted by version.
fn find(programs: &[&str], elsewhere: &[PathBuf]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = elsewhere.iter().rev().cloned();
    let places: Vec<_> = places.chain(std::env::split_paths(&path)).collect();
    programs
        .iter()
        .flat_map(|program| places.iter().map(move |place| place.join(program)))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("there is no {}: run scripts/servers", programs[0]))
}
