//! What docs/operations.md asks after a restore.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tests::{Sekali, servers};

use crate::path::event;

const PAGE: &str = include_str!("../../docs/operations.md");

/// How many topics have books that differ from their rows, and how many rows have no topic.
async fn faults(url: &str) -> (usize, i64) {
    let block = PAGE.split("```sql\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let (books, rows) = block.split_once(';').unwrap();
    let mut connection = PgConnection::connect(url).await.unwrap();
    let books = sqlx::query(AssertSqlSafe(books.to_owned()))
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let rows = sqlx::query_scalar(AssertSqlSafe(rows.to_owned()))
        .fetch_one(&mut connection)
        .await
        .unwrap();
    (books.len(), rows)
}

#[tokio::test]
async fn what_must_hold_after_a_restore_holds_and_what_does_not_fit_is_found() {
    let sekali = Sekali::full(1).await;
    let events: Value = (0..300)
        .map(|n| event(&format!("t{}", n % 3), &(n % 200).to_string()))
        .collect();
    sekali.publish(&events).await.ok();
    sekali.settled().await;
    let url = sekali.database();
    assert_eq!(faults(url).await, (0, 0));
    servers::execute(url, "DELETE FROM events WHERE topic_id = 1").await;
    assert_eq!(faults(url).await, (1, 0));
    servers::execute(url, "DELETE FROM topics WHERE id = 2").await;
    let (_, nameless) = faults(url).await;
    assert!(nameless > 0);
}
