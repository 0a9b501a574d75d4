//! The same program, with the instants at which tests end it.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: aggregator::Args = lifecycle::parse();
    let process = args.process.clone();
    lifecycle::service("sekali-aggregator", &process, async |process| {
        aggregator::start(&process, args)
    })
}
