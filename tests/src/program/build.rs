//! Our programs, as the tests start them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Where our programs are, built if they are not up to date: cargo builds them for the
/// tests of their own packages only.
pub fn binaries() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            build(
                &["sekali-aggregator", "sekali-worker", "sekali-publisher"],
                "",
            )
        })
        .clone()
}

/// The same of those that end at the instants that tests choose, which are built apart:
/// what is shipped must not have these instants.
pub(super) fn doomed_binaries() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            build(
                &["sekali-aggregator-doomed", "sekali-worker-doomed"],
                "aggregator/crash-points,worker/crash-points",
            )
        })
        .clone()
}

fn build(programs: &[&str], features: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let deps = here.parent().unwrap();
    let directory = if deps.ends_with("deps") {
        deps.parent().unwrap()
    } else {
        deps
    };
    let mut build = Command::new(env!("CARGO"));
    // What cargo tells a test of its package, some build scripts watch (ring's): they, and
    // all that stands on them, would be built anew by each other's cargo, for minutes.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&name);
        }
    }
    build.args(["build", "--quiet", "--features", features]);
    for program in programs {
        build.args(["--bin", program]);
    }
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    build.arg("--target-dir").arg(directory.parent().unwrap());
    if directory.ends_with("release") {
        build.arg("--release");
    } else {
        build.args(["--features", "tests/as-tests"]);
    }
    assert!(build.status().unwrap().success(), "build the programs");
    directory.to_owned()
}
