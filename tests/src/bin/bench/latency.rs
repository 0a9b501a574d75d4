//! How long questions take over a large table.

use std::time::Instant;

use tests::Sekali;

use crate::table::{Bound, Table};

/// How often each is asked; the p99 is the fifth slowest.
const SAMPLES: usize = 500;

pub(crate) async fn measure(sekali: &Sekali, table: &mut Table) {
    let at_most = Bound::AtMost(10.0);
    // At first much of what is asked for is on the disk alone.
    for which in ["for the first time", "again"] {
        let topic = p99(sekali, |n| format!("/events?topic=topic-{}", 1 + n % 1000)).await;
        let what = format!("GET /events?topic=, first page, {which}, p99");
        table.add(&what, "ms", topic, at_most);
    }
    let all = p99(sekali, |_| "/events".into()).await;
    table.add("GET /events, first page, p99", "ms", all, at_most);
    let deep = page_1000(sekali).await;
    let deep = p99(sekali, |_| deep.clone()).await;
    table.add(
        "GET /events, page 1,000 by cursor, p99",
        "ms",
        deep,
        at_most,
    );
    let stats = p99(sekali, |_| "/stats".into()).await;
    table.add("GET /stats, p99", "ms", stats, at_most);
}

/// The address of the page that comes after 999 others.
async fn page_1000(sekali: &Sekali) -> String {
    let mut path = "/events".to_owned();
    for _ in 1..1_000 {
        let answer = sekali.get(&path).await;
        let link = answer.header("link");
        link[1..link.find('>').unwrap()].clone_into(&mut path);
    }
    path
}

async fn p99(sekali: &Sekali, path: impl Fn(usize) -> String) -> f64 {
    let mut times = Vec::with_capacity(SAMPLES);
    for n in 0..SAMPLES {
        let path = path(n);
        let begun = Instant::now();
        let answer = sekali.get(&path).await;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    times.sort_by(f64::total_cmp);
    times[SAMPLES * 99 / 100]
}
