//! The HTTP gateway of Sekali.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: aggregator::Args = lifecycle::parse();
    if args.print_openapi {
        return aggregator::openapi::print();
    }
    let process = args.process.clone();
    lifecycle::service("sekali-aggregator", &process, async |process| {
        aggregator::start(&process, args)
    })
}
