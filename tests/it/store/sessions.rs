//! What a session of PostgreSQL is told, whatever the server's own settings, and what is left
//! behind on one.

use futures::future::join_all;
use sqlx::{Connection as _, PgConnection};
use store::{Outcome, Recorded, StoreError};

use super::{Database, batch, event, now, record};
use Outcome::Stored;

/// The lock that recording shares and deleting a topic takes alone.
const TOPICS_LOCK: i64 = 126_879_430_437_993;

#[tokio::test]
async fn a_lock_that_is_refused_costs_nothing_that_comes_later() {
    let [database, _] = Database::of_each_kind().await;
    let store = database.store(10);
    store.migrate().await.unwrap();
    record(&store, &[batch(0, &[event("t", "0", "{}")])]).await;
    let mut outsider = connect(&database).await;
    lock(&mut outsider).await;
    // As many as the store has connections.
    let all: Vec<_> = (1..=4)
        .map(|n| [batch(n, &[event("t", &n.to_string(), "{}")])])
        .collect();
    let record_all = || join_all(all.iter().map(|batch| store.record(batch, now())));
    for refused in record_all().await {
        assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    }
    unlock(&mut outsider).await;
    for recorded in record_all().await {
        assert_eq!(recorded.unwrap(), [Recorded::Now(vec![Stored])]);
    }
}

async fn connect(database: &Database) -> PgConnection {
    PgConnection::connect(&database.url).await.unwrap()
}

async fn lock(outsider: &mut PgConnection) {
    let lock = sqlx::query("SELECT pg_advisory_lock($1)").bind(TOPICS_LOCK);
    lock.execute(outsider).await.unwrap();
}

async fn unlock(outsider: &mut PgConnection) {
    let unlock = sqlx::query("SELECT pg_advisory_unlock($1)").bind(TOPICS_LOCK);
    unlock.execute(outsider).await.unwrap();
}
