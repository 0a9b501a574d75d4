//! What is claimed of Sekali, against real servers and real processes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't go on says where"
)]

mod contract;
mod path;
mod promise;
mod store;
