//! The same program, with the instants at which tests end it.

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
