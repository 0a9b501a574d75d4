//! What processes tell of themselves: metrics, traces, logs.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Program, Sekali, metrics, servers, until};

use crate::path::event;

/// The statistics after a load, in which connections end and no process of ours does: its counts
/// would end with it.
async fn load_with_faults(sekali: &mut Sekali) -> Value {
    let flags = [
        "--events=20000",
        "--duplicates=0.3",
        "--conflicts=0.02",
        "--malformed=0.02",
        "--batch=20",
        "--rate=10000",
        "--seed=3",
        "--target-url",
        &sekali.url(""),
    ];
    let mut publisher = Program::start("sekali-publisher", &flags);
    for _ in 0..3 {
        sekali.stores_more(1).await;
        sekali.redis().restart().await;
        servers::cut_off(sekali.database()).await;
    }
    assert!(
        publisher
            .ended_within(Duration::from_mins(10))
            .await
            .success(),
        "{}",
        publisher.log()
    );
    sekali.settled().await
}

#[tokio::test]
async fn metrics_equal_the_books_after_faults() {
    let mut sekali = Sekali::full(2).await;
    sekali.add_gateway().await;
    let stats = load_with_faults(&mut sekali).await;

    let mut texts = vec![sekali.metrics(0).await, sekali.metrics(1).await];
    for worker in 0..2 {
        texts.push(sekali.worker_metrics(worker).await);
    }
    let sum = |name: &str, label: &str| -> i64 {
        let of_each = texts.iter().map(|text| metrics::sum(text, name, label));
        of_each.map(|sum| sum.expect("it is a number")).sum()
    };
    let recorded = |outcome: &str| sum("sekali_store_recorded_events_total", outcome);
    let books = |name: &str| stats[name].as_i64().unwrap();
    let conflicts = recorded("outcome=\"conflict\"");
    let told = [
        recorded("outcome=\"stored\""),
        recorded("outcome=\"duplicate\"") + conflicts,
        conflicts,
        recorded("outcome=\"buried\""),
        // One observation an event.
        sum("sekali_store_accept_to_commit_seconds_count", ""),
    ];
    let booked = [
        "unique_processed",
        "duplicate_dropped",
        "conflicts",
        "buried",
        "received",
    ]
    .map(books);
    if sum("sekali_store_failures_total", "kind=\"unknown\"") == 0 {
        assert_eq!(told, booked);
    } else {
        // A commit whose answer was lost is in the books only.
        assert!(
            told.iter()
                .zip(&booked)
                .all(|(told, booked)| told <= booked)
        );
    }
    // So is what was taken by an append whose answer was lost.
    let accepted = sum("sekali_gateway_accepted_events_total", "");
    assert!((1..=books("received")).contains(&accepted), "{accepted}");
    let invalid = "reason=\"invalid-events\"";
    assert!(sum("sekali_gateway_refused_events_total", invalid) > 0);
    // Each of four processes more than once.
    assert!(sum("sekali_broker_connects_total", "") > 4);
    assert!(sum("sekali_worker_retries_total", "") > 0);

    until("a gateway tells the same books", async || {
        let text = sekali.metrics(0).await;
        let told = |name: &str, label: &str| metrics::sum(&text, name, label);
        told("sekali_books_events", "count=\"unique\"") == Some(books("unique_processed"))
            && told("sekali_books_unbalanced_events", "") == Some(0)
            && told("sekali_queue_events", "") == Some(0)
            && told("sekali_queue_lost_events", "") == Some(0)
            && told("sekali_queue_reachable", "") == Some(1)
    })
    .await;
    sekali.redis().program().kill();
    until("what can't be known is not told", async || {
        let text = sekali.metrics(0).await;
        metrics::sum(&text, "sekali_queue_events", "").is_none()
            && metrics::sum(&text, "sekali_queue_reachable", "") == Some(0)
    })
    .await;
}

#[tokio::test]
async fn the_largest_topics_are_told_if_asked_for() {
    let sekali = Sekali::embedded_with(&["--metrics-topics=1"]).await;
    let events = json!([
        event("big", "1"),
        event("big", "2"),
        event("small", "1"),
        event("tiny", "1")
    ]);
    sekali.store(&events).await.ok();
    until("they are told", async || {
        let text = sekali.metrics(0).await;
        let told = |topic: &str| {
            let label = format!("count=\"unique\",topic=\"{topic}\"");
            metrics::sum(&text, "sekali_topic_events", &label)
        };
        assert!(!text.contains("topic=\"small\""), "{text}");
        (told("big"), told("other")) == (Some(2), Some(2))
    })
    .await;
}

#[tokio::test]
async fn nothing_is_logged_for_an_event() {
    let mut sekali = Sekali::full(1).await;
    sekali.store(&event("t", "first")).await.ok();
    until("it has said all that it says at its start", async || {
        sekali.worker(0).log().contains("\"check\":\"store\"")
    })
    .await;
    let before = [sekali.gateway(0).whole_log(), sekali.worker(0).whole_log()];
    for number in 0..300 {
        // New ones, duplicates, conflicts, and what is none.
        let mut one = event("t", &(number / 3).to_string());
        one["payload"] = json!({"n": number % 2});
        assert_eq!(sekali.publish(&one).await.status, 200);
        assert_eq!(sekali.publish(&json!({"n": number})).await.status, 422);
        assert_eq!(sekali.get("/events?limit=1").await.status, 200);
    }
    sekali.settled().await;
    let after = [sekali.gateway(0).whole_log(), sekali.worker(0).whole_log()];
    assert_eq!(after, before);
}

