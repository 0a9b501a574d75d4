//! What a Prometheus in the cluster, which goes by the pods' annotations, makes of an installation.

use serde_json::{Value, json};
use tests::until;

use crate::prometheus::Prometheus;
use crate::release::{Forward, Release};

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
            let samples = prometheus.api().query(query).await.unwrap();
            samples.len() == 1
                && samples[0]["metric"]["namespace"] == release.namespace.name()
                && samples[0]["value"][1].as_str() == Some(&*expected)
        })
        .await;
    }

    prometheus.api().evaluates_every_rule().await;
    let firing = r#"ALERTS{alertstate="firing"}"#;
    let alerts = prometheus.api().query(firing).await.unwrap();
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
