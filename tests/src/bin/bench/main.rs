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

mod latency;
mod limit;
mod load;
mod recovery;
mod table;
mod telemetry;

use std::path::PathBuf;

use tests::Sekali;
use tests::servers::Postgres;

use load::Load;
use table::{Bound, Table};

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
        path(&plan, &mut table).await;
    }
    if plan.wants("single") {
        single(&plan, &mut table).await;
    }
    if plan.wants("stored") {
        stored(&plan, &mut table).await;
    }
    if plan.wants("embedded") {
        embedded(&plan, &mut table).await;
    }
    if plan.wants("memory") {
        memory(&plan, &mut table).await;
    }
    if plan.wants("large") {
        large(&plan, &mut table).await;
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

/// From the first request until every event is in PostgreSQL, and PostgreSQL alone.
async fn path(plan: &Plan, table: &mut Table) {
    let postgres = Postgres::start(POSTGRES).await;
    let (mut bare, mut whole) = (Vec::new(), Vec::new());
    for run in 0..plan.runs {
        bare.push(limit::rate(&postgres.database().await, plan.events, run as u64).await);
        let sekali = full(&postgres).await;
        let load = Load::new(plan.events).batch(100).seed(run as u64);
        whole.push(load.run(&sekali).await.end_to_end);
        eprintln!("   bare {:.0}/s, whole {:.0}/s", bare[run], whole[run]);
    }
    let (bare, whole) = (table::median(bare), table::median(whole));
    table.add(
        "bare PostgreSQL, batches of 2,000, 2 connections",
        "events/s",
        bare,
        Bound::None,
    );
    table.add(
        "end to end, batches of 100",
        "events/s",
        whole,
        Bound::AtLeast(80_000.0),
    );
    table.add(
        "end to end / bare PostgreSQL",
        "",
        whole / bare,
        Bound::AtLeast(0.6),
    );
}

/// Requests of one event each.
async fn single(plan: &Plan, table: &mut Table) {
    let postgres = Postgres::start(POSTGRES).await;
    let mut rates = Vec::new();
    for run in 0..plan.runs {
        let sekali = full(&postgres).await;
        let load = Load::new(plan.events / 2).concurrency(256).seed(run as u64);
        rates.push(load.run(&sekali).await.acknowledged);
        eprintln!("   {:.0}/s", rates[run]);
    }
    let rate = table::median(rates);
    table.add(
        "requests of one event, 256 senders, acknowledged",
        "/s",
        rate,
        Bound::AtLeast(25_000.0),
    );
}

/// Answers after the commit, at half of what they reach without a limit.
async fn stored(plan: &Plan, table: &mut Table) {
    let postgres = Postgres::start(POSTGRES).await;
    let mut waits = Vec::new();
    for run in 0..plan.runs {
        let sekali = full(&postgres).await;
        let most = Load::new(plan.events / 2)
            .batch(100)
            .stored()
            .seed(run as u64);
        let most = most.run(&sekali).await.acknowledged;
        let half = Load::new(plan.events / 4)
            .batch(100)
            .stored()
            .rate(most / 2.0);
        let half = half.seed(run as u64 + 1000).run(&sekali).await;
        eprintln!(
            "   at most {most:.0}/s; at half of it p99 {:.1} ms",
            half.p99_ms
        );
        waits.push(half.p99_ms);
    }
    let wait = table::median(waits);
    table.add(
        "ack=stored, batches of 100, p99 at half of its maximum",
        "ms",
        wait,
        Bound::AtMost(10.0),
    );
}

async fn embedded(plan: &Plan, table: &mut Table) {
    let (mut empty, mut million) = (Vec::new(), Vec::new());
    for run in 0..plan.runs {
        let sekali = Sekali::embedded().await;
        let load = |seed| {
            let load = Load::new(plan.events / 2).batch(100).concurrency(64);
            load.seed(seed)
        };
        empty.push(load(run as u64).run(&sekali).await.acknowledged);
        let fill = Load::new(1_200_000).batch(500).seed(500 + run as u64);
        fill.run(&sekali).await;
        million.push(load(900 + run as u64).run(&sekali).await.acknowledged);
        eprintln!(
            "   empty {:.0}/s, with a million {:.0}/s",
            empty[run], million[run]
        );
    }
    table.add(
        "embedded, batches of 100, empty file",
        "events/s",
        table::median(empty),
        Bound::AtLeast(60_000.0),
    );
    table.add(
        "embedded, batches of 100, 1 M rows in it",
        "events/s",
        table::median(million),
        Bound::AtLeast(40_000.0),
    );
}

/// What processes hold under load, with a backlog, with large bodies, and what they use
/// with nothing to do.
async fn memory(plan: &Plan, table: &mut Table) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let postgres = Postgres::start(POSTGRES).await;
    let mut sekali = full(&postgres).await;
    let (gateway, worker) = (sekali.gateway(0).id(), sekali.worker(0).id());
    let idle_from = load::cpu_seconds(gateway) + load::cpu_seconds(worker);
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let idle = load::cpu_seconds(gateway) + load::cpu_seconds(worker) - idle_from;
    table.add(
        "a gateway and a worker with nothing to do, of a core",
        "%",
        idle * 10.0,
        Bound::AtMost(2.0),
    );

    for number in 0..2 {
        sekali.worker(number).signal("STOP");
    }
    let backlog = Load::new(1_000_000).batch(100).without_waiting();
    backlog.run(&sekali).await;
    for number in 0..2 {
        sekali.worker(number).signal("CONT");
    }
    Load::new(plan.events).batch(100).seed(7).run(&sekali).await;
    let (gateway, worker) = (load::peak_memory(gateway), load::peak_memory(worker));
    table.add(
        "gateway at its peak, full load and a backlog of 1 M",
        "MiB",
        mib(gateway),
        Bound::AtMost(100.0),
    );
    table.add(
        "worker at its peak, full load and a backlog of 1 M",
        "MiB",
        mib(worker),
        Bound::AtMost(100.0),
    );

    let mut sekali = Sekali::full(1).await;
    load::large_bodies(&sekali).await;
    let peak = load::peak_memory(sekali.gateway(0).id());
    table.add(
        "gateway at its peak, 64 senders of 8 MiB",
        "MiB",
        mib(peak),
        Bound::AtMost(256.0),
    );
}

