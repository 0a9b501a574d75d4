//! What a session of PostgreSQL is told, whatever the server's own settings, and what is left
//! behind on one.

use event::{EventId, Topic};
use futures::future::join_all;
use sqlx::{Connection as _, PgConnection};
use store::{Counts, Filter, Outcome, Recorded, Store, StoreError};
use tests::until;

use super::{Database, batch, counts, event, ids, now, record};
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

#[tokio::test]
async fn what_is_recorded_while_its_topic_is_deleted_is_kept_at_any_isolation_by_default() {
    let [database, _] = Database::of_each_kind().await;
    let name = database.url.rsplit_once('/').unwrap().1;
    let default = "default_transaction_isolation = 'repeatable read'";
    let set = format!(r#"ALTER DATABASE "{name}" SET {default}"#);
    tests::servers::execute(&database.url, &set).await;
    let store = database.store(10);
    store.migrate().await.unwrap();
    record(&store, &[batch(1, &[event("t", "old", "{}")])]).await;
    let mut outsider = connect(&database).await;
    lock(&mut outsider).await;
    let topic = Topic::parse("t").unwrap();
    let new = [batch(2, &[event("t", "new", "{}")])];
    let delete = store.delete_topic(&topic);
    // It waits behind the one who deletes, who waits for the outsider.
    let recording = async {
        somebody_waits(&database, 1).await;
        let unlocked = async {
            somebody_waits(&database, 2).await;
            unlock(&mut outsider).await;
        };
        let (recorded, ()) = tokio::join!(store.record(&new, now()), unlocked);
        recorded
    };
    let (deleted, recorded) = tokio::join!(delete, recording);
    assert!(deleted.unwrap());
    assert_eq!(recorded.unwrap(), [Recorded::Now(vec![Stored])]);
    assert_eq!(ids(&store, &Filter::default()).await, ["new"]);
}

/// A new database with its tables, and a store of it that has recorded nothing yet.
async fn ready() -> (Database, Store) {
    let [database, _] = Database::of_each_kind().await;
    let store = database.store(10);
    store.migrate().await.unwrap();
    (database, store)
}

#[tokio::test]
async fn what_a_transaction_is_recorded_under_is_not_the_databases_default() {
    let (database, store) = ready().await;
    let name = database.url.rsplit_once('/').unwrap().1;
    let wanted = [
        ("synchronous_commit", "off", "on"),
        ("statement_timeout", "0", "10s"),
        ("lock_timeout", "0", "5s"),
        ("idle_in_transaction_session_timeout", "0", "4s"),
        (
            "default_transaction_isolation",
            "serializable",
            "read committed",
        ),
        ("tcp_user_timeout", "0", "10000"),
    ];
    let defaults = wanted
        .map(|(setting, default, _)| format!("ALTER DATABASE {name} SET {setting} = '{default}';"));
    let told = "
        CREATE TABLE told (setting text, value text);
        CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO told SELECT name, current_setting(name) FROM pg_settings;
            RETURN NULL;
        END $$;
        CREATE TRIGGER tell BEFORE INSERT ON batches EXECUTE FUNCTION tell()";
    tests::servers::execute(&database.url, &defaults.concat()).await;
    tests::servers::execute(&database.url, told).await;
    // Its connections are of before.
    drop(store);
    let store = database.store(10);
    record(&store, &[batch(1, &[event("t", "1", "{}")])]).await;
    let mut outsider = connect(&database).await;
    for (setting, _, wanted) in wanted {
        let value: String = sqlx::query_scalar("SELECT value FROM told WHERE setting = $1")
            .bind(setting)
            .fetch_one(&mut outsider)
            .await
            .unwrap();
        assert_eq!(value, wanted, "{setting}");
    }
}

/// A function that does this when what was inserted into `batches` is to be committed.
async fn at_the_commit(database: &Database, does: &str) {
    let statements = format!(
        "CREATE FUNCTION hinder() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             {does};
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER hinder AFTER INSERT ON batches DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION hinder()"
    );
    tests::servers::execute(&database.url, &statements).await;
}

#[tokio::test]
async fn only_a_commit_that_was_refused_has_surely_not_happened() {
    let one = [batch(1, &[event("t", "1", "{}")])];
    let (database, store) = ready().await;
    at_the_commit(&database, "RAISE 'no'").await;
    let refused = store.record(&one, now()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");

    let (database, store) = ready().await;
    at_the_commit(&database, "PERFORM pg_terminate_backend(pg_backend_pid())").await;
    let ended = store.record(&one, now()).await.unwrap_err();
    assert!(matches!(ended, StoreError::OutcomeUnknown(_)), "{ended}");
}

#[tokio::test]
async fn what_does_not_add_up_changes_nothing_and_is_recorded_once_when_it_does() {
    let (database, store) = ready().await;
    let swallow = "
        CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER swallow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION swallow()";
    tests::servers::execute(&database.url, swallow).await;
    let one = [batch(1, &[event("t", "1", "{}")])];
    let error = store.record(&one, now()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unbalanced(_)), "{error}");
    let batches: i64 = sqlx::query_scalar("SELECT count(*) FROM batches")
        .fetch_one(&mut connect(&database).await)
        .await
        .unwrap();
    assert_eq!(batches, 0);
    assert_eq!(counts(&store).await, Counts::default());
    tests::servers::execute(&database.url, "DROP TRIGGER swallow ON events").await;
    assert_eq!(record(&store, &one).await, [Recorded::Now(vec![Stored])]);
    assert_eq!(record(&store, &one).await, [Recorded::Again]);
    assert_eq!(ids(&store, &Filter::default()).await, ["1"]);
}

/// A database in this encoding.
async fn encoded(encoding: &str) -> Database {
    let [mut database, _] = Database::of_each_kind().await;
    let url = format!("{}_{}", database.url, encoding.to_lowercase());
    let name = url.rsplit_once('/').unwrap().1;
    let create =
        format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
    tests::servers::execute(&database.url, &create).await;
    database.url = url;
    database
}

#[tokio::test]
async fn a_database_that_keeps_bytes_as_they_are_holds_every_text() {
    let store = encoded("SQL_ASCII").await.store(10);
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    let payload = r#"{"text":"日本 é","escaped":"\u65e5 \ud800 \u0000"}"#;
    let sent = [event("é", "日本", payload), event("é", "日本", payload)];
    let recorded = record(&store, &[batch(1, &sent)]).await;
    assert_eq!(recorded, [Recorded::Now(vec![Stored, Outcome::Duplicate])]);
    assert_eq!(ids(&store, &Filter::default()).await, ["日本"]);
    let (topic, id) = (Topic::parse("é").unwrap(), EventId::parse("日本").unwrap());
    let kept = store.event(&topic, &id).await.unwrap();
    assert_eq!(kept.unwrap().payload, payload);
}

#[tokio::test]
async fn a_database_that_can_not_hold_every_text_is_refused() {
    let store = encoded("LATIN1").await.store(10);
    for refused in [store.migrate().await, store.check().await] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("LATIN1"), "{error}");
    }
}

/// An index on a large table takes minutes.
#[tokio::test]
async fn a_migration_may_take_longer_than_any_other_statement_and_any_other_answer() {
    let [database, _] = Database::of_each_kind().await;
    let slowly = "
        CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            -- The first index of all.
            IF to_regclass('batches') IS NULL THEN PERFORM pg_sleep(16); END IF;
        END $$;
        CREATE EVENT TRIGGER slowly ON ddl_command_start WHEN TAG IN ('CREATE INDEX')
            EXECUTE FUNCTION slowly()";
    tests::servers::execute(&database.url, slowly).await;
    let store = database.store(10);
    store.migrate().await.unwrap();
    store.check().await.unwrap();
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

/// Waits until so many wait for a lock in a database.
async fn somebody_waits(database: &Database, wanted: i64) {
    let mut connection = connect(database).await;
    until("somebody waits", async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
             WHERE NOT granted AND d.datname = current_database()",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        waiting == wanted
    })
    .await;
}