/// What must be found nowhere but where it belongs.
const MARK: &str = "mArKeD";

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one way through everything that has a secret"
)]
async fn no_secret_and_no_payload_is_told() {
    let secret = |of: &str| format!("{of}-{MARK}");
    let database = servers::database()
        .await
        .replace("postgres@", &format!("postgres:{}@", secret("database")));
    assert!(database.contains(MARK), "{database}");
    let mut redis = servers::Redis::start().await;
    redis.set("requirepass", &secret("queue"));
    let queue = redis
        .url()
        .replace("redis://", &format!("redis://:{}@", secret("queue")));
    let directory = tests::directory();
    let key_file = directory.path().join("key");
    std::fs::write(&key_file, secret("key")).unwrap();
    let key_file = key_file.to_str().unwrap();
    let keys = directory.path().join("keys");
    let hash = {
        use sha2::Digest as _;
        let hash = sha2::Sha256::digest(secret("key"));
        tests::hex(&hash)
    };
    std::fs::write(&keys, format!("all admin {hash}\n")).unwrap();
    let token = format!("authorization=Bearer {}", secret("collector"));
    let variables = [
        ("RUST_LOG", "debug"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ("OTEL_EXPORTER_OTLP_HEADERS", &token),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let servers = [
        "--database-url",
        &database,
        "--broker-url",
        &queue,
        "--admin-addr",
        "127.0.0.1:0",
    ];
    let gateway_flags = [
        "--http-addr",
        "127.0.0.1:0",
        "--api-keys-file",
        keys.to_str().unwrap(),
    ];
    let mut gateway = Program::start_in(
        "sekali-aggregator",
        &[&servers[..], &gateway_flags].concat(),
        &variables,
    );
    let worker_flags = ["--name", "worker"];
    let mut worker = Program::start_in(
        "sekali-worker",
        &[&servers[..], &worker_flags].concat(),
        &variables,
    );
    let address = gateway.address("http").await;
    let client = reqwest::Client::new();
    let authorized = |request: reqwest::RequestBuilder| request.bearer_auth(secret("key"));
    let mut answers = Vec::new();
    let marked = |id: &str| {
        let mut event = event("t", id);
        event["payload"] = json!({"card": secret("payload")});
        event
    };
    let url = format!("http://{address}/publish?ack=stored");
    until("it stores", async || {
        let request = authorized(client.post(&url)).body(marked("1").to_string());
        request
            .send()
            .await
            .is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    // What is refused, in each way that a body can be.
    let mut numbered = marked("2");
    numbered["timestamp"] = json!(secret("timestamp"));
    let bodies = [
        numbered.to_string(),
        format!("{{\"payload\": \"{}", secret("torn")),
        json!({"events": [marked(""), secret("item")]}).to_string(),
        marked("3").to_string(),
    ];
    for query in ["", "?partial=true", "?ack=stored"] {
        for body in &bodies {
            let url = format!("http://{address}/publish{query}");
            let answer = authorized(client.post(url))
                .body(body.clone())
                .send()
                .await
                .unwrap();
            answers.push(answer.text().await.unwrap());
        }
    }
    let wrong = client
        .get(format!("http://{address}/stats"))
        .bearer_auth(secret("wrong"));
    answers.push(wrong.send().await.unwrap().text().await.unwrap());
    let events = directory.path().join("events.ndjson");
    std::fs::write(&events, format!("{}\n{}\n", marked("4"), marked("5"))).unwrap();
    let target = format!("http://{address}");
    let publisher_flags = [
        "--target-url",
        &target,
        "--api-key-file",
        key_file,
        "--file",
        events.to_str().unwrap(),
    ];
    let mut publisher = Program::start_in("sekali-publisher", &publisher_flags, &variables);
    assert!(publisher.ended().await.success(), "{}", publisher.log());
    // Each server away for a while, and what can be asked meanwhile.
    redis.program().kill();
    for path in ["/stats", "/readyz", "/metrics"] {
        let request = authorized(client.get(format!("http://{address}{path}")));
        answers.push(request.send().await.unwrap().text().await.unwrap());
    }
    until("the gateway says that the queue is away", async || {
        let answer = client
            .get(format!("http://{address}/healthz"))
            .send()
            .await
            .unwrap();
        let status = answer.status();
        answers.push(answer.text().await.unwrap());
        status == 503
    })
    .await;
    until("the receiver's absence is told", async || {
        gateway.whole_log().contains("can't export traces")
    })
    .await;
    gateway.terminate().await;
    worker.terminate().await;
    for (name, text) in [
        ("gateway", gateway.whole_log()),
        ("worker", worker.whole_log()),
        ("publisher", publisher.whole_log()),
        ("answers", answers.join("\n")),
    ] {
        assert!(!text.is_empty(), "{name} said nothing");
        let found = text.lines().find(|line| line.contains(MARK));
        assert_eq!(found, None, "{name}");
    }
}
