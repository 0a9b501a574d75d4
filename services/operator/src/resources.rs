//! The custom resources: what a user says, and what is answered in the status.
//!
//! The YAML that a cluster is given is generated from here (`make crds`), the doc comments
//! being what `kubectl explain` shows. What can be refused is refused by the API server:
//! ranges and patterns in the schema, relations in CEL rules.

#![expect(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "the derived schemas repeat the types where nobody reaches them; columns are alike"
)]

mod chaos;
mod defaults;
mod pipeline;

use schemars::{Schema, SchemaGenerator, json_schema};

pub use chaos::{
    ChaosRun, ChaosRunSpec, ChaosRunStatus, Fault, FaultAction, Ids, Injection, Phase,
    PublisherStatus, Target, Totals, Verdict,
};
pub use pipeline::{GatewayRef, Pipeline, PipelineSpec, PipelineStatus, Workers};

/// As Kubernetes writes durations: 500ms, 10s, 5m, 1h30m.
fn duration_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 16,
        "pattern": "^([0-9]+(ms|s|m|h))+$",
    })
}

#[cfg(test)]
mod tests;
