//! What it costs to be looked at: traces of one request in a hundred, and a scrape a second of
//! every process. (Metrics are always counted; what the other side is spared is that somebody
//! reads them.)

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tests::Sekali;
use tests::otlp::{Manner, Receiver};
use tests::servers::Postgres;
use tokio::task::JoinSet;

use crate::load::Load;
use crate::table::{self, Bound, Table};
use crate::{POSTGRES, Plan};

/// The least that is to be left of the throughput.
const LEAST: f64 = 0.97;

/// How long each scrape took, in milliseconds.
type Scrapes = Arc<Mutex<Vec<f64>>>;

/// Runs without and with, in turns.
pub(crate) async fn measure(plan: &Plan, table: &mut Table) {
    let postgres = Postgres::start(POSTGRES).await;
    let receiver = Receiver::start(Manner::Willing).await;
    let mut variables = receiver.variables("grpc");
    let sampler = [
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
    ];
    variables.extend(sampler.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let scrapes = Scrapes::default();
    for (what, batch) in [("batches of 100", 100), ("requests of one event", 1)] {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for run in 0..plan.runs {
            // Each is the first as often as the other.
            for is_watched in [run % 2 == 0, run % 2 != 0] {
                let database = postgres.database().await;
                let flags = if is_watched { &variables[..] } else { &[] };
                let mut sekali = Sekali::full_over_in(database, 2, flags).await;
                let mut tasks = JoinSet::new();
                if is_watched {
                    tasks.spawn(scrape(targets(&mut sekali).await, Arc::clone(&scrapes)));
                }
                let rate = rate(plan, batch, run, &sekali).await;
                if is_watched { &mut with } else { &mut without }.push(rate);
            }
            eprintln!(
                "   {what}: without {:.0}/s, with {:.0}/s",
                without[run], with[run]
            );
        }
        let (without, with) = (table::median(without), table::median(with));
        table.add(
            &format!("{what}, nobody looks"),
            "events/s",
            without,
            Bound::None,
        );
        table.add(
            &format!("{what}, traces of 1 % and a scrape a second / nobody looks"),
            "",
            with / without,
            Bound::AtLeast(LEAST),
        );
    }
    assert!(!receiver.spans().is_empty(), "nothing was traced");
    let mut scrapes = scrapes
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    scrapes.sort_by(f64::total_cmp);
    eprintln!("   {} scrapes", scrapes.len());
    let (half, p99) = (
        scrapes[scrapes.len() / 2],
        scrapes[scrapes.len() * 99 / 100],
    );
    table.add("a scrape under full load, median", "ms", half, Bound::None);
    table.add(
        "a scrape under full load, p99",
        "ms",
        p99,
        Bound::AtMost(10.0),
    );
}

async fn rate(plan: &Plan, batch: u16, run: usize, sekali: &Sekali) -> f64 {
    let seed = run as u64;
    if batch == 1 {
        let load = Load::new(plan.events / 2).concurrency(256).seed(seed);
        load.run(sekali).await.acknowledged
    } else {
        let load = Load::new(plan.events).batch(batch).seed(seed);
        load.run(sekali).await.end_to_end
    }
}

async fn targets(sekali: &mut Sekali) -> Vec<SocketAddr> {
    let mut targets = vec![sekali.gateway(0).address("admin").await];
    for worker in 0..2 {
        targets.push(sekali.worker(worker).address("admin").await);
    }
    targets
}

/// Scrapes every second, until it is dropped.
async fn scrape(targets: Vec<SocketAddr>, scrapes: Scrapes) {
    let client = reqwest::Client::new();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        for target in &targets {
            let begun = Instant::now();
            let answer = client.get(format!("http://{target}/metrics")).send().await;
            let text = answer.unwrap().text().await.unwrap();
            assert!(text.contains("sekali_build_info"), "{text}");
            let took = begun.elapsed().as_secs_f64() * 1e3;
            scrapes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(took);
        }
    }
}
