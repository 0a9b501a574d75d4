//! The same program, which acknowledges before it commits: see the feature of that name.

fn main() -> std::process::ExitCode {
    worker::main()
}
