//! What the README says of flags is what the programs say.

use std::process::Command;

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
