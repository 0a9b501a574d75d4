//! Sends load to Sekali and says what became of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: publisher::Args = lifecycle::parse();
    let process = args.process.clone();
    lifecycle::job("sekali-publisher", &process, async |process| {
        publisher::run(process, args).await
    })
}
