//! A table of many rows.

use tests::Sekali;
use tests::servers::Postgres;

use crate::load::Load;
use crate::table::{self, Bound, Table};
use crate::{POSTGRES, Plan, latency, limit};

pub(crate) async fn measure(plan: &Plan, table: &mut Table) {
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
