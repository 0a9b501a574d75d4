//! Runs the day-two work of Sekali in a cluster: scales workers, and tries the promise.
//!
//! It guarantees that what it does follows from what stands in the cluster, so that it may
//! be killed at any instant and goes on where it was; that it decides nothing about workers
//! while the books can't be read or somebody else scales them; and that a run passes only if
//! every publisher read everything back and every fault was injected. It never reaches
//! behind a gateway: it asks over HTTP like anyone else, and it knows no crate of ours but
//! `lifecycle`. Nothing but this crate names `kube`.
//!
//! Read it in this order:
//!
//! 1. `resources`: what a user says, and what is answered.
//! 2. `pipeline`: `desired` and `decide`, which are pure, then the controller around them.
//! 3. `chaos`: `decide`, `schedule`, `job` and `verdict`, which are pure; `observe` and
//!    `cleanup`; the controller.
//! 4. `controller`, `context`, `conditions`, `time`, `lease`: what both controllers stand on.
//! 5. `serve` and `errand`: what the program does.

pub mod args;
mod chaos;
mod conditions;
mod context;
mod controller;
mod errand;
mod error;
#[cfg(test)]
mod fixtures;
mod gateway;
mod lease;
mod metrics;
mod pipeline;
pub mod resources;
mod serve;
mod time;

use std::process::ExitCode;

pub use args::Args;
use args::Command;
use lifecycle::Program;

/// Does what it is told, and says how that ended.
pub fn run(args: Args) -> ExitCode {
    let Args { command, process } = args;
    let program = Program::untraced("sekali-operator");
    match command {
        Command::Serve(args) => lifecycle::service(program, &process, async |process| {
            serve::start(&process, args).await
        }),
        Command::Crds => lifecycle::job(program, &process, async |_| errand::print_crds()),
        Command::Await(args) => lifecycle::job(program, &process, async |process| {
            errand::wait(&process, args).await
        }),
        Command::Retire(args) => lifecycle::job(program, &process, async |process| {
            errand::retire(&process, args).await
        }),
    }
}
