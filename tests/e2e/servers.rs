//! Redis and PostgreSQL that the chart did not make, over TLS.

use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::{Namespace, REGISTRY};
use crate::load::Load;
use crate::release::{Release, TIMEOUT};

const REDIS: &str = "redis-server --port 0 --tls-port 6379 --tls-auth-clients no \
    --tls-cert-file /tls/tls.crt --tls-key-file /tls/tls.key --tls-ca-cert-file /tls/ca.crt \
    --appendonly yes --appendfsync always --maxmemory-policy noeviction --requirepass $(PASSWORD)";

const POSTGRESQL: &str = "postgres -c ssl=on -c ssl_cert_file=/tls/tls.crt \
    -c ssl_key_file=/tls/tls.key";

#[test]
fn servers_of_ones_own_are_used_over_tls() {
    let namespace = Namespace::create("external");
    let tls = certificates();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "external"},
        "stringData": {
            "tls.crt": tls.certificate, "tls.key": tls.key, "ca.crt": tls.authority,
            "redis": "over there", "postgresql": "over there too",
        },
    });
    let redis = server("redis", "redis:7.0", 6379, REDIS);
    let postgresql = server("postgresql", "postgres:15", 5432, POSTGRESQL);
    let items = [&[secret][..], &redis, &postgresql].concat();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    namespace.apply(&list.to_string(), &[]).unwrap();
    namespace.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", TIMEOUT]);

    let release = Release::install_into(
        namespace,
        &[
            "redis.enabled=false",
            "externalRedis.host=external-redis",
            "externalRedis.tls=true",
            "externalRedis.existingSecret=external",
            "externalRedis.passwordKey=redis",
            "postgresql.enabled=false",
            "externalPostgresql.host=external-postgresql",
            "externalPostgresql.sslMode=verify-full",
            "externalPostgresql.database=events",
            "externalPostgresql.user=some one",
            "externalPostgresql.existingSecret=external",
            "externalPostgresql.passwordKey=postgresql",
            "certificates.existingSecret=external",
        ],
    );
    Load::start_with(&release, "external", &["events=5000"]).verdict();
    release.settled();

    let query = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl \
                 JOIN pg_stat_activity USING (pid) WHERE application_name = 'sekali'";
    let psql = [
        "exec",
        "external-postgresql",
        "--",
        "psql",
        "-h",
        "127.0.0.1",
        "-U",
        "some one",
    ];
    let encrypted = release
        .namespace
        .kubectl(&[&psql, &["-d", "events", "-Atc", query][..]].concat());
    assert_eq!(encrypted.trim(), "t");
}

/// A pod of a server and its Service.
fn server(name: &str, image: &str, port: u16, command: &str) -> [Value; 2] {
    let arguments: Vec<_> = command.split_whitespace().collect();
    let image = match REGISTRY.as_str() {
        "" => image.to_owned(),
        registry => format!("{registry}/{image}"),
    };
    let password = json!({"secretKeyRef": {"name": "external", "key": name}});
    let full_name = format!("external-{name}");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": full_name, "labels": {"server": name}},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 999, "runAsGroup": 999, "fsGroup": 999,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": name, "image": image, "args": arguments,
                "env": [
                    {"name": "PASSWORD", "valueFrom": password},
                    {"name": "PGPASSWORD", "valueFrom": password},
                    {"name": "POSTGRES_USER", "value": "some one"},
                    {"name": "POSTGRES_DB", "value": "events"},
                    {"name": "POSTGRES_PASSWORD", "valueFrom": password},
                    {"name": "PGDATA", "value": "/data/pgdata"},
                ],
                "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "data", "mountPath": "/data"},
                    {"name": "run", "mountPath": "/var/run/postgresql"},
                    {"name": "tls", "mountPath": "/tls"},
                ],
            }],
            "volumes": [
                {"name": "data", "emptyDir": {}},
                {"name": "run", "emptyDir": {}},
                {"name": "tls", "secret": {"secretName": "external", "defaultMode": 0o440}},
            ],
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": full_name},
        "spec": {"selector": {"server": name}, "ports": [{"port": port}]},
    });
    [pod, service]
}

struct Certificates {
    authority: String,
    certificate: String,
    key: String,
}

/// An authority of the test's own and what it signs for the two names.
fn certificates() -> Certificates {
    const SCRIPT: &str = r"
        set -e
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=e2e -keyout ca.key -out ca.crt
        openssl req -newkey rsa:2048 -nodes -subj /CN=servers -keyout tls.key -out tls.csr
        printf 'subjectAltName=DNS:external-redis,DNS:external-postgresql\n' >extensions
        openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
            -extfile extensions -out tls.crt
    ";
    let directory = tests::directory();
    let made = Command::new("sh")
        .args(["-c", SCRIPT])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    Certificates {
        authority: read("ca.crt"),
        certificate: read("tls.crt"),
        key: read("tls.key"),
    }
}
