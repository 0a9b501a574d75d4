//! What processes hold under load, with a backlog, with large bodies, and what they use
//! with nothing to do.

use std::time::Duration;

use tests::Sekali;
use tests::servers::Postgres;

use crate::load::{Load, cpu_seconds};
use crate::table::{Bound, Table};
use crate::{POSTGRES, Plan, full};

pub(crate) async fn measure(plan: &Plan, table: &mut Table) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let postgres = Postgres::start(POSTGRES).await;
    let mut sekali = full(&postgres).await;
    let (gateway, worker) = (sekali.gateway(0).id(), sekali.worker(0).id());
    let idle_from = cpu_seconds(gateway) + cpu_seconds(worker);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let idle = cpu_seconds(gateway) + cpu_seconds(worker) - idle_from;
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
    let (gateway, worker) = (peak_memory(gateway), peak_memory(worker));
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
    large_bodies(&sekali).await;
    let peak = peak_memory(sekali.gateway(0).id());
    table.add(
        "gateway at its peak, 64 senders of 8 MiB",
        "MiB",
        mib(peak),
        Bound::AtMost(256.0),
    );
}

/// 64 senders of bodies as large as may be, for some rounds.
async fn large_bodies(sekali: &Sekali) {
    let event = serde_json::json!({
        "topic": "large", "event_id": "@", "timestamp": "2026-01-01T00:00:00Z",
        "source": "bench", "payload": {"filler": "x".repeat(1000)},
    })
    .to_string();
    let send = async |sender: usize| {
        for round in 0..5 {
            let body: String = (0..7_000)
                .map(|n| event.replace('@', &format!("{sender}-{round}-{n}")) + "\n")
                .collect();
            let answer = sekali.publish_bytes("", "application/x-ndjson", body).await;
            assert!([200, 503].contains(&answer.status), "{}", answer.body);
        }
    };
    futures::future::join_all((0..64).map(send)).await;
}

/// The most memory that a process ever held, in bytes.
fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}
