//! The same program, with the instants at which tests end it.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: worker::Args = lifecycle::parse();
    let process = args.process.clone();
    lifecycle::service("sekali-worker", &process, async |process| {
        worker::start(&process, args)
    })
}
