//! What an installation is made of, and how it does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{defaults, duration_schema};

/// One installation of Sekali: what it is made of, and how many workers it may have.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "sekali.dev",
    version = "v1alpha1",
    kind = "Pipeline",
    namespaced,
    status = "PipelineStatus",
    derive = "PartialEq",
    shortname = "spl",
    category = "sekali",
    doc = "One installation of Sekali: how many workers it may have, and what its books say.",
    label("app.kubernetes.io/name", "sekali"),
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Queue", type_ = "integer", json_path = ".status.queue"),
    printcolumn(name = "Lag", type_ = "string", json_path = ".status.lag"),
    printcolumn(name = "Workers", type_ = "integer", json_path = ".status.workers"),
    printcolumn(name = "Received", type_ = "integer", json_path = ".status.received"),
    printcolumn(name = "Unique", type_ = "integer", json_path = ".status.unique"),
    printcolumn(
        name = "Duplicates",
        type_ = "integer",
        json_path = ".status.duplicates"
    ),
    printcolumn(
        name = "Balanced",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Balanced\")].status",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct PipelineSpec {
    /// The value of the label app.kubernetes.io/instance on the pods of the installation.
    #[schemars(length(min = 1, max = 63))]
    pub instance: String,
    /// Where the gateways answer.
    pub gateway: GatewayRef,
    /// How many workers there are.
    pub workers: Workers,
    /// Scales the workers to none, and back once it is false again. The queue goes on taking.
    #[serde(default)]
    pub paused: bool,
}

/// A Service in the namespace of the resource.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct GatewayRef {
    /// The name of the gateways' Service.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub service: String,
    /// The port of that Service.
    #[serde(default = "defaults::port")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
}

/// How many workers there may be, and what is wanted of them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.min <= self.max").message("min must not be more than max"),
    validation = Rule::new("duration(self.targetLag) >= duration('1s') && duration(self.targetLag) <= duration('1h')").message("targetLag must be from 1s to 1h"),
    validation = Rule::new("duration(self.quietPeriod) <= duration('24h')").message("quietPeriod must be at most 24h"),
)]
pub struct Workers {
    /// The name of the workers' Deployment.
    #[schemars(length(min = 1, max = 253))]
    pub deployment: String,
    /// There are never fewer, but while paused. With 0 the first event after a quiet time waits for a worker to start.
    #[serde(default = "defaults::one")]
    #[schemars(range(min = 0, max = 1_000))]
    pub min: i32,
    /// There are never more. Where so many workers keep PostgreSQL busy, a further one gains nothing.
    #[serde(default = "defaults::max")]
    #[schemars(range(min = 1, max = 1_000))]
    pub max: i32,
    /// How soon a queue is to be worked off. Shorter asks for more workers for the same queue.
    #[serde(default = "defaults::lag")]
    #[schemars(schema_with = "duration_schema")]
    pub target_lag: Duration,
    /// How long fewer workers must have been enough before there are fewer. Short, and workers come and go with each burst.
    #[serde(default = "defaults::quiet")]
    #[schemars(schema_with = "duration_schema")]
    pub quiet_period: Duration,
}

/// What was last seen of an installation.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PipelineStatus {
    /// The generation of the spec that this was said of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Events in the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<i64>,
    /// How long the oldest queued event has waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// Workers that are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<i32>,
    /// Workers that there are to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_workers: Option<i32>,
    /// Events taken, those in the queue included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<i64>,
    /// Events stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique: Option<i64>,
    /// Events dropped, their key being stored already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<i64>,
    /// Duplicates with other content than what is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflicts: Option<i64>,
    /// Events that can never be stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buried: Option<i64>,
    /// Events a second that one worker was seen to record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_rate: Option<i64>,
    /// Since when fewer workers would be enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_since: Option<Time>,
    /// Since when so many workers are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers_since: Option<Time>,
    /// Ready (it is as it was asked to be), Balanced (received = unique + duplicates + buried at an empty queue), Scaling (the operator decides about the workers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
