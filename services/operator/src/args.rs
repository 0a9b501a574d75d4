//! What an operator can be told.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Runs the day-two work of Sekali in a cluster: scales the workers of its Pipelines, and
/// carries out its ChaosRuns.
///
/// Start as many as are needed for availability; the one that holds the lease acts.
///
/// Exit status: 0 after a drain, 1 after a failure or the loss of the lease, 64 when it
/// can't mean what it was told, 130 when a second signal cut the drain short.
#[derive(Debug, Parser)]
#[command(name = "sekali-operator", version)]
pub struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How the process logs and ends.
    #[command(flatten)]
    pub process: lifecycle::Args,
}

/// What the program can do.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Runs the controllers
    Serve(Serve),
    /// Prints the CustomResourceDefinitions as YAML
    Crds,
    /// Waits until a ChaosRun is over, prints its verdict, and fails unless it passed
    Await(Await),
    /// Deletes the Pipelines and ChaosRuns of an installation, and waits until they are gone. Run
    /// it before the operator is removed, which cleans up after them
    Retire(Retire),
}

/// What to wait for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Await {
    /// The run's name
    pub(crate) run: String,

    /// Where it is, by default the namespace of the kubeconfig or of the pod
    #[arg(long, env)]
    pub(crate) namespace: Option<String>,

    /// How long to wait at most, in seconds. Short, and a run that goes on fails
    #[arg(long, env, default_value_t = 900)]
    pub(crate) timeout_seconds: u64,
}

/// What to delete.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Retire {
    /// The installation's name
    #[arg(long, env)]
    pub(crate) instance: String,

    /// Where it is, by default the namespace of the kubeconfig or of the pod
    #[arg(long, env)]
    pub(crate) namespace: Option<String>,

    /// How long a run may take to clean up, in seconds, until it is let go without that
    #[arg(long, env, default_value_t = 120)]
    pub(crate) timeout_seconds: u64,
}

/// How it serves.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Serve {
    /// The installation that it belongs to: the value of the label
    /// app.kubernetes.io/instance on its pods, and of `instance` in its Pipelines. It leaves
    /// those of others alone
    #[arg(long, env)]
    pub(crate) instance: String,

    /// Where that is, by default the namespace of the kubeconfig or of the pod. It looks at
    /// no other
    #[arg(long, env)]
    pub(crate) namespace: Option<String>,

    /// A pod template in YAML for the publishers of ChaosRuns. Its container `publisher` is
    /// given the arguments
    #[arg(long, env)]
    pub(crate) publisher_template: PathBuf,

    /// A Pipeline in YAML that is applied at every start: the installation's own. A
    /// CustomResourceDefinition and its resources can't be installed in one step
    #[arg(long, env)]
    pub(crate) pipeline_file: Option<PathBuf>,

    /// A file that holds nothing but an API key of the scope `admin`, for gateways that want
    /// one; it is read at every request
    #[arg(long, env)]
    pub(crate) api_key_file: Option<PathBuf>,

    /// This operator's name among those of the installation, by default the host's. Two under
    /// one name both lead
    #[arg(long, env, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) identity: Option<String>,

    /// How long the lease lasts without being renewed, in seconds. Short, and a busy API
    /// server ends the operator; long, and what a dead one left waits so long
    #[arg(long, env, default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=300))]
    pub(crate) lease_seconds: u32,

    #[command(flatten)]
    pub(crate) admin: lifecycle::AdminArgs,
}
