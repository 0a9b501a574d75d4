//! Keys from a Secret.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::release::{Forward, NAME, TIMEOUT, shared};

const KEY: &str = "a key that only the publisher has";

#[tokio::test]
async fn keys_from_a_secret_are_asked_for_and_taken_up_when_they_change() {
    let release = &shared();
    let namespace = &release.namespace;
    let key = KEY.replace(' ', "-");
    let hash = tests::hex(&Sha256::digest(&key));
    let secret = |keys: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"},
            "stringData": {"keys": keys, "key": key},
        })
        .to_string()
    };
    namespace
        .apply(&secret(&format!("publisher admin {hash}\n")), &[])
        .unwrap();
    release
        .upgrade(&[
            "apiKeys.existingSecret=keys",
            "publisher.apiKey.existingSecret=keys",
        ])
        .unwrap();
    release.has_replicas("aggregator", 1);

    let forward = Forward::to(release, "service/sekali", 8080).await;
    assert_eq!(forward.get("/stats").await.status, 401);
    assert_eq!(forward.get("/readyz").await.status, 200);
    namespace.helm(&["test", NAME, TIMEOUT]).unwrap();

    // Without a restart: the kubelet writes the file anew, and the gateway reads it again.
    namespace
        .apply(&secret(&format!("publisher read {hash}\n")), &[])
        .unwrap();
    // It would within a minute or so; a change to the pod has the kubelet look at once.
    let pod = &release.pod_names("aggregator")[0];
    namespace.kubectl(&["annotate", "pod", pod, "e2e=looked"]);
    let client = reqwest::Client::new();
    tests::until("the key may publish no more", async || {
        let request = client.post(forward.url("/publish")).bearer_auth(&key);
        request
            .body("[]")
            .send()
            .await
            .is_ok_and(|answer| answer.status() == 403)
    })
    .await;
    namespace.helm(&["test", NAME, TIMEOUT]).unwrap_err();

    drop(forward);
    release.upgrade(&[]).unwrap();
    release.has_replicas("aggregator", 1);
    namespace.kubectl(&["delete", "secret", "keys"]);
}
