//! What is claimed of Sekali, against real servers and real processes.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says where")]

mod alarms;
mod alone;
mod ask;
mod bounds;
mod contract;
mod crash;
mod dashboards;
mod drain;
mod faults;
mod follow;
mod keys;
mod network;
mod operations;
mod path;
mod pressure;
mod promise;
mod readme;
mod store;
mod telemetry;
mod traces;
mod verdict;
