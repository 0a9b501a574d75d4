//! PostgreSQL and Redis, found on this machine and run privately.
//!
//! One PostgreSQL serves all tests of a process, each with databases of its own; who kills
//! it starts one for itself. Every test has its own Redis.

mod postgres;
mod redis;

use std::net::TcpListener;
use std::path::PathBuf;

pub use postgres::{Postgres, database, execute};
pub use redis::Redis;

/// A port that is free at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
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
