//! Runs the day-two work of Sekali in a cluster.

use std::process::ExitCode;

fn main() -> ExitCode {
    operator::run(lifecycle::parse())
}
