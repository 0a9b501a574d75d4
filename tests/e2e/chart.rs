//! What the chart renders: read as it is, without a cluster.

use serde_json::{Value, json};

use crate::cluster::{ROOT, helm, objects};
use crate::release::flag;

/// The objects that a rendering with these settings has, each as its kind and name.
fn rendered(settings: &[&str]) -> Vec<(String, Value)> {
    rendered_from("charts/sekali", settings)
}

/// The same of a chart that is elsewhere.
fn rendered_from(chart: &str, settings: &[&str]) -> Vec<(String, Value)> {
    let flags: Vec<_> = settings.iter().map(|setting| flag(setting)).collect();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    named(&helm(&[&["template", "sekali", chart], &*flags].concat()).unwrap())
}

/// The objects of a manifest by their kinds and names.
pub(crate) fn named(manifest: &str) -> Vec<(String, Value)> {
    let named = |object: Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let name = text(&object["metadata"]["name"]);
        (format!("{} {name}", text(&object["kind"])), object)
    };
    objects(manifest).into_iter().map(named).collect()
}

/// One of them.
pub(crate) fn object<'a>(rendered: &'a [(String, Value)], name: &str) -> &'a Value {
    let found = rendered.iter().find(|(one, _)| one == name);
    &found.unwrap_or_else(|| panic!("there is no {name}")).1
}

// Not every cluster knows their kinds, so no API server reads them here.
#[test]
fn monitors_find_the_pods_and_the_rule_is_the_file_as_it_is() {
    let both = rendered(&[
        "metrics.podMonitor.enabled=true",
        "metrics.podMonitor.interval=15s",
        "metrics.podMonitor.labels.release=prometheus",
        "metrics.serviceMonitor.enabled=true",
        "metrics.prometheusRule.enabled=true",
        "metrics.prometheusRule.labels.release=prometheus",
    ]);
    let monitor = object(&both, "PodMonitor sekali");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    let endpoint = json!({"port": "admin", "path": "/metrics", "interval": "15s"});
    assert_eq!(monitor["spec"]["podMetricsEndpoints"], json!([endpoint]));
    // What the Service's monitor finds is not found twice.
    assert_eq!(components(monitor), json!(["worker", "operator"]));
    let alone = rendered(&["metrics.podMonitor.enabled=true"]);
    let alone = object(&alone, "PodMonitor sekali");
    assert_eq!(
        components(alone),
        json!(["aggregator", "worker", "operator"])
    );
    for component in ["aggregator", "worker", "operator"] {
        let deployment = object(&both, &format!("Deployment sekali-{component}"));
        let pod = &deployment["spec"]["template"];
        selects(&monitor["spec"]["selector"], &pod["metadata"]["labels"]);
        has_port(&pod["spec"]["containers"][0]["ports"], "admin");
    }

    let monitor = object(&both, "ServiceMonitor sekali-aggregator");
    let endpoint = json!({"port": "http", "path": "/metrics"});
    assert_eq!(monitor["spec"]["endpoints"], json!([endpoint]));
    let service = object(&both, "Service sekali");
    selects(&monitor["spec"]["selector"], &service["metadata"]["labels"]);
    has_port(&service["spec"]["ports"], "http");

    let rule = object(&both, "PrometheusRule sekali");
    assert_eq!(rule["metadata"]["labels"]["release"], "prometheus");
    let file = std::fs::read_to_string(format!("{ROOT}/charts/sekali/rules/sekali.yaml")).unwrap();
    let file = format!("apiVersion: v1\nkind: Any\nmetadata: {{name: any}}\n{file}");
    assert_eq!(rule["spec"]["groups"], objects(&file)[0]["groups"]);
}

fn components(monitor: &Value) -> Value {
    let expression = &monitor["spec"]["selector"]["matchExpressions"][0];
    assert_eq!(expression["key"], "app.kubernetes.io/component");
    assert_eq!(expression["operator"], "In");
    expression["values"].clone()
}

fn selects(selector: &Value, labels: &Value) {
    let wanted = selector["matchLabels"].as_object().unwrap();
    assert!(!wanted.is_empty());
    for (name, value) in wanted {
        assert_eq!(&labels[name], value, "{name}");
    }
}

