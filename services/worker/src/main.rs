//! Moves events from the queue into the store.

fn main() -> std::process::ExitCode {
    worker::main()
}
