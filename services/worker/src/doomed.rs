//! The same program, with the instants at which tests end it.

fn main() -> std::process::ExitCode {
    worker::main()
}
