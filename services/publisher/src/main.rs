//! Sends load to Sekali and says what became of it.

use std::process::ExitCode;

use lifecycle::Program;

fn main() -> ExitCode {
    let args: publisher::Args = lifecycle::parse();
    let process = args.process.clone();
    let program = Program::traced("sekali-publisher", &["publisher"]);
    lifecycle::job(program, &process, async |process| {
        publisher::run(process, args).await
    })
}
