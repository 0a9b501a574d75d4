//! The HTTP gateway of Sekali.

fn main() -> std::process::ExitCode {
    aggregator::main()
}
