//! What the chart renders is what the API server knows, whatever is switched on or off.

use serde_json::{Value, json};

use crate::chart::{named, object};
use crate::cluster::{Namespace, ROOT, helm, kubectl, objects};

/// Every switch, away from its default, and what goes with it.
const SWITCHES: &[&[&str]] = &[
    &[],
    &["aggregator.replicas=3", "worker.replicas=3"],
    &["aggregator.autoscaling.enabled=true"],
    &[
        "aggregator.service.type=NodePort",
        "aggregator.service.nodePort=30080",
    ],
    &[
        "aggregator.service.type=LoadBalancer",
        "aggregator.service.annotations.a=b",
    ],
    &[
        "ingress.enabled=true",
        "ingress.className=nginx",
        "ingress.tlsSecret=tls",
        "ingress.annotations.a=b",
    ],
    &["networkPolicy.enabled=false"],
    &[
        "networkPolicy.publishFrom[0].namespaceSelector.matchLabels.a=b",
        "networkPolicy.metricsFrom[0].podSelector.matchLabels.a=b",
        "networkPolicy.dnsTo[0].ipBlock.cidr=10.0.0.0/8",
        "networkPolicy.extraEgress[0].to[0].ipBlock.cidr=10.0.0.0/8",
    ],
    &[
        "metrics.scrapeAnnotations=true",
        "metrics.dashboards.enabled=true",
        "metrics.dashboards.labels.a=b",
    ],
    &[
        "publisher.enabled=true",
        "tracing.endpoint=http://collector.observability:4318",
    ],
    &[
        "publisher.enabled=true",
        "tracing.endpoint=https://collector",
        "tracing.protocol=grpc",
        "tracing.sampleRatio=0.1",
        "tracing.headers.existingSecret=s",
        "tracing.to[0].namespaceSelector.matchLabels.a=b",
    ],
    &["publisher.enabled=true"],
    &[
        "apiKeys.existingSecret=keys",
        "publisher.enabled=true",
        "publisher.apiKey.existingSecret=key",
    ],
    &["auth.existingSecret=mine"],
    &[
        "imagePullSecrets[0].name=pull",
        "image.registry=example.com",
        "image.pullPolicy=Always",
    ],
    &["image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000"],
    &[
        "redis.persistence.enabled=false",
        "postgresql.persistence.enabled=false",
    ],
    &[
        "redis.persistence.existingClaim=a",
        "postgresql.persistence.existingClaim=b",
    ],
    &[
        "redis.persistence.storageClass=fast",
        "postgresql.persistence.storageClass=fast",
    ],
    &["redis.appendfsync=everysec", "redis.settings.hz=20"],
    &[
        "redis.enabled=false",
        "externalRedis.host=r",
        "externalRedis.tls=true",
        "externalRedis.user=u",
        "externalRedis.existingSecret=s",
        "externalRedis.networkPolicyTo[0].ipBlock.cidr=10.0.0.1/32",
        "certificates.existingSecret=ca",
    ],
    &[
        "postgresql.enabled=false",
        "externalPostgresql.host=p",
        "externalPostgresql.existingSecret=s",
        "externalPostgresql.networkPolicyTo[0].ipBlock.cidr=10.0.0.1/32",
    ],
    &[
        "redis.enabled=false",
        "externalRedis.host=r",
        "postgresql.enabled=false",
        "externalPostgresql.host=p",
    ],
    &["nameOverride=other", "fullnameOverride=another"],
    &["operator.enabled=false"],
    &["crds.install=false"],
    &[
        "operator.replicas=2",
        "operator.paused=true",
        "operator.apiServer.to[0].ipBlock.cidr=10.0.0.1/32",
    ],
];

/// What every component lets be added to its pods.
const ADDITIONS: &str = r#"{
    "podLabels": {"a": "b"}, "podAnnotations": {"a": "b"}, "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a", "operator": "Exists"}], "priorityClassName": "system-cluster-critical",
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "podAffinityTerm": {"topologyKey": "zone"}}]}},
    "initContainers": [{"name": "before", "image": "i", "securityContext":
        {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]
}"#;
const SERVER_ADDITIONS: &str = r#"{
    "extraEnv": [{"name": "A", "value": "b"}], "sidecars": [{"name": "beside", "image": "i"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}]
}"#;
const SERVICE_ADDITIONS: &str = r#"{
    "extraArgs": ["--log-format=text"], "extraEnvFrom": [{"configMapRef": {"name": "a"}}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
}"#;

