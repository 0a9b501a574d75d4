//! What can be asked.

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tests::{Answer, Proxy, Sekali, servers, until};

use crate::contract::{JSON, is_problem};
use crate::path::event;
use crate::promise::counts;

#[tokio::test]
async fn every_gateway_tells_the_same_and_a_restart_changes_nothing() {
    let mut sekali = Sekali::full(2).await;
    sekali.add_gateway().await;
    let batch: Value = (0..500)
        .map(|n| event("t", &(n % 400).to_string()))
        .collect();
    sekali.publish(&batch).await.ok();
    let told = sekali.settled().await;
    let ask = async |sekali: &Sekali, gateway: usize| -> Value {
        let url = sekali.url_of(gateway, "/stats");
        let mut stats = sekali.ask(sekali.client().get(url)).await.ok();
        for changing in ["uptime", "uptime_seconds", "throughput", "recorded_rate"] {
            assert!(stats.as_object_mut().unwrap().remove(changing).is_some());
        }
        stats
    };
    let before = ask(&sekali, 0).await;
    assert_eq!(before["received"], told["received"]);
    assert_eq!(ask(&sekali, 1).await, before);
    sekali.restart_everything().await;
    assert_eq!(ask(&sekali, 0).await, before);
    assert_eq!(ask(&sekali, 1).await, before);
    assert_eq!(counts(&before), [500, 400, 100, 0, 0]);
}

/// An event moves from the queue to the books while they are asked for: it may be counted twice
/// for a moment, and is never left out.
#[tokio::test]
async fn what_is_recorded_while_the_statistics_are_asked_for_is_in_them() {
    let mut sekali = Sekali::full(1).await;
    let line = Proxy::to(sekali.redis().address()).await;
    let database = sekali.database().to_owned();
    sekali.lead(line.address(), &database);
    sekali.add_gateway().await;
    let mut published = 0;
    until("the queue answers within its time", async || {
        sekali.worker(0).terminate().await;
        published += 1;
        sekali
            .publish(&event("t", &published.to_string()))
            .await
            .ok();
        let answer = stats_while_it_is_recorded(&mut sekali, &line).await;
        if answer.status == 503 {
            return false;
        }
        let received = answer.ok()["received"].as_i64().unwrap();
        assert!(received >= published, "{received} of {published}");
        true
    })
    .await;
}

/// The second gateway's, whose line to the queue carries nothing before all of it is recorded.
async fn stats_while_it_is_recorded(sekali: &mut Sekali, line: &Proxy) -> Answer {
    let url = sekali.url_of(1, "/stats");
    let ask = || Answer::of(sekali.client().get(&url));
    until("it can be asked", async || ask().await.status == 200).await;
    line.stall();
    let asked = ask();
    let records = async {
        sekali.replace_worker("late");
        sekali.settled().await;
        line.mend();
    };
    let (answer, ()) = tokio::join!(asked, records);
    answer
}

#[tokio::test]
async fn pages_are_stable_while_others_write() {
    for sekali in Sekali::of_each_kind().await {
        let at = |n: usize| {
            let mut event = event(&format!("t{}", n % 3), &n.to_string());
            event["timestamp"] = json!(format!("2026-01-01T00:{:02}:00Z", n % 60));
            event
        };
        let old: Value = (0..1000).map(at).collect();
        sekali.publish(&old).await.ok();
        sekali.settled().await;
        let mut seen = Vec::new();
        let mut path = "/events?limit=70".to_owned();
        for page in 1000.. {
            let answer = sekali.get(&path).await;
            let events = answer.ok();
            seen.extend(events.as_array().unwrap().iter().map(|event| {
                (
                    event["timestamp"].as_str().unwrap().to_owned(),
                    event["event_id"]
                        .as_str()
                        .unwrap()
                        .parse::<usize>()
                        .unwrap(),
                )
            }));
            // Someone writes between two pages.
            sekali.store(&at(page)).await.ok();
            let Some(next) = next(answer.header("link")) else {
                break;
            };
            path = next;
        }
        assert!(seen.is_sorted_by(|a, b| a.0 >= b.0), "newest first");
        let mut old: Vec<_> = seen.iter().map(|(_, n)| *n).filter(|n| *n < 1000).collect();
        old.sort_unstable();
        assert_eq!(old, (0..1000).collect::<Vec<_>>(), "each once");
        let lines = sekali
            .ask(
                sekali
                    .client()
                    .get(sekali.url("/events?limit=10000"))
                    .header("accept", "application/x-ndjson"),
            )
            .await;
        let all: Vec<Value> = lines
            .body
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            Value::from(all),
            sekali.get("/events?limit=10000").await.ok()
        );
    }
}

