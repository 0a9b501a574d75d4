//! Passwords: any will do, and nothing shows one. The servers are the oldest PostgreSQL and a
//! Valkey.

use serde_json::json;

use crate::load::Load;
use crate::release::{NAME, Release, TIMEOUT};

const REDIS: &str = "r 1:/@?#%'\"\\$`~!&*()[]{}<>|;,=+^é";
const POSTGRESQL: &str = "p 2:/@?#%'\"\\$`~!&*()[]{}<>|;,=+^é";

#[test]
fn passwords_of_every_character_work_with_valkey_and_postgresql_15_and_nothing_shows_them() {
    let settings = [
        &format!("--set-json=auth.redisPassword={}", json!(REDIS)),
        &format!("--set-json=auth.postgresqlPassword={}", json!(POSTGRESQL)),
        "redis.image.repository=valkey",
        "redis.server=valkey-server",
        "--set-string=redis.image.tag=9.1",
        "--set-string=postgresql.image.tag=15",
    ];
    let release = Release::install("secrets", &settings);
    let namespace = &release.namespace;
    assert!(release.redis("INFO server").contains("server_name:valkey"));
    Load::start_with(&release, "secrets", &["events=5000"]).verdict();
    namespace.helm(&["test", NAME, TIMEOUT]).unwrap();

    let everything = "all,configmaps,secrets,persistentvolumeclaims,networkpolicies,\
                      serviceaccounts,events";
    let mut shown = vec![
        namespace.kubectl(&["describe", everything]),
        namespace.kubectl(&["get", "pods", "--output=yaml"]),
        namespace.helm(&["get", "notes", NAME]).unwrap(),
    ];
    for component in ["aggregator", "worker", "redis", "postgresql"] {
        for pod in release.pod_names(component) {
            shown.push(namespace.kubectl(&["logs", &pod, "--all-containers"]));
        }
    }
    let command_line = ["exec", "sekali-redis-0", "--", "cat", "/proc/1/cmdline"];
    shown.push(namespace.kubectl(&command_line));
    let manifest = namespace.helm(&["get", "manifest", NAME]).unwrap();
    let (secrets, rest): (Vec<_>, Vec<_>) = manifest
        .split("\n---\n")
        .partition(|object| object.contains("\nkind: Secret\n"));
    assert_eq!(secrets.len(), 1, "{manifest}");
    shown.extend(rest.into_iter().map(str::to_owned));
    for password in [REDIS, POSTGRESQL] {
        for text in &shown {
            assert!(!text.contains(password), "{text}");
            // A part of it is too much as well: `p 2:/@?`.
            assert!(!text.contains(&password[..7]), "{text}");
        }
    }
}
