//! A Prometheus in the cluster, which goes by the pods' annotations.

use std::sync::LazyLock;

use serde_json::{Value, json};
use tests::prometheus::{Api, rules};

use crate::cluster::{Namespace, REGISTRY};
use crate::release::{Forward, Release, TIMEOUT};

/// Where it answers.
const PORT: u16 = 9090;

/// Its image: the official one, or the one that `scripts/kind images` gives to nodes that can't
/// pull it.
static IMAGE: LazyLock<String> = LazyLock::new(|| {
    let named = std::env::var("E2E_PROMETHEUS").ok();
    let named = named.filter(|image| !image.is_empty());
    named.unwrap_or_else(|| match REGISTRY.as_str() {
        "" => "prom/prometheus:v3.5.0".to_owned(),
        registry => format!("{registry}/prometheus:e2e"),
    })
});

/// One target a pod, at the port of its annotation: of the ports of a pod each is found, and
/// those that come to the same are one. Not every build of Prometheus can ask a cluster for its
/// pods (Debian's can't), so [`discovered`] does, and tells it of them under the labels that
/// its own discovery would give them.
const CONFIG: &str = r#"
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [/etc/prometheus/rules.yml]
scrape_configs:
  - job_name: pods
    file_sd_configs: [{files: [/etc/prometheus/pods.json]}]
    relabel_configs:
      - {source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], regex: "true", action: keep}
      - {source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path], target_label: __metrics_path__}
      - source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]
        separator: ":"
        target_label: __address__
      - {source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_component], target_label: job}
      - {source_labels: [__meta_kubernetes_namespace], target_label: namespace}
      - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
"#;

/// A Prometheus in the namespace of a release.
pub(crate) struct Prometheus {
    api: Api,
    _forward: Forward,
}

impl Prometheus {
    pub(crate) async fn start(release: &Release) -> Self {
        let items = [config(release), pod()];
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        release.namespace.apply(&list.to_string(), &[]).unwrap();
        let ready = ["wait", "--for=condition=Ready", "pod/prometheus", TIMEOUT];
        release.namespace.kubectl(&ready);
        let forward = Forward::to(release, "pod/prometheus", PORT).await;
        Self {
            api: Api::at(forward.url("")),
            _forward: forward,
        }
    }

    /// What is asked of it.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    /// What it scrapes: namespace, component, pod, address, and how it went.
    pub(crate) async fn targets(&self) -> Vec<String> {
        let line = |target: &Value| {
            let labels = &target["labels"];
            let words = [
                &labels["namespace"],
                &labels["job"],
                &labels["pod"],
                &target["scrapeUrl"],
                &target["health"],
            ];
            words.map(|word| word.as_str().unwrap_or("?")).join(" ")
        };
        let mut targets: Vec<_> = self.api.targets().await.iter().map(line).collect();
        targets.sort();
        targets
    }
}

fn config(release: &Release) -> Value {
    let pods = discovered(&release.namespace);
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "prometheus"},
        "data": {"prometheus.yml": CONFIG, "rules.yml": rules(), "pods.json": pods.to_string()},
    })
}

/// What Prometheus's discovery finds in the namespace: every port of every pod.
fn discovered(namespace: &Namespace) -> Value {
    let mut found = Vec::new();
    for pod in namespace.get(&["pods"])["items"].as_array().unwrap() {
        let metadata = &pod["metadata"];
        let mut labels = serde_json::Map::new();
        let mut label = |name: &str, value: &Value| {
            let name = name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
            labels.insert(format!("__meta_kubernetes_{name}"), value.clone());
        };
        label("namespace", &metadata["namespace"]);
        label("pod_name", &metadata["name"]);
        label("pod_ip", &pod["status"]["podIP"]);
        for (kind, of) in [("label", "labels"), ("annotation", "annotations")] {
            for (name, value) in metadata[of].as_object().into_iter().flatten() {
                label(&format!("pod_{kind}_{name}"), value);
            }
        }
        let address = pod["status"]["podIP"].as_str().unwrap();
        for container in pod["spec"]["containers"].as_array().unwrap() {
            for port in container["ports"].as_array().into_iter().flatten() {
                let target = format!("{address}:{}", port["containerPort"]);
                found.push(json!({"targets": [target], "labels": labels}));
            }
        }
    }
    Value::Array(found)
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "prometheus"},
        "spec": {
            "automountServiceAccountToken": false,
            // The official image's user.
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65534, "runAsGroup": 65534, "fsGroup": 65534,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "prometheus", "image": *IMAGE,
                "args": [
                    "--config.file=/etc/prometheus/prometheus.yml",
                    "--storage.tsdb.path=/prometheus",
                ],
                "ports": [{"containerPort": PORT}],
                "readinessProbe": {
                    "httpGet": {"path": "/-/ready", "port": PORT}, "periodSeconds": 1,
                },
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "config", "mountPath": "/etc/prometheus", "readOnly": true},
                    {"name": "data", "mountPath": "/prometheus"},
                ],
            }],
            "volumes": [
                {"name": "config", "configMap": {"name": "prometheus"}},
                {"name": "data", "emptyDir": {}},
            ],
        },
    })
}
