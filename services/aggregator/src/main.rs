//! The HTTP gateway of Sekali.

use std::process::ExitCode;

use lifecycle::Program;

fn main() -> ExitCode {
    let args: aggregator::Args = lifecycle::parse();
    if args.print_openapi {
        return aggregator::openapi::print();
    }
    let process = args.process.clone();
    let program = Program::traced("sekali-aggregator");
    lifecycle::service(program, &process, async |process| {
        aggregator::start(&process, args)
    })
}
