//! A load, faults while it runs, and what came of both.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{defaults, duration_schema};

/// A load with a known right answer, faults while it runs, and a verdict.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "sekali.dev",
    version = "v1alpha1",
    kind = "ChaosRun",
    plural = "chaosruns",
    namespaced,
    status = "ChaosRunStatus",
    derive = "PartialEq",
    shortname = "chaos",
    category = "sekali",
    selectable = ".spec.pipeline",
    doc = "A load with a known right answer, faults while it runs, and a verdict.",
    label("app.kubernetes.io/name", "sekali"),
    annotation("helm.sh/resource-policy", "keep"),
    validation = Rule::new("self.metadata.name.size() <= 40").message("the name must have at most 40 characters: Jobs and topics are named after it"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.verdict"),
    printcolumn(name = "Sent", type_ = "integer", json_path = ".status.sent"),
    printcolumn(name = "Lost", type_ = "integer", json_path = ".status.lost"),
    printcolumn(name = "Doubled", type_ = "integer", json_path = ".status.doubled"),
    printcolumn(name = "Faults", type_ = "string", json_path = ".status.faults"),
    printcolumn(name = "Rate", type_ = "integer", json_path = ".status.rate", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("a ChaosRun can't be changed: delete it and create another"),
    validation = Rule::new("self.duplicates + self.conflicts <= 0.99").message("duplicates and conflicts together must be at most 0.99"),
    validation = Rule::new("self.publishers <= self.events").message("events must be at least one for each publisher"),
    validation = Rule::new("duration(self.deadline) >= duration('10s') && duration(self.deadline) <= duration('24h')").message("deadline must be from 10s to 24h"),
)]
pub struct ChaosRunSpec {
    /// The Pipeline that is tried.
    #[serde(default = "defaults::pipeline")]
    #[schemars(length(min = 1, max = 63))]
    pub pipeline: String,
    /// How many Jobs send the load, each a part of it.
    #[serde(default = "defaults::one")]
    #[schemars(range(min = 1, max = 16))]
    pub publishers: i32,
    /// How many events they send in all, resends and malformed ones counted.
    #[serde(default = "defaults::events")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub events: i64,
    /// The share of resends: an earlier event again.
    #[serde(default = "defaults::duplicates")]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub duplicates: f64,
    /// The share of conflicts: the key of an earlier event with other content.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub conflicts: f64,
    /// The share of requests that are malformed and must be refused.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub malformed: f64,
    /// How many events stand in a request.
    #[serde(default = "defaults::batch")]
    #[schemars(range(min = 1, max = 10_000))]
    pub batch: i32,
    /// How many events a second to send at most, over all publishers; 0 is without a limit.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000_000))]
    pub rate: i64,
    /// What event ids look like.
    #[serde(default)]
    pub ids: Ids,
    /// What the load is made from: the same seed makes the same load. By default it follows from the resource's uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub seed: Option<i64>,
    /// What is done to the installation meanwhile.
    #[serde(default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub faults: Vec<Fault>,
    /// How long the run may take, from the creation of its Jobs. It may also wait so long for its Pipeline and for the runs before it.
    #[serde(default = "defaults::deadline")]
    #[schemars(schema_with = "duration_schema")]
    pub deadline: Duration,
    /// Keeps the events; by default their topics are deleted at the end.
    #[serde(default)]
    pub keep_events: bool,
}

/// Something that goes wrong, again and again.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("duration(self.every) >= duration('1s') && duration(self.every) <= duration('1h')").message("every must be from 1s to 1h"),
)]
pub struct Fault {
    /// Which component it hits; each time one pod of it.
    pub target: Target,
    /// kill deletes the pod with no grace, terminate with its own.
    pub action: FaultAction,
    /// How long to wait before the first time and between two.
    #[serde(default = "defaults::lag")]
    #[schemars(schema_with = "duration_schema")]
    pub every: Duration,
    /// How many times. A run that ends before all of them has not passed.
    #[serde(default = "defaults::one")]
    #[schemars(range(min = 1, max = 50))]
    pub count: i32,
}

/// Which component a fault hits.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord,
)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "documented variants are no structural schema")]
pub enum Target {
    Aggregator,
    Worker,
    Redis,
    Postgres,
}

/// How a fault deletes a pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "documented variants are no structural schema")]
pub enum FaultAction {
    Kill,
    Terminate,
}

/// What event ids look like.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "documented variants are no structural schema")]
pub enum Ids {
    #[default]
    V4,
    V7,
    Text,
}

/// How a run goes, and what it came to.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ChaosRunStatus {
    /// The generation of the spec that this was said of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it is: Pending, Starting, Running, Cleaning, Complete.
    #[serde(default)]
    pub phase: Phase,
    /// What the load is made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// When its Jobs were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When all of them ran: the faults' time begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the last of them had ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Passed or Failed, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What the publishers came to, all together.
    #[serde(flatten)]
    pub totals: Totals,
    /// How many faults were injected, of how many: 2/3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<String>,
    /// The faults, in the order of their times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub injected: Vec<Injection>,
    /// What each publisher came to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub publishers: Vec<PublisherStatus>,
    /// Complete (it is over) and Passed (its verdict).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Where a run is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "documented variants are no structural schema")]
pub enum Phase {
    #[default]
    Pending,
    Starting,
    Running,
    Cleaning,
    Complete,
}

/// What a run came to.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "documented variants are no structural schema")]
pub enum Verdict {
    Passed,
    Failed,
}

/// Counts of events, but for the last two.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Sent, malformed ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<i64>,
    /// Acknowledged by a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<i64>,
    /// Malformed, and refused as they should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<i64>,
    /// Keys that were acknowledged: so many must be stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_expected: Option<i64>,
    /// Keys that are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_stored: Option<i64>,
    /// Dropped as duplicates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<i64>,
    /// Duplicates with other content than what is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflicts: Option<i64>,
    /// Acknowledged and not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<i64>,
    /// Stored more than once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubled: Option<i64>,
    /// Stored, though nobody sent them or they were refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign: Option<i64>,
    /// Stored with other content than was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub altered: Option<i64>,
    /// Acknowledged a second, until the last publisher had sent all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<i64>,
    /// The time to an acknowledgement that 99 of 100 requests stay below, of the slowest publisher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_milliseconds: Option<i64>,
}

/// One fault: decided, then done.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Injection {
    /// The number of the fault in the spec, from 0.
    pub fault: i32,
    /// What it hit.
    pub target: Target,
    /// What was done to the pod: kill or terminate.
    pub action: FaultAction,
    /// The pod that it hit.
    pub pod: String,
    /// The pod's uid: its successor may have its name.
    pub uid: String,
    /// When it was decided.
    pub at: Time,
    /// Whether the pod is known to have been deleted.
    pub done: bool,
}

/// What one publisher came to.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PublisherStatus {
    /// The name of its Job.
    pub job: String,
    /// Whether all went as it should.
    pub passed: bool,
    /// Its own words.
    pub message: String,
}
