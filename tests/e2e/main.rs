//! What is claimed of Sekali on Kubernetes, on a real cluster: `make e2e`.
//!
//! Everything is done as whoever runs Sekali does it, with helm and kubectl. Load comes from
//! the chart's own publisher Job, through the Service, inside the cluster; its verdict is what
//! counts. Tests run one after another, and most share one installation, which each leaves as
//! it found it. What takes two nodes or a long time is in [`nodes`]: `make e2e-full`.
//!
//! Read `cluster`, `release` and `load` first: they are the verbs.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says where")]

mod account;
mod chaosruns;
mod chart;
mod cluster;
mod forbidden;
mod install;
mod keeping;
mod keys;
mod load;
mod manifest;
mod monitoring;
mod nodes;
mod pipelines;
mod policies;
mod prometheus;
mod release;
mod rendering;
mod run;
mod runbooks;
mod secrets;
mod servers;
mod under_load;
mod values;
