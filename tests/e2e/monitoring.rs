//! What a Prometheus in the cluster, which goes by the pods' annotations, makes of an installation.

use std::sync::LazyLock;

use serde_json::{Value, json};
use tests::until;

use crate::cluster::{Namespace, REGISTRY, ROOT};
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

/// What is asked, and which of the statistics it has to be.
const AGREE: &[(&str, &str)] = &[
    (
        r#"max by (namespace) (sekali_books_events{count="received"})"#,
        "received",
    ),
    (
        r#"max by (namespace) (sekali_books_events{count="unique"})"#,
        "unique_processed",
    ),
    (
        r#"max by (namespace) (sekali_books_events{count="duplicates"})"#,
        "duplicate_dropped",
    ),
    (
        "sum by (namespace) (sekali_gateway_accepted_events_total)",
        "received",
    ),
    (
        r#"sum by (namespace) (sekali_store_recorded_events_total{outcome="stored"})"#,
        "unique_processed",
    ),
    ("namespace:sekali_queue_events:max", "queue_depth"),
];

#[tokio::test]
async fn a_prometheus_that_goes_by_annotations_reaches_every_pod_and_says_what_the_books_say() {
    let settings = ["metrics.scrapeAnnotations=true", "aggregator.replicas=2"];
    let release = Release::install("monitoring", &settings);
    let prometheus = Prometheus::start(&release).await;
    let mut targets = Vec::new();
    until("every pod is a target, once, and is up", async || {
        targets = prometheus.targets().await;
        targets == expected(&release)
    })
    .await;
    assert_eq!(targets.len(), 4, "{targets:?}");

    let forward = Forward::to(&release, "service/sekali", 8080).await;
    for numbers in [0..100, 70..100] {
        let events: Vec<_> = numbers.map(event).collect();
        forward.publish(&json!(events)).await.ok();
    }
    let stats = release.settled();
    assert_eq!(stats["unique_processed"], 100, "{stats}");
    assert_eq!(stats["duplicate_dropped"], 30, "{stats}");
    for (query, name) in AGREE {
        let expected = stats[name].to_string();
        until(&format!("{query} is {name}"), async || {
            // A value is a time and a text.
            let samples = prometheus.query(query).await;
            samples.len() == 1
                && samples[0]["metric"]["namespace"] == release.namespace.name()
                && samples[0]["value"][1].as_str() == Some(&*expected)
        })
        .await;
    }

    until("every rule is evaluated", async || {
        let rules = prometheus.rules().await;
        let failed: Vec<_> = rules
            .iter()
            .filter(|rule| rule["health"] == "err")
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
        rules.len() > 20 && rules.iter().all(|rule| rule["health"] == "ok")
    })
    .await;
    let alerts = prometheus.query(r#"ALERTS{alertstate="firing"}"#).await;
    assert!(alerts.is_empty(), "nothing is wrong: {alerts:?}");
}

/// The pods that tell metrics, as [`Prometheus::targets`] has them when all is well.
fn expected(release: &Release) -> Vec<String> {
    let mut expected = Vec::new();
    for component in ["aggregator", "operator", "worker"] {
        for pod in release.pods(component) {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let address = pod["status"]["podIP"].as_str().unwrap_or_default();
            expected.push(format!(
                "{} {component} {name} http://{address}:9090/metrics up",
                release.namespace.name()
            ));
        }
    }
    expected.sort();
    expected
}

fn event(number: u32) -> Value {
    json!({
        "topic": "monitoring", "event_id": number.to_string(),
        "timestamp": "2026-01-01T00:00:00Z", "source": "e2e", "payload": {},
    })
}

/// A Prometheus in the namespace of a release.
struct Prometheus(Forward);

impl Prometheus {
    async fn start(release: &Release) -> Self {
        let items = [config(release), pod()];
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        release.namespace.apply(&list.to_string(), &[]).unwrap();
        let ready = ["wait", "--for=condition=Ready", "pod/prometheus", TIMEOUT];
        release.namespace.kubectl(&ready);
        Self(Forward::to(release, "pod/prometheus", PORT).await)
    }

    /// What it scrapes: namespace, component, pod, address, and how it went.
    async fn targets(&self) -> Vec<String> {
        let data = self.data("targets?state=active").await;
        let targets = data["activeTargets"].as_array().unwrap().iter();
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
        let mut targets: Vec<_> = targets.map(line).collect();
        targets.sort();
        targets
    }

    /// What a query gives now.
    async fn query(&self, query: &str) -> Vec<Value> {
        let mut parameters = url::form_urlencoded::Serializer::new(String::new());
        let parameters = parameters.append_pair("query", query).finish();
        let data = self.data(&format!("query?{parameters}")).await;
        data["result"].as_array().unwrap().clone()
    }

    /// The rules, and what became of each when it was last evaluated.
    async fn rules(&self) -> Vec<Value> {
        let data = self.data("rules").await;
        let groups = data["groups"].as_array().unwrap().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
        rules.cloned().collect()
    }

    async fn data(&self, path: &str) -> Value {
        let answer = self.0.get(&format!("/api/v1/{path}")).await.ok();
        answer["data"].clone()
    }
}

fn config(release: &Release) -> Value {
    let rules = std::fs::read_to_string(format!("{ROOT}/charts/sekali/rules/sekali.yaml")).unwrap();
    // Those that are evaluated every few minutes are here as often as the others.
    let lines = rules.lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("interval:"));
    let rules: String = lines.flat_map(|line| [line, "\n"]).collect();
    let pods = discovered(&release.namespace);
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "prometheus"},
        "data": {"prometheus.yml": CONFIG, "rules.yml": rules, "pods.json": pods.to_string()},
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