/// The path of the next page.
fn next(link: &str) -> Option<String> {
    let (path, _) = link.strip_prefix('<')?.split_once('>')?;
    Some(path.to_owned())
}

#[tokio::test]
async fn filters_choose_what_they_say() {
    for sekali in Sekali::of_each_kind().await {
        let body: Value = (0..20)
            .map(|n| {
                let mut event = event(if n % 2 == 0 { "even" } else { "odd" }, &n.to_string());
                event["timestamp"] = json!(format!("2026-01-01T00:00:{n:02}Z"));
                event["source"] = json!(format!("s{}", n % 5));
                event
            })
            .collect();
        sekali.publish(&body).await.ok();
        sekali.settled().await;
        for (query, expected) in [
            ("?topic=even&limit=3", vec!["18", "16", "14"]),
            ("?source=s1", vec!["16", "11", "6", "1"]),
            ("?topic=odd&source=s1", vec!["11", "1"]),
            ("?from=2026-01-01T00:00:17Z", vec!["19", "18", "17"]),
            ("?to=2026-01-01T00:00:02Z", vec!["1", "0"]),
            (
                "?from=2026-01-01T07:00:03+07:00&to=2026-01-01T00:00:05Z",
                vec!["4", "3"],
            ),
            (
                "?topic=even&from=2026-01-01T00:00:05Z&to=2026-01-01T00:00:08Z",
                vec!["6"],
            ),
        ] {
            let events = sekali.events(query).await;
            let ids: Vec<_> = events
                .iter()
                .map(|event| event["event_id"].as_str().unwrap())
                .collect();
            assert_eq!(ids, expected, "{query}");
        }
    }
}

#[tokio::test]
async fn a_page_of_conflicts_leads_to_another_only_if_there_is_one() {
    for sekali in Sekali::of_each_kind().await {
        let version = |n: usize| {
            let mut event = event("t", "1");
            event["payload"] = json!({"version": n});
            event
        };
        let body: Value = (0..5).map(version).collect();
        sekali.publish(&body).await.ok();
        sekali.settled().await;
        let mut path = "/conflicts?limit=2".to_owned();
        let mut pages = Vec::new();
        loop {
            let answer = sekali.get(&path).await;
            pages.push(answer.ok().as_array().unwrap().len());
            let Some(next) = next(answer.header("link")) else {
                break;
            };
            path = next;
        }
        assert_eq!(pages, [2, 2]);
    }
}

/// What an entry that was garbled in the queue can leave behind.
#[tokio::test]
async fn a_conflict_whose_payload_is_no_json_is_listed_with_the_others() {
    let sekali = Sekali::direct().await;
    sekali.publish(&event("t", "1")).await.ok();
    let garbled = "INSERT INTO conflicts
            (topic_id, event_id, ts, source, payload, received_at, recorded_at)
        SELECT id, '1', now(), 'test', '{garbled', now(), now() FROM topics";
    servers::execute(sekali.database(), garbled).await;
    let mut other = event("t", "1");
    other["payload"] = json!({"other": 1});
    sekali.publish(&other).await.ok();
    let conflicts = sekali.get("/conflicts").await.ok();
    assert_eq!(conflicts[0]["event"]["payload"], json!({"other": 1}));
    assert_eq!(conflicts[1]["event"]["payload"], json!("{garbled"));
}