fn has_port(ports: &Value, name: &str) {
    let mut ports = ports.as_array().unwrap().iter();
    assert!(ports.any(|port| port["name"] == name), "{name}");
}

#[test]
fn the_run_of_the_test_has_a_name_that_the_api_server_takes() {
    for length in 36..=40 {
        let name = "s".repeat(length);
        let rendered = rendered(&[&format!("fullnameOverride={name}")]);
        let run = rendered
            .iter()
            .find(|(name, _)| name.starts_with("ChaosRun "));
        let run = &run.unwrap().0;
        assert!(!run.ends_with('-'), "{run}");
        object(&rendered, &run.replace("ChaosRun", "Pod"));
    }
}

#[test]
fn all_that_make_spans_are_told_of_the_collector_and_may_reach_it() {
    let rendered = rendered(&[
        "publisher.enabled=true",
        "tracing.endpoint=http://collector:4318",
        "tracing.sampleRatio=0",
        "tracing.headers.existingSecret=collector",
        "tracing.to[0].podSelector.matchLabels.app=collector",
    ]);
    let headers = json!({"secretKeyRef": {"name": "collector", "key": "headers"}});
    let told = [
        json!({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}),
        json!({"name": "OTEL_EXPORTER_OTLP_PROTOCOL", "value": "http/protobuf"}),
        json!({"name": "OTEL_TRACES_SAMPLER", "value": "parentbased_traceidratio"}),
        json!({"name": "OTEL_TRACES_SAMPLER_ARG", "value": "0"}),
        json!({"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": headers}),
    ];
    let is_told = |pod: &Value| {
        let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
        told.iter().all(|variable| env.contains(variable))
    };
    // A Job's name ends with a hash of what it is to do.
    for start in [
        "Deployment sekali-aggregator",
        "Deployment sekali-worker",
        "Job sekali-publisher-",
    ] {
        let found = rendered.iter().find(|(name, _)| name.starts_with(start));
        assert!(is_told(&found.unwrap().1["spec"]["template"]), "{start}");
    }
    // The operator makes none, and has the publishers of its runs make some.
    let operator = object(&rendered, "Deployment sekali-operator");
    assert!(!is_told(&operator["spec"]["template"]));
    let config = object(&rendered, "ConfigMap sekali-operator");
    let template = config["data"]["publisher.yaml"].as_str().unwrap();
    let pod = objects(&format!("apiVersion: v1\nkind: Pod\n{template}"));
    assert!(is_told(&pod[0]), "{template}");

    let way = json!({
        "to": [{"podSelector": {"matchLabels": {"app": "collector"}}}],
        "ports": [{"port": 4318, "protocol": "TCP"}],
    });
    for (component, reaches) in [
        ("aggregator", true),
        ("worker", true),
        ("publisher", true),
        ("operator", false),
        ("redis", false),
        ("postgresql", false),
    ] {
        let policy = object(&rendered, &format!("NetworkPolicy sekali-{component}"));
        let ways = policy["spec"]["egress"].as_array();
        let found = ways.is_some_and(|ways| ways.contains(&way));
        assert_eq!(found, reaches, "{component}");
    }
}

/// What the pods of an object are made from: another template is another pod.
fn template<'a>(rendered: &'a [(String, Value)], name: &str) -> &'a Value {
    &object(rendered, name)["spec"]["template"]
}

const PASSWORDS: [&str; 2] = ["auth.redisPassword=r", "auth.postgresqlPassword=p"];

#[test]
fn a_release_of_the_chart_restarts_neither_redis_nor_postgresql() {
    let directory = tests::directory();
    let copy = directory.path().join("sekali");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(format!("{ROOT}/charts/sekali"))
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    let about = copy.join("Chart.yaml");
    let text = std::fs::read_to_string(&about).unwrap();
    let next = text.replace(
        concat!("ersion: ", env!("CARGO_PKG_VERSION")),
        "ersion: 9.9.9",
    );
    assert_ne!(next, text);
    std::fs::write(&about, next).unwrap();

    let now = rendered(&PASSWORDS);
    let next = rendered_from(copy.to_str().unwrap(), &PASSWORDS);
    for server in ["StatefulSet sekali-redis", "StatefulSet sekali-postgresql"] {
        assert_eq!(template(&now, server), template(&next, server));
    }
    // It is another release indeed.
    let gateway = "Deployment sekali-aggregator";
    assert_ne!(template(&now, gateway), template(&next, gateway));
}

