//! A gateway without a queue, which does itself what is otherwise the workers' work.

use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection};
use tests::servers::Postgres;
use tests::{Answer, Program, Sekali, until};

use crate::path::event;

/// What it says of its readiness, once it has started.
async fn readiness(gateway: &mut Program) -> (u16, Value) {
    let url = format!("http://{}/readyz", gateway.address("http").await);
    let client = reqwest::Client::new();
    let mut said = (0, Value::Null);
    until("it has started", async || {
        let answer = Answer::of(client.get(&url)).await;
        said = (answer.status, answer.json()["checks"].clone());
        said.1["process"].is_null()
    })
    .await;
    said
}

#[tokio::test]
async fn it_is_ready_while_its_store_is_there_and_says_otherwise_that_it_is_not() {
    let mut server = Postgres::start(&[]).await;
    let database = server.database().await;
    server.program().kill();
    let flags = [
        "--http-addr=127.0.0.1:0",
        "--admin-addr=127.0.0.1:0",
        "--database-url",
        &database,
    ];
    let mut gateway = Program::start("sekali-aggregator", &flags);
    let (status, checks) = readiness(&mut gateway).await;
    assert_eq!(status, 503, "{checks}");
    assert_eq!(checks["store"], "the schema is not up to date yet");
    server.restart().await;
    until("it is ready", async || {
        readiness(&mut gateway).await.0 == 200
    })
    .await;
    server.program().kill();
    let mut checks = Value::Null;
    until("it is not any more", async || {
        let (status, said) = readiness(&mut gateway).await;
        checks = said;
        status == 503
    })
    .await;
    assert_ne!(checks["store"], "ok");
}

#[tokio::test]
async fn what_a_deleted_topic_left_behind_is_removed() {
    let mut sekali = Sekali::embedded().await;
    for topic in ["kept", "gone"] {
        let events: Value = (0..10).map(|n| event(topic, &n.to_string())).collect();
        sekali.publish(&events).await.ok();
    }
    let delete = sekali.client().delete(sekali.url("/topics/gone"));
    assert_eq!(sekali.ask(delete).await.status, 204);
    // It looks for such rows every minute, and at its start.
    sekali.restart_everything().await;
    until("no row is left", async || {
        let mut file = SqliteConnection::connect(sekali.database()).await.unwrap();
        let rows = sqlx::query_scalar("SELECT count(*) FROM events");
        let rows: i64 = rows.fetch_one(&mut file).await.unwrap();
        rows == 10
    })
    .await;
    assert_eq!(sekali.events("?topic=kept").await.len(), 10);
}
