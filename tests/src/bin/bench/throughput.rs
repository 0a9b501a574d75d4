//! How many events it takes, and how soon it answers.

use tests::Sekali;
use tests::servers::Postgres;

use crate::load::Load;
use crate::table::{self, Bound, Table};
use crate::{POSTGRES, Plan, full, limit};

/// From the first request until every event is in PostgreSQL, and PostgreSQL alone.
pub(crate) async fn path(plan: &Plan, table: &mut Table) {
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
pub(crate) async fn single(plan: &Plan, table: &mut Table) {
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
pub(crate) async fn stored(plan: &Plan, table: &mut Table) {
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

/// One binary over an SQLite file.
pub(crate) async fn embedded(plan: &Plan, table: &mut Table) {
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
