//! Nothing lost, nothing twice, whatever dies: runs of random faults, each from a seed.
//!
//! A run is a whole installation of real processes under load, in which whatever a
//! `schedule` says goes wrong; when the faults are over everything is read back. `SEEDS`
//! says how many fresh seeds to run, `SEED` repeats one, `JOBS` runs so many at once.
//! Read `fault`, `schedule`, `world`, `inject` and `servers` (what is done), `verdict`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for the desk, that prints and says where it can't go on"
)]

mod fault;
mod inject;
mod journal;
mod run;
mod schedule;
mod sender;
mod servers;
mod verdict;
mod world;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use futures::{FutureExt as _, StreamExt as _};

use journal::Journal;
use schedule::Schedule;

#[tokio::main]
async fn main() -> ExitCode {
    let seeds = seeds();
    let jobs = number("JOBS").unwrap_or(2);
    println!("seeds: {seeds:?}");
    tests::binaries();
    let runs = futures::stream::iter(seeds.iter().map(|seed| one(*seed)));
    let failed: Vec<u64> = runs
        .buffer_unordered(usize::try_from(jobs).unwrap())
        .filter_map(async |failed| failed)
        .collect()
        .await;
    tell_faults(&seeds);
    if failed.is_empty() {
        println!("{} seeds: nothing lost, nothing twice", seeds.len());
        return ExitCode::SUCCESS;
    }
    for seed in &failed {
        println!("FAILED: repeat it with make chaos SEED={seed}");
    }
    ExitCode::FAILURE
}

/// Those to run: one that is told, or fresh ones.
fn seeds() -> Vec<u64> {
    if let Some(seed) = number("SEED") {
        return vec![seed];
    }
    let draw = || u64::from(uuid::Uuid::new_v4().as_fields().0);
    (0..number("SEEDS").unwrap_or(10)).map(|_| draw()).collect()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    (!text.is_empty()).then(|| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

/// Runs a seed, and returns it if it failed.
async fn one(seed: u64) -> Option<u64> {
    let journal = Journal::new();
    let run = AssertUnwindSafe(run::run(Schedule::of(seed), &journal));
    if run.catch_unwind().await.is_err() {
        journal.find("the run broke off; what is above says why");
    }
    let path = tests::binaries().join(format!("../chaos/seed-{seed}.log"));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, journal.all()).unwrap();
    let findings = journal.findings();
    if findings.is_empty() {
        println!("seed {seed}: good");
        return None;
    }
    println!("seed {seed}: BAD\n{}", journal.story());
    println!("all that its processes said is in {}", path.display());
    Some(seed)
}

/// How many faults of each kind there were.
fn tell_faults(seeds: &[u64]) {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let faults = seeds.iter().flat_map(|seed| Schedule::of(*seed).faults);
    for planned in faults {
        let name = match planned.place {
            fault::Place::Process(fault::Member::Gateway(_)) => "an aggregator",
            fault::Place::Process(fault::Member::Worker(_)) => "a worker",
            fault::Place::Sender(_) => "a publisher",
            fault::Place::Queue => "redis",
            fault::Place::Backend => "postgres",
            fault::Place::Line(_) => "on a line",
        };
        *counts
            .entry(format!("{} {name}", planned.fault))
            .or_default() += 1;
    }
    for (fault, count) in counts {
        println!("{count:6}  {fault}");
    }
}
