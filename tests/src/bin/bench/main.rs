//! The figures of `docs/performance.md`, measured on this machine.
//!
//! Every figure stands beside what it is to be compared with, measured in the same run and
//! in turns, since a machine may get slower by a third within an hour. Servers, programs
//! and client share the machine.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a program for the desk, that prints and says where it can't go on"
)]

mod large;
mod latency;
mod limit;
mod load;
mod memory;
mod recovery;
mod table;
mod telemetry;
mod throughput;

use std::path::PathBuf;

use tests::Sekali;
use tests::servers::Postgres;

use table::Table;

/// Settings of PostgreSQL besides its defaults; it syncs every commit.
const POSTGRES: &[&str] = &[
    "shared_buffers=1GB",
    "maintenance_work_mem=1GB",
    "max_wal_size=8GB",
    "checkpoint_timeout=15min",
];

/// What to measure and how much of it.
struct Plan {
    runs: usize,
    events: u64,
    /// Rows in the large table; the small one has a twentieth.
    rows: u64,
    only: Option<String>,
}

impl Plan {
    fn read() -> Self {
        let number = |name: &str, default: u64| {
            std::env::var(name).map_or(default, |text| text.parse().unwrap())
        };
        Self {
            runs: usize::try_from(number("RUNS", 5)).unwrap(),
            events: number("EVENTS", 400_000),
            rows: number("ROWS", 20_000_000),
            only: std::env::var("ONLY").ok(),
        }
    }

    fn wants(&self, part: &str) -> bool {
        let wanted = self.only.as_deref().is_none_or(|only| only == part);
        if wanted {
            eprintln!("-- {part}");
        }
        wanted
    }
}

#[tokio::main]
async fn main() {
    let plan = Plan::read();
    let mut table = Table::default();
    if plan.wants("path") {
        throughput::path(&plan, &mut table).await;
    }
    if plan.wants("single") {
        throughput::single(&plan, &mut table).await;
    }
    if plan.wants("stored") {
        throughput::stored(&plan, &mut table).await;
    }
    if plan.wants("embedded") {
        throughput::embedded(&plan, &mut table).await;
    }
    if plan.wants("memory") {
        memory::measure(&plan, &mut table).await;
    }
    if plan.wants("large") {
        large::measure(&plan, &mut table).await;
    }
    if plan.wants("recovery") {
        recovery::measure(plan.runs, &mut table).await;
    }
    if plan.wants("telemetry") {
        telemetry::measure(&plan, &mut table).await;
    }
    table.print();
    let path = std::env::var_os("REPORT").map(PathBuf::from);
    if let Some(path) = path {
        std::fs::write(path, table.json()).unwrap();
    }
}

/// A whole Sekali with two workers over a PostgreSQL that syncs.
async fn full(postgres: &Postgres) -> Sekali {
    Sekali::full_over(postgres.database().await, 2).await
}
