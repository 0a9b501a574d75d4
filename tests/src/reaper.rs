//! What ends everything that the tests have started, should they end without doing so.
//!
//! A shell reads what is to be ended from a pipe that only this process writes to. However
//! this process ends, the pipe ends with it, and the shell does its work.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use tempfile::TempDir;

const SCRIPT: &str = r#"
trap '' INT TERM
without() { printf '%s' "$1" | tr ' ' '\n' | grep -vxe "$2" | tr '\n' ' '; }
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
    # Some are groups of processes: those have a sign.
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

/// Runs a program to its end. It ends with what it has started, should the tests end before.
pub(crate) fn output(command: &mut Command) -> Output {
    let child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let group = child.id();
    tell(&format!("kill -{group}"));
    let output = child.wait_with_output().unwrap();
    tell(&format!("spare -{group}"));
    output
}

/// A new directory, which goes away with the value, or when the tests end.
pub fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    // Its name has no spaces.
    tell(&format!("remove {}", directory.path().display()));
    directory
}

fn tell(line: &str) {
    let mut stdin = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(stdin, "{line}").expect("the reaper lives as long as the tests");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Program, until};

    /// Where the tests that are killed, which are this one in a process of its own, say what
    /// they have started.
    const SAY: &str = "REAPED_TESTS_SAY";

    #[tokio::test]
    async fn tests_that_are_killed_leave_no_directory_and_no_process() {
        let own = directory();
        if let Some(path) = std::env::var_os(SAY) {
            let script = r#"sleep 600 & echo "$PWD $$ $!" >"$0"; wait"#;
            let mut shell = Command::new("bash");
            shell.args(["-c", script]).arg(path).current_dir(&own);
            output(&mut shell);
            panic!("it ends before it is killed");
        }
        let path = own.path().join("said");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("tests_that_are_killed").env(SAY, &path);
        let mut killed = Program::spawn("tests", command.stdout(Stdio::null()));
        let mut said = String::new();
        until("they have started a shell", async || {
            said = std::fs::read_to_string(&path).unwrap_or_default();
            said.ends_with('\n')
        })
        .await;
        killed.kill();
        let words: Vec<_> = said.split_whitespace().collect();
        let [directory, processes @ ..] = &words[..] else {
            panic!("{said}");
        };
        until("nothing of them is left", async || {
            // Where nobody waits for it, what has ended stays in the table, without a command.
            let is_running = |id: &&str| {
                let command = std::fs::read(format!("/proc/{id}/cmdline"));
                command.is_ok_and(|command| !command.is_empty())
            };
            !Path::new(directory).exists() && !processes.iter().any(is_running)
        })
        .await;
        assert_eq!(processes.len(), 2);
    }
}
