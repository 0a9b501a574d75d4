//! kubectl and helm, and namespaces that end with their tests.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take that a cluster does in seconds, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// The repository.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What the namespaces of this run are called and labelled: `scripts/e2e` removes what a run
/// leaves behind.
static RUN: LazyLock<String> =
    LazyLock::new(|| std::env::var("E2E_RUN").expect("run it with `make e2e`, which sets E2E_RUN"));

/// The registry of all images, if the cluster's nodes have them under one.
pub(crate) static REGISTRY: LazyLock<String> =
    LazyLock::new(|| std::env::var("E2E_REGISTRY").unwrap_or_default());

/// What every install is told of the images.
pub(crate) static IMAGES: LazyLock<String> =
    LazyLock::new(|| std::env::var("E2E_IMAGES").unwrap_or_default());

/// Runs a program in the repository, and says what it said.
fn run(program: &str, arguments: &[&str], input: Option<&str>) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(ROOT)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {program}: {error}"));
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // One that refuses before it has read all says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    if status.success() {
        Ok(stdout.into_owned())
    } else {
        Err(format!(
            "{program} {}: {stdout}{stderr}",
            arguments.join(" ")
        ))
    }
}

/// helm, wherever.
pub(crate) fn helm(arguments: &[&str]) -> Result<String, String> {
    run("helm", arguments, None)
}

/// kubectl, for what has no namespace.
pub(crate) fn kubectl(arguments: &[&str]) -> String {
    run("kubectl", arguments, None).unwrap()
}

/// The objects of a manifest. The cluster is not asked, so it need not know their kinds.
pub(crate) fn objects(manifest: &str) -> Vec<Value> {
    let read = ["annotate", "--local", "--filename=-", "--output=json"];
    let arguments = [&read[..], &["sekali.dev/e2e=read"]].concat();
    let text = run("kubectl", &arguments, Some(manifest)).unwrap();
    let objects = serde_json::Deserializer::from_str(&text).into_iter();
    objects.map(Result::unwrap).collect()
}

/// Waits until a condition holds; a test that waits for too long fails and says for what.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: it does not come true");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A namespace under the `restricted` Pod Security level.
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn create(name: &str) -> Self {
        let namespace = Self::to_be(name);
        let name = namespace.name();
        let labels = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {
                "sekali.dev/e2e": *RUN,
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
            }},
        });
        run(
            "kubectl",
            &["create", "--filename=-"],
            Some(&labels.to_string()),
        )
        .unwrap();
        namespace
    }

    /// One that whoever has this makes, and that ends with the value all the same.
    pub(crate) fn to_be(name: &str) -> Self {
        Self(format!("{}-{name}", *RUN))
    }

    /// Has `scripts/e2e` remove it, should the tests not come to it.
    pub(crate) fn is_of_this_run(&self) {
        let label = format!("sekali.dev/e2e={}", *RUN);
        kubectl(&["label", "namespace", &self.0, &label]);
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// kubectl in the namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap()
    }

    /// The same for what may be refused.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        run(
            "kubectl",
            &[&["--namespace", &self.0], arguments].concat(),
            None,
        )
    }

    /// `kubectl apply`, with flags; returns the names.
    pub(crate) fn apply(&self, manifest: &str, flags: &[&str]) -> Result<String, String> {
        let arguments = [
            "--namespace",
            &self.0,
            "apply",
            "--filename=-",
            "--output=name",
        ];
        run("kubectl", &[&arguments, flags].concat(), Some(manifest))
    }

    /// `kubectl get`, as JSON.
    pub(crate) fn get(&self, what: &[&str]) -> Value {
        let get = ["get", "--output=json", "--request-timeout=30s"];
        let text = self.kubectl(&[&get, what].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// helm in the namespace.
    pub(crate) fn helm(&self, arguments: &[&str]) -> Result<String, String> {
        run(
            "helm",
            &[&["--namespace", &self.0], arguments].concat(),
            None,
        )
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(
            "kubectl",
            &["delete", "namespace", &self.0, "--timeout=120s"],
            None,
        );
        recycle();
    }
}

/// Where volumes outlive their claims, this frees them.
fn recycle() {
    if let Ok(command) = std::env::var("E2E_RECYCLE") {
        run("sh", &["-c", &command], None).unwrap();
    }
}