#[test]
fn a_new_password_restarts_those_who_read_it() {
    let before = rendered(&PASSWORDS);
    let redis = rendered(&["auth.redisPassword=new", PASSWORDS[1]]);
    let postgresql = rendered(&[PASSWORDS[0], "auth.postgresqlPassword=new"]);
    for (name, of_redis, of_postgresql) in [
        ("Deployment sekali-aggregator", true, true),
        ("Deployment sekali-worker", true, true),
        ("Deployment sekali-operator", false, false),
        ("StatefulSet sekali-redis", true, false),
        ("StatefulSet sekali-postgresql", false, false),
    ] {
        let restarts = |after| template(&before, name) != template(after, name);
        assert_eq!(restarts(&redis), of_redis, "{name}");
        assert_eq!(restarts(&postgresql), of_postgresql, "{name}");
    }
}

#[test]
fn another_template_of_the_publisher_is_another_job() {
    let job = |settings: &[&str]| {
        let settings = [&["publisher.enabled=true"], settings].concat();
        let jobs = rendered(&settings).into_iter();
        let mut jobs = jobs.filter(|(name, _)| name.starts_with("Job sekali-publisher-"));
        jobs.next().unwrap()
    };
    let before = job(&PASSWORDS);
    // It reads no password, so it stays what it is.
    assert_eq!(job(&["auth.redisPassword=new", PASSWORDS[1]]), before);
    for setting in [
        "publisher.podLabels.a=b",
        "publisher.podAnnotations.a=b",
        "publisher.settings.events=1",
    ] {
        let after = job(&[&PASSWORDS[..], &[setting]].concat());
        assert_ne!(after.0, before.0, "{setting}");
    }
}

#[test]
fn numbers_of_a_values_file_are_rendered_as_they_were_written() {
    let values = "
        image: {tag: 20261125}
        redis:
          user: 1000650000
          maxmemory: 1073741824
          settings: {client-query-buffer-limit: 1073741824}
          resources: {limits: {memory: 2147483648}}
          persistence: {size: 6.5Gi}
        postgresql: {settings: {autovacuum_freeze_max_age: 200000000, jit: false}}
        publisher: {enabled: true, settings: {events: 2000000, duplicates: 0.25}}
    ";
    let directory = tests::directory();
    let file = directory.path().join("values.yaml");
    std::fs::write(&file, values).unwrap();
    let rendered = rendered(&[&format!("--values={}", file.display())]);
    let text = |object: &Value| object.to_string();

    let redis = template(&rendered, "StatefulSet sekali-redis");
    assert_eq!(redis["spec"]["securityContext"]["runAsUser"], 1_000_650_000);
    let claims = &object(&rendered, "StatefulSet sekali-redis")["spec"]["volumeClaimTemplates"];
    assert_eq!(
        claims[0]["spec"]["resources"]["requests"]["storage"],
        "6.5Gi"
    );
    let configuration = &object(&rendered, "ConfigMap sekali-redis")["data"]["redis.conf"];
    let configuration = configuration.as_str().unwrap();
    for line in [
        "maxmemory 1073741824",
        "client-query-buffer-limit 1073741824",
    ] {
        assert!(
            configuration.lines().any(|one| one == line),
            "{configuration}"
        );
    }
    let gateway = text(template(&rendered, "Deployment sekali-aggregator"));
    assert!(gateway.contains("sekali:20261125"), "{gateway}");
    let postgresql = text(template(&rendered, "StatefulSet sekali-postgresql"));
    for setting in ["autovacuum_freeze_max_age=200000000", "jit=false"] {
        assert!(postgresql.contains(setting), "{postgresql}");
    }
    let job = rendered
        .iter()
        .find(|(name, _)| name.starts_with("Job sekali-publisher-"));
    let job = text(&job.unwrap().1);
    for flag in ["--events=2000000", "--duplicates=0.25"] {
        assert!(job.contains(flag), "{job}");
    }
}
