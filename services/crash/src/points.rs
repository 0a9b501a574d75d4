use std::env::var_os;
use std::pin::pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// The process is at an instant of this name.
pub fn reach(name: &str) {
    static HAS_STOPPED: AtomicBool = AtomicBool::new(false);
    if is_at("CRASH_AT", name) {
        std::process::abort();
    }
    if is_at("STOP_AT", name) && !HAS_STOPPED.swap(true, Ordering::SeqCst) {
        let me = std::process::id().to_string();
        Command::new("kill")
            .args(["-STOP", &me])
            .status()
            .expect("there is a kill");
    }
}

/// Runs a future, and is at an instant of this name once it was polled.
pub async fn poll_once<F: Future>(name: &str, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut polled = false;
    std::future::poll_fn(|context| {
        let poll = future.as_mut().poll(context);
        if !std::mem::replace(&mut polled, true) {
            reach(name);
        }
        poll
    })
    .await
}

fn is_at(variable: &str, name: &str) -> bool {
    var_os(variable).is_some_and(|wanted| wanted == name)
}