#[test]
fn every_switch_renders_what_the_api_server_knows() {
    let namespace = Namespace::create("rendering");
    // A pod is refused without its account, and what is only tried makes none.
    for account in ["sekali", "sekali-operator", "another", "another-operator"] {
        namespace.kubectl(&["create", "serviceaccount", account]);
    }
    for settings in SWITCHES {
        let flags: Vec<_> = settings
            .iter()
            .map(|setting| format!("--set={setting}"))
            .collect();
        accepts(&namespace, &flags);
    }
    let additions = |component: &str, json: &str| {
        let json = json.split_whitespace().collect::<String>();
        format!("--set-json={component}={json}")
    };
    let components = [
        "aggregator",
        "worker",
        "redis",
        "postgresql",
        "publisher",
        "operator",
    ];
    let mut flags = vec!["--set=publisher.enabled=true".to_owned()];
    flags.extend(
        components
            .iter()
            .map(|component| additions(component, ADDITIONS)),
    );
    flags.extend(
        components[..4]
            .iter()
            .map(|component| additions(component, SERVER_ADDITIONS)),
    );
    flags.extend(
        components[..2]
            .iter()
            .map(|component| additions(component, SERVICE_ADDITIONS)),
    );
    accepts(&namespace, &flags);
}

fn accepts(namespace: &Namespace, flags: &[String]) {
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let chart = ["template", "sekali", "charts/sekali"];
    let manifest = helm(&[&chart, &*flags].concat()).unwrap();
    namespace
        .apply(&manifest, &["--dry-run=server", "--validate=strict"])
        .unwrap_or_else(|error| panic!("{flags:?}: {error}"));
}

/// The manifests without Helm, and what is made of them.
const DIRECTORIES: [&str; 4] = [
    "k8s/base",
    "k8s/overlays/small",
    "k8s/overlays/production",
    "k8s/overlays/external",
];

#[test]
fn the_manifests_without_helm_are_what_the_api_server_knows() {
    let namespace = Namespace::create("manifests");
    for directory in DIRECTORIES {
        let manifest = kubectl(&["kustomize", directory]);
        namespace
            .apply(&manifest, &["--dry-run=server", "--validate=strict"])
            .unwrap_or_else(|error| panic!("{directory}: {error}"));
    }
}

#[test]
fn nothing_of_the_manifests_without_helm_is_a_hook() {
    // kubectl makes every object that it is given, the one before an uninstall too.
    let is_hook = |object: &Value| !object["metadata"]["annotations"]["helm.sh/hook"].is_null();
    for directory in DIRECTORIES {
        let all = objects(&kubectl(&["kustomize", directory]));
        assert!(all.len() > 10, "{directory}");
        assert_eq!(all.into_iter().find(is_hook), None, "{directory}");
    }
}

#[test]
fn an_overlay_changes_what_it_says_and_nothing_of_the_operator() {
    let base = named(&kubectl(&["kustomize", "k8s/base"]));
    for directory in DIRECTORIES {
        let overlay = named(&kubectl(&["kustomize", directory]));
        let operator = "Deployment sekali-operator";
        assert_eq!(object(&overlay, operator), object(&base, operator));
        // It is the operator's alone.
        let workers = object(&overlay, "Deployment sekali-worker");
        assert_eq!(workers["spec"]["replicas"], Value::Null, "{directory}");
    }
    let production = named(&kubectl(&["kustomize", "k8s/overlays/production"]));
    let mut expected = pipeline(&base);
    expected["spec"]["workers"]["min"] = json!(2);
    assert_eq!(pipeline(&production), expected);
}

/// The Pipeline that the operator applies.
fn pipeline(rendered: &[(String, Value)]) -> Value {
    let config = object(rendered, "ConfigMap sekali-operator");
    let text = config["data"]["pipeline.yaml"].as_str().unwrap();
    objects(text).remove(0)
}

#[test]
fn compose_can_make_the_secrets_of_its_services() {
    let text = std::fs::read_to_string(format!("{ROOT}/compose.yaml")).unwrap();
    // It writes one that comes from the environment into the container's own files.
    assert!(text.contains("\n    environment: POSTGRESQL_PASSWORD\n"));
    assert!(!text.contains("\n  read_only: true\n"));
}