#[tokio::test]
async fn a_question_that_no_index_answers_in_time_is_to_be_narrower() {
    let sekali = Sekali::direct().await;
    sekali.publish(&event("t", "1")).await.ok();
    let mut outsider = PgConnection::connect(sekali.database()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        .execute(&mut outsider)
        .await
        .unwrap();
    for (path, status, problem) in [
        ("/events?source=x", 422, "urn:sekali:too-slow"),
        ("/events?topic=t", 503, "urn:sekali:unavailable"),
    ] {
        // As the server itself does after ten seconds.
        let ended = until("a question is ended", async || {
            let end = "SELECT pg_cancel_backend(pid) FROM pg_locks
                       JOIN pg_database d ON d.oid = database
                       WHERE NOT granted AND d.datname = current_database()";
            let ended = sqlx::query(end).fetch_all(&mut outsider).await;
            !ended.unwrap().is_empty()
        });
        let (answer, ()) = tokio::join!(sekali.get(path), ended);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        is_problem(&answer, path);
        assert_eq!(answer.json()["type"], problem);
    }
}

#[tokio::test]
async fn questions_that_cannot_be_meant_are_refused_by_name() {
    for sekali in Sekali::of_each_kind().await {
        sekali.settled().await;
        for (path, word) in [
            ("/events?limit=0", "limit"),
            ("/events?limit=10001", "limit"),
            ("/events?limit=x", "limit"),
            ("/events?cursor=forged", "cursor"),
            ("/events?cursor=", "cursor"),
            ("/events?from=yesterday", "from"),
            ("/events?to=10000-01-01T00:00:00Z", "to"),
            ("/events?topic=", "topic"),
            ("/events?topic=a%00b", "topic"),
            ("/events?topics=a", "topic, source"),
            ("/events?limit=1&limit=2", "limit"),
            ("/conflicts?cursor=x", "cursor"),
            ("/dead-letters?limit=0", "limit"),
            ("/stats?x=1", "query"),
        ] {
            let answer = sekali.get(path).await;
            assert_eq!(answer.status, 422, "{path}: {}", answer.body);
            is_problem(&answer, path);
            assert!(answer.body.contains(word), "{path}: {}", answer.body);
        }
        let answer = sekali.publish_bytes("?ack=maybe", JSON, "[]").await;
        assert_eq!(answer.status, 422);
        assert!(answer.body.contains("queued or stored"), "{}", answer.body);
        assert_eq!(sekali.events("?topic=unknown").await, Vec::<Value>::new());
    }
}

#[tokio::test]
async fn a_wrong_method_or_path_is_told_what_is_right() {
    let sekali = Sekali::embedded().await;
    for (method, path, allow) in [
        ("GET", "/publish", "POST"),
        ("DELETE", "/events", "GET,HEAD"),
        ("PATCH", "/topics/a", "DELETE"),
        ("POST", "/stats", "GET,HEAD"),
    ] {
        let method = method.parse().unwrap();
        let answer = sekali
            .ask(sekali.client().request(method, sekali.url(path)))
            .await;
        assert_eq!(answer.status, 405, "{path}");
        assert_eq!(answer.header("allow"), allow, "{path}");
        is_problem(&answer, path);
    }
    for path in ["/nothing", "/events/a", "/dead-letters/x/replay/y"] {
        let answer = sekali.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        is_problem(&answer, path);
    }
    // A path may be no text at all.
    for (method, path) in [
        ("DELETE", "/topics/none"),
        ("DELETE", "/dead-letters/7"),
        ("DELETE", "/dead-letters/x"),
        ("GET", "/events/%ff/x"),
        ("GET", "/events/x/%ff"),
        ("DELETE", "/topics/%ff"),
        ("DELETE", "/dead-letters/%ff"),
        ("POST", "/dead-letters/%ff/replay"),
    ] {
        let method = method.parse().unwrap();
        let request = sekali.client().request(method, sekali.url(path));
        let answer = sekali.ask(request).await;
        assert_eq!(answer.status, 404, "{path}");
        is_problem(&answer, path);
    }
}

#[tokio::test]
async fn what_is_here_is_described() {
    let sekali = Sekali::embedded().await;
    let index = sekali.get("/").await.ok();
    assert_eq!(index["name"], "sekali");
    let page = sekali
        .ask(
            sekali
                .client()
                .get(sekali.url("/"))
                .header("accept", "text/html"),
        )
        .await;
    assert!(page.header("content-type").starts_with("text/html"));
    let docs = sekali.get("/docs").await;
    for page in [&page, &docs] {
        assert!(
            page.header("content-security-policy")
                .contains("default-src 'none'")
        );
        assert!(!page.body.contains("https://"), "nothing from outside");
    }
    let api = sekali.get("/openapi.json").await.ok();
    for place in index["places"].as_array().unwrap() {
        let (method, path) = (
            place["method"].as_str().unwrap(),
            place["path"].as_str().unwrap(),
        );
        let undescribed = [
            "/metrics",
            "/healthz",
            "/livez",
            "/readyz",
            "/docs",
            "/openapi.json",
        ];
        if !undescribed.contains(&path) {
            let described = &api["paths"][path][method.to_lowercase()];
            assert!(described.is_object(), "{method} {path}");
        }
    }
    let health = sekali.get("/healthz").await.ok();
    assert_eq!(health, json!({"status": "ok", "checks": {"store": "ok"}}));
    let metrics = sekali.get("/metrics").await;
    assert!(
        metrics.body.contains("sekali_http_requests_total"),
        "{}",
        metrics.body
    );
}
