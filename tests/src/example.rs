//! The commands of a page of documentation, run as whoever reads it would.

use std::path::Path;
use std::process::{Command, Output};

use crate::{reaper, servers};

/// A command, and what is said to come of it.
pub struct Example {
    /// What the shell gets.
    pub command: String,
    /// The lines under it.
    pub output: Vec<String>,
}

/// What stands in the blocks of a kind, such as `console`.
pub fn blocks<'p>(page: &'p str, kind: &str) -> Vec<&'p str> {
    let fence = format!("```{kind}\n");
    // An iterator would borrow the fence.
    let blocks = page.split(fence.as_str()).skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap())
        .collect()
}

/// The examples of a block of a console.
pub fn examples(block: &str) -> Vec<Example> {
    let mut examples = Vec::<Example>::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            examples.push(Example {
                command: command.to_owned(),
                output: Vec::new(),
            });
            continue;
        }
        let Some(example) = examples.last_mut() else {
            continue;
        };
        if example.output.is_empty() && !is_whole(&example.command) {
            example.command = format!("{}\n{line}", example.command);
        } else if !line.is_empty() {
            example.output.push(line.to_owned());
        }
    }
    examples
}

/// Whether a shell would begin, or wait for more.
fn is_whole(command: &str) -> bool {
    let check = Command::new("bash").args(["-n", "-c", command]).output();
    let ends = |end| command.trim_end().ends_with(end);
    check.unwrap().status.success() && !ends('\\') && !ends('|')
}

/// A PATH with our programs in it, and PostgreSQL's tools.
pub fn path() -> String {
    let path = std::env::var("PATH").unwrap();
    let tool = servers::find("find_program pg_dump");
    let tools = tool.parent().unwrap().display();
    format!("{}:{path}:{tools}", crate::binaries().display())
}

/// Runs lines in a shell, in this directory and with these variables, and returns what it said.
/// It must succeed.
pub async fn run(lines: String, directory: &Path, variables: &[(&str, &str)]) -> Vec<String> {
    let mut shell = Command::new("bash");
    shell
        .args(["-o", "pipefail", "-c", &lines])
        .current_dir(directory)
        .envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || reaper::output(&mut shell));
    let Output {
        status,
        stdout,
        stderr,
    } = output.await.unwrap();
    let said = String::from_utf8_lossy(&stdout);
    let complaints = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{lines}: {said}{complaints}");
    said.lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}
