//! A Sekali that helm installed.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tests::{Answer, Program};

use crate::cluster::{IMAGES, Namespace, PATIENCE, REGISTRY, until};

/// The release's name, and so its Service's.
pub(crate) const NAME: &str = "sekali";

/// How long helm waits.
pub(crate) const TIMEOUT: &str = "--timeout=180s";

/// An installation of the chart in a namespace of its own.
pub(crate) struct Release {
    pub(crate) namespace: Namespace,
    /// What it is installed with besides the images.
    settings: Vec<String>,
}

/// The one that most tests share, installed with nothing but image values.
pub(crate) fn shared() -> Shared {
    static SHARED: Mutex<Option<Release>> = Mutex::new(None);
    let mut shared = Shared(SHARED.lock().unwrap_or_else(PoisonError::into_inner));
    let release = || Release::install("shared", &[]);
    shared.0.get_or_insert_with(release).is_whole();
    shared
}

/// The installation while a test has it.
pub(crate) struct Shared(MutexGuard<'static, Option<Release>>);

impl Deref for Shared {
    type Target = Release;

    fn deref(&self) -> &Release {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Shared {
    /// What a test leaves that failed is nobody else's: the next one gets a new one.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.take();
        }
    }
}

impl Release {
    /// Installs it and waits until it is ready.
    pub(crate) fn install(namespace: &str, settings: &[&str]) -> Self {
        Self::install_into(Namespace::create(namespace), settings)
    }

    /// The same in a namespace where something is already.
    pub(crate) fn install_into(namespace: Namespace, settings: &[&str]) -> Self {
        let release = Self {
            namespace,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
        };
        release.upgrade(&[]).unwrap();
        release
    }

    /// One that is installed in another way.
    pub(crate) fn in_namespace(namespace: Namespace) -> Self {
        Self {
            namespace,
            settings: Vec::new(),
        }
    }

    /// `helm upgrade --install` with what it was installed with, and this.
    pub(crate) fn upgrade(&self, settings: &[&str]) -> Result<String, String> {
        let flags = self.flags(settings);
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let command = [
            "upgrade",
            "--install",
            NAME,
            "charts/sekali",
            "--wait",
            TIMEOUT,
        ];
        self.namespace.helm(&[&command, &*flags].concat())
    }

    /// `helm template` with the same; what is shown is one template, or all.
    pub(crate) fn render(&self, settings: &[&str], show: &[&str]) -> Result<String, String> {
        let flags = self.flags(settings);
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let command = ["template", NAME, "charts/sekali", "--skip-tests"];
        self.namespace.helm(&[&command, &*flags, show].concat())
    }

    /// What helm is told besides.
    pub(crate) fn flags(&self, settings: &[&str]) -> Vec<String> {
        let registry = format!("global.imageRegistry={}", *REGISTRY);
        let images = IMAGES.split_whitespace();
        let own = self.settings.iter().map(String::as_str);
        [&*registry]
            .into_iter()
            .chain(images)
            .chain(own)
            .chain(settings.iter().copied())
            .map(flag)
            .collect()
    }

    /// Waits until the Deployments and StatefulSets are as they are to be.
    pub(crate) fn is_whole(&self) {
        for kind in ["statefulset", "deployment"] {
            let timeout = format!("--timeout={}s", PATIENCE.as_secs());
            let all = "--selector=app.kubernetes.io/name=sekali";
            self.namespace
                .kubectl(&["rollout", "status", kind, all, &timeout]);
        }
    }

    /// Stops the workers, and waits until there are none, or lets them come back. The operator
    /// minds how many there are, so it is told.
    pub(crate) fn pause_workers(&self, paused: bool) {
        let patch = json!({"spec": {"paused": paused}}).to_string();
        let pause = ["patch", "pipeline", NAME, "--type=merge", "--patch", &patch];
        self.namespace.kubectl(&pause);
        if paused {
            self.has_replicas("worker", 0);
        }
    }

    /// Waits until a Deployment has exactly so many pods, all of them ready.
    pub(crate) fn has_replicas(&self, component: &str, replicas: usize) {
        until(&format!("{replicas} of {component}"), || {
            let pods = self.pods(component);
            pods.len() == replicas && pods.iter().all(is_ready)
        });
    }

    /// Waits until so many are ready, whatever else there still is of it.
    pub(crate) fn has_ready(&self, component: &str, replicas: usize) {
        until(&format!("{replicas} of {component} are ready"), || {
            self.pods(component)
                .iter()
                .filter(|pod| is_ready(pod))
                .count()
                == replicas
        });
    }

    /// The pods of a component.
    pub(crate) fn pods(&self, component: &str) -> Vec<Value> {
        let selector = format!("--selector=app.kubernetes.io/component={component}");
        let list = self.namespace.get(&["pods", &selector]);
        list["items"].as_array().unwrap().clone()
    }

    /// Their names.
    pub(crate) fn pod_names(&self, component: &str) -> Vec<String> {
        let pods = self.pods(component);
        let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
        pods.iter().map(name).collect()
    }

    /// The name of the operator's pod that leads; nothing between two.
    pub(crate) fn leader(&self) -> String {
        let lease = self.namespace.get(&["lease", "sekali-operator"]);
        let holder = lease["spec"]["holderIdentity"].as_str();
        holder.unwrap_or_default().to_owned()
    }

    /// What tells them from those that had their names before.
    pub(crate) fn pod_uids(&self, component: &str) -> Vec<String> {
        let pods = self.pods(component);
        let uid = |pod: &Value| pod["metadata"]["uid"].as_str().unwrap().to_owned();
        pods.iter().map(uid).collect()
    }

    /// What `redis-cli` answers in the pod of Redis.
    pub(crate) fn redis(&self, command: &str) -> String {
        let script =
            format!("REDISCLI_AUTH=$(cat /run/secrets/redis/password) redis-cli {command}");
        self.namespace
            .kubectl(&["exec", "sekali-redis-0", "--", "sh", "-c", &script])
    }

    /// The statistics, by way of the API server.
    pub(crate) fn stats(&self) -> Option<Value> {
        let path = format!(
            "/api/v1/namespaces/{}/services/{NAME}:http/proxy/stats",
            self.namespace.name()
        );
        let text = self.namespace.try_kubectl(&["get", "--raw", &path]).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Waits until the queue is empty; then the books must balance.
    pub(crate) fn settled(&self) -> Value {
        let mut stats = Value::Null;
        until("the queue is empty", || {
            stats = self.stats().unwrap_or_default();
            stats["queue_depth"] == 0
        });
        tests::balance(&stats);
        stats
    }
}

/// A setting as helm takes it; what is a flag already stays one.
pub(crate) fn flag(setting: &str) -> String {
    if setting.starts_with("--") {
        setting.to_owned()
    } else {
        format!("--set={setting}")
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// A way to the Service from this machine, which ends with the value.
pub(crate) struct Forward {
    port: u16,
    client: reqwest::Client,
    _program: Program,
}

impl Forward {
    /// `kubectl port-forward`, once it lets a request through.
    pub(crate) async fn to(release: &Release, target: &str, port: u16) -> Self {
        let local = tests::servers::free_port();
        let mut command = std::process::Command::new("kubectl");
        command
            .args([
                "--namespace",
                release.namespace.name(),
                "port-forward",
                target,
            ])
            .arg(format!("{local}:{port}"))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        let forward = Self {
            port: local,
            client: reqwest::Client::new(),
            _program: Program::spawn("port-forward", &mut command),
        };
        tests::until("port-forward lets a request through", async || {
            forward
                .client
                .get(forward.url("/livez"))
                .send()
                .await
                .is_ok()
        })
        .await;
        forward
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.client.get(self.url(path))).await
    }

    pub(crate) async fn publish(&self, events: &Value) -> Answer {
        Answer::of(self.client.post(self.url("/publish")).json(events)).await
    }
}
