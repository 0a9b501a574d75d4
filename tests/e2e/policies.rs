//! Who reaches whom.

use serde_json::{Value, json};

use crate::cluster::{Namespace, REGISTRY, until};
use crate::release::{NAME, Release, TIMEOUT, shared};

/// What an attempt to connect comes to, as `timeout` and bash tell it.
const OPEN: &str = "0";
const TIMED_OUT: &str = "124";

#[test]
fn a_stranger_reaches_the_gateways_port_and_nothing_else() {
    let release = &shared();
    let elsewhere = Namespace::create("elsewhere");
    let strangers = [
        Stranger::start(&release.namespace, "stranger", &json!({})),
        Stranger::start(&elsewhere, "stranger", &json!({})),
    ];
    let places = Places::of(release);
    for stranger in &strangers {
        until("a stranger reaches the gateways", || {
            stranger.tries(&places.gateway) == OPEN
        });
        for place in &places.closed {
            assert_eq!(stranger.tries(place), TIMED_OUT, "{place}");
        }
    }

    // Without its policy Redis is open, so what times out above does so because of it.
    release
        .namespace
        .kubectl(&["delete", "networkpolicy", "sekali-redis"]);
    let redis = places
        .closed
        .iter()
        .find(|place| place.ends_with("/6379"))
        .unwrap();
    until("without a policy Redis is open", || {
        strangers[0].tries(redis) == OPEN
    });
    release.upgrade(&[]).unwrap();
    until("with one it is closed", || {
        strangers[0].tries(redis) == TIMED_OUT
    });
    release.namespace.kubectl(&[
        "delete",
        "pod",
        "stranger",
        "--wait=false",
        "--grace-period=1",
    ]);
}

#[test]
fn metrics_are_reached_from_where_the_values_say() {
    let release = &shared();
    let from = "networkPolicy.metricsFrom[0].podSelector.matchLabels.role=scraper";
    release.upgrade(&[from]).unwrap();
    let scraper = Stranger::start(&release.namespace, "scraper", &json!({"role": "scraper"}));
    let stranger = Stranger::start(&release.namespace, "no-scraper", &json!({}));
    for component in ["aggregator", "worker"] {
        let place = format!("{}/9090", address(&release.pods(component)[0]));
        until("the scraper reaches the admin port", || {
            scraper.tries(&place) == OPEN
        });
        assert_eq!(stranger.tries(&place), TIMED_OUT, "{place}");
    }
    release.upgrade(&[]).unwrap();
    for pod in ["scraper", "no-scraper"] {
        release
            .namespace
            .kubectl(&["delete", "pod", pod, "--wait=false", "--grace-period=1"]);
    }
}

#[test]
fn who_may_publish_is_closed_to_others_and_open_to_the_release() {
    let release = &shared();
    let from = "networkPolicy.publishFrom[0].podSelector.matchLabels.role=sender";
    release.upgrade(&[from]).unwrap();
    let sender = Stranger::start(&release.namespace, "sender", &json!({"role": "sender"}));
    let stranger = Stranger::start(&release.namespace, "no-sender", &json!({}));
    let place = Places::of(release).gateway;
    until("the sender reaches the gateways", || {
        sender.tries(&place) == OPEN
    });
    assert_eq!(stranger.tries(&place), TIMED_OUT);
    // Its publisher sends, and the operator, which gives the verdict of a run, reads the books.
    release.namespace.helm(&["test", NAME, TIMEOUT]).unwrap();
    release.upgrade(&[]).unwrap();
    for pod in ["sender", "no-sender"] {
        release
            .namespace
            .kubectl(&["delete", "pod", pod, "--wait=false", "--grace-period=1"]);
    }
}

/// Addresses and ports, as bash writes them.
struct Places {
    gateway: String,
    closed: Vec<String>,
}

impl Places {
    fn of(release: &Release) -> Self {
        let of = |component| address(&release.pods(component)[0]);
        let service = release.namespace.get(&["service", "sekali"]);
        let cluster_ip = service["spec"]["clusterIP"].as_str().unwrap();
        Self {
            gateway: format!("{cluster_ip}/8080"),
            closed: vec![
                format!("{}/9090", of("aggregator")),
                format!("{}/9090", of("worker")),
                format!("{}/6379", of("redis")),
                format!("{}/5432", of("postgresql")),
            ],
        }
    }
}

fn address(pod: &Value) -> String {
    pod["status"]["podIP"].as_str().unwrap().to_owned()
}

/// A pod that is none of ours, with a shell.
struct Stranger<'a> {
    namespace: &'a Namespace,
    name: &'static str,
}

impl<'a> Stranger<'a> {
    fn start(namespace: &'a Namespace, name: &'static str, labels: &Value) -> Self {
        let image = match REGISTRY.as_str() {
            "" => "redis:7.4".to_owned(),
            registry => format!("{registry}/redis:7.4"),
        };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
            "spec": {
                "automountServiceAccountToken": false,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 999,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "shell", "image": image, "command": ["sleep", "3600"],
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        });
        namespace.apply(&pod.to_string(), &[]).unwrap();
        let pod = format!("pod/{name}");
        namespace.kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=120s"]);
        Self { namespace, name }
    }

    fn tries(&self, place: &str) -> String {
        let script = format!("timeout 3 bash -c ': </dev/tcp/{place}' 2>/dev/null; echo $?");
        let said = self
            .namespace
            .kubectl(&["exec", self.name, "--", "bash", "-c", &script]);
        said.trim().to_owned()
    }
}
