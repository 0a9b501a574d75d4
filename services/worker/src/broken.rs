//! The same program, which acknowledges before it commits: see the feature of that name.

use std::process::ExitCode;

use lifecycle::Program;

fn main() -> ExitCode {
    let args: worker::Args = lifecycle::parse();
    let process = args.process.clone();
    let program = Program::traced("sekali-worker");
    lifecycle::service(program, &process, async |process| {
        worker::start(&process, args)
    })
}
