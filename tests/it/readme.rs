//! What the README says is so: of flags what the programs say, of examples what comes of them.

use std::process::{Command, Stdio};

use tests::example::{self, Example};
use tests::{Program, Sekali, servers, until};

const README: &str = include_str!("../../README.md");

/// What a program's help says of one flag.
struct Flag {
    name: String,
    variable: Option<String>,
    default: Option<String>,
}

fn flags(binary: &str) -> Vec<Flag> {
    let output = Command::new(tests::binaries().join(binary))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let mut flags = Vec::<Flag>::new();
    for line in help.lines() {
        // Six columns in stands a flag; what is said of it stands further in.
        let flag = line.get(6..).and_then(|flag| flag.strip_prefix("--"));
        if let Some(name) = flag.filter(|_| !line.starts_with("       ")) {
            let name = name.split([' ', '=']).next().unwrap();
            flags.push(Flag {
                name: format!("--{name}"),
                variable: None,
                default: None,
            });
            continue;
        }
        let line = line.trim_start();
        let Some(flag) = flags.last_mut() else {
            continue;
        };
        let value = |prefix| Some(line.strip_prefix(prefix)?.strip_suffix(']')?.to_owned());
        if let Some(variable) = value("[env: ") {
            flag.variable = Some(variable.split('=').next().unwrap().to_owned());
        }
        if let Some(default) = value("[default: ") {
            flag.default = Some(default);
        }
    }
    flags
}

#[test]
fn every_flag_stands_in_the_table_with_its_variable_and_default() {
    for binary in ["sekali-aggregator", "sekali-worker"] {
        let of = binary.strip_prefix("sekali-").unwrap();
        let flags = flags(binary);
        assert!(flags.len() > 10, "{}", flags.len());
        for flag in &flags {
            if ["--help", "--version", "--print-openapi"].contains(&&*flag.name) {
                continue;
            }
            let row = README
                .lines()
                .find(|line| line.starts_with(&format!("| `{}` |", flag.name)) && line.contains(of))
                .unwrap_or_else(|| panic!("{} of {binary} is not in the README", flag.name));
            let variable = flag.variable.as_ref().unwrap();
            assert!(row.contains(&format!("`{variable}`")), "{row}");
            if let Some(default) = &flag.default {
                assert!(row.contains(&format!("`{default}`")), "{default}: {row}");
            }
        }
        // And no flag stands there that the program does not know.
        for row in README.lines().filter(|line| line.starts_with("| `--")) {
            let (head, programs) = row.trim_end_matches(" |").rsplit_once('|').unwrap();
            let name = head.split('`').nth(1).unwrap();
            if programs.contains(of) {
                assert!(
                    flags.iter().any(|flag| flag.name == name),
                    "{name} of {binary}"
                );
            }
        }
    }
}

/// A line without what is another one each time.
fn timeless(line: &str) -> String {
    let mark = "\"received_at\":\"";
    let Some((before, rest)) = line.split_once(mark) else {
        return line.to_owned();
    };
    let (_, after) = rest.split_once('"').unwrap();
    format!("{before}{mark}{}", timeless(after))
}

#[tokio::test]
async fn every_example_gives_what_it_says() {
    let sekali = Sekali::embedded().await;
    let address = sekali.address(0).to_string();
    let url = sekali.url("");
    let directory = tests::directory();
    let path = example::path();
    let variables = [("PATH", &*path), ("KEY", "any"), ("TARGET_URL", &url)];
    let blocks = example::blocks(README, "console");
    let examples = blocks.into_iter().flat_map(example::examples);
    let mut run = 0;
    for Example { command, output } in examples {
        // They have tests of their own, are the tests, or take too long.
        if command.starts_with("make ") {
            continue;
        }
        let lines = command.replace("localhost:8080", &address);
        let said = example::run(lines, directory.path(), &variables).await;
        let said: Vec<_> = said.iter().map(|line| timeless(line)).collect();
        for expected in output.iter().filter(|line| *line != "...") {
            assert!(said.contains(&timeless(expected)), "{command}: {said:#?}");
        }
        run += 1;
    }
    assert!(run > 5, "{run}");
}

#[tokio::test]
async fn make_run_and_make_up_serve_what_they_have_published() {
    for script in ["run", "up"] {
        let port = servers::free_port();
        let path = format!("{}/../scripts/{script}", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("bash");
        command
            // All that it says is its log.
            .args(["-c", "exec \"$0\" >&2", &path])
            .env("PORT", port.to_string())
            .env("BINARIES", tests::binaries())
            .stderr(Stdio::piped());
        let mut program = Program::spawn_script(script, &mut command);
        until("it has published and serves", async || {
            assert!(!program.has_ended(), "{script}: {}", program.log());
            program.log().contains("Serving")
        })
        .await;
        let stats = reqwest::get(format!("http://127.0.0.1:{port}/stats")).await;
        let stats: serde_json::Value = stats.unwrap().json().await.unwrap();
        assert_eq!(stats["received"], 20_000, "{script}: {stats}");
        program.signal("TERM");
        let ended = program.ended().await;
        assert!(ended.success(), "{script}: {ended}: {}", program.log());
    }
}
