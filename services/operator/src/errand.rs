//! What the program does besides serving: short errands for people, hooks and tests.

mod retire;
mod wait;

use std::io::Write as _;
use std::process::ExitCode;

use kube::CustomResourceExt as _;

pub(crate) use retire::retire;
pub(crate) use wait::wait;

use crate::resources::{ChaosRun, Pipeline};

/// Prints the definitions, as they stand in the chart.
pub(crate) fn print_crds() -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    for definition in [Pipeline::crd(), ChaosRun::crd()] {
        writeln!(out, "---")?;
        write!(out, "{}", serde_yaml::to_string(&definition)?)?;
    }
    Ok(ExitCode::SUCCESS)
}
