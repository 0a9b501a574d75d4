//! What ends everything that the tests have started, should they end without doing so.
//!
//! A shell reads what is to be ended from a pipe that only this process writes to. However
//! this process ends, the pipe ends with it, and the shell does its work.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

const SCRIPT: &str = r#"
trap '' INT TERM
without() { printf '%s' "$1" | tr ' ' '\n' | grep -vx "$2" | tr '\n' ' '; }
while read -r verb what; do
    case $verb in
        kill) pids="$pids $what" ;;
        terminate) scripts="$scripts $what" ;;
        spare)
            pids=$(without "$pids" "$what")
            scripts=$(without "$scripts" "$what")
            ;;
        remove) paths="$paths $what" ;;
    esac
done
for pid in $scripts; do kill -TERM "$pid"; done
for pid in $pids; do
    for child in $(cat "/proc/$pid/task/$pid/children"); do kill -CONT "$child"; done
    kill -CONT "$pid"
    kill -QUIT "$pid"
done
sleep 0.3
for pid in $pids; do kill -KILL "$pid"; done
for path in $paths; do
    # Some are file systems of their own.
    umount -l "$path"
    rm -rf "$path"
done
tenths=0
for pid in $scripts; do
    while kill -0 "$pid" && [ "$tenths" -lt 300 ]; do
        tenths=$((tenths + 1))
        sleep 0.1
    done
    kill -KILL "$pid"
done
"#;

#[expect(
    clippy::zombie_processes,
    reason = "it ends after this process, which is what it is for"
)]
static REAPER: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    let mut shell = Command::new("sh")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("there is a shell");
    Mutex::new(shell.stdin.take().expect("it is piped"))
});

/// Ends this process when the tests end.
pub(crate) fn kill(child: &Child) {
    tell(&format!("kill {}", child.id()));
}

/// Tells this process to end when the tests end, and kills it if it has not after a while.
pub(crate) fn terminate(child: &Child) {
    tell(&format!("terminate {}", child.id()));
}

/// This process has ended; its number may be another's by now.
pub(crate) fn spare(child: &Child) {
    tell(&format!("spare {}", child.id()));
}

/// Removes this directory when the tests end. Its name has no spaces.
pub(crate) fn remove(path: &Path) {
    tell(&format!("remove {}", path.display()));
}

fn tell(line: &str) {
    let mut stdin = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(stdin, "{line}").expect("the reaper lives as long as the tests");
}