/// A table of many rows.
async fn large(plan: &Plan, table: &mut Table) {
    let postgres = Postgres::start(POSTGRES).await;
    for ids in ["v4", "v7"] {
        let (mut small, mut big) = (Vec::new(), Vec::new());
        let small_url = limit::filled(&postgres, plan.rows / 20, ids).await;
        let big_url = limit::filled(&postgres, plan.rows, ids).await;
        let over_small = Sekali::full_over(small_url, 2).await;
        let over_big = Sekali::full_over(big_url.clone(), 2).await;
        for run in 0..plan.runs {
            let load = |seed| Load::new(plan.events).batch(100).ids(ids).seed(seed);
            small.push(load(run as u64).run(&over_small).await.end_to_end);
            big.push(load(run as u64 + 100).run(&over_big).await.end_to_end);
            eprintln!(
                "   {ids}: small {:.0}/s, large {:.0}/s",
                small[run], big[run]
            );
        }
        let (small, big) = (table::median(small), table::median(big));
        let least = if ids == "v4" { 0.6 } else { 0.8 };
        table.add(
            &format!("{ids}: into a table of {} M rows", plan.rows / 20_000_000),
            "events/s",
            small,
            Bound::None,
        );
        table.add(
            &format!("{ids}: into a table of {} M rows", plan.rows / 1_000_000),
            "events/s",
            big,
            Bound::None,
        );
        table.add(
            &format!("{ids}: large / small"),
            "",
            big / small,
            Bound::AtLeast(least),
        );
        if ids == "v4" {
            latency::measure(&over_big, table).await;
        }
        drop((over_small, over_big));
        postgres.drop_database(&big_url).await;
    }
}
