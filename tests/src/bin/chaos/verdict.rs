//! Whether what is stored is what it must be, by the servers' own word.
//!
//! Each publisher has read its own events back through the gateways. Here the tables and
//! the queue are asked directly, past everything of ours.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use tests::servers::{Postgres, Redis};

use crate::journal::Journal;

/// How long after the last fault and the last sender the queue may hold anything. What is
/// waited for longest is a connection that is dead, and then an entry's claim.
const PATIENCE: Duration = Duration::from_mins(1);

/// What must be nothing, each with a name.
const WRONG: [(&str, &str); 6] = [
    (
        "keys that are there twice",
        "SELECT count(*) FROM (SELECT 1 FROM events GROUP BY topic_id, event_id
             HAVING count(*) > 1) AS twice",
    ),
    (
        "topics whose rows are not what their books say",
        "SELECT count(*) FROM
             (SELECT topic_id, sum(\"unique\") AS booked FROM counters GROUP BY 1) AS books
             FULL JOIN (SELECT topic_id, count(*) AS rows FROM events GROUP BY 1) AS there
             USING (topic_id) WHERE booked IS DISTINCT FROM rows",
    ),
    (
        "topics whose books do not balance",
        "SELECT count(*) FROM (SELECT 1 FROM counters GROUP BY topic_id
             HAVING sum(received) <> sum(\"unique\" + duplicates + buried)) AS off",
    ),
    (
        "events of batches that are in no book, or the other way round",
        "SELECT abs((SELECT coalesce(sum(received), 0) FROM counters)
             - (SELECT coalesce(sum(events), 0) FROM batches))::int8",
    ),
    (
        "conflicts that are counted and not listed, or the other way round",
        "SELECT abs((SELECT coalesce(sum(conflicts), 0) FROM counters)
             - (SELECT count(*) FROM conflicts))::int8",
    ),
    (
        "dead letters, though nothing was poison",
        "SELECT (SELECT count(*) FROM dead_letters)
             + (SELECT coalesce(sum(buried), 0)::int8 FROM counters)",
    ),
];

/// Waits until the queue is empty, and looks.
pub(crate) async fn judge(redis: &Redis, postgres: &Postgres, journal: &Journal) {
    settle(redis, journal).await;
    let mut connection = PgConnection::connect(&postgres.url("sekali"))
        .await
        .unwrap();
    for (what, statement) in WRONG {
        let count: i64 = sqlx::query_scalar(statement)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        if count != 0 {
            journal.find(&format!("{count} {what}"));
        }
    }
    let books: (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT sum(received)::int8, sum(\"unique\")::int8, sum(duplicates)::int8,
             sum(conflicts)::int8 FROM counters",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    journal.tell(&format!(
        "{} received, {} unique, {} duplicates, {} of them conflicts",
        books.0, books.1, books.2, books.3
    ));
}

async fn settle(redis: &Redis, journal: &Journal) {
    let deadline = Instant::now() + PATIENCE;
    let mut queue = Queue::read(redis);
    while !queue.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
        queue = Queue::read(redis);
    }
    if queue.is_empty() {
        journal.tell("the queue is empty");
    } else {
        journal.find(&format!("the queue does not become empty: {queue:?}"));
    }
}

#[derive(Debug)]
struct Queue {
    entries: u64,
    pending: u64,
    events_in: u64,
    events_out: u64,
}

impl Queue {
    fn read(redis: &Redis) -> Self {
        let mut client = redis::Client::open(redis.url()).unwrap();
        let count = |name: &str| {
            redis::cmd("GET")
                .arg(format!("sekali:{{0}}:{name}"))
                .to_owned()
        };
        let of = |value: Option<u64>| value.unwrap_or_default();
        let events = "sekali:{0}:events";
        let pending: redis::RedisResult<redis::Value> = redis::cmd("XPENDING")
            .arg(events)
            .arg("workers")
            .query(&mut client);
        Self {
            entries: redis::cmd("XLEN").arg(events).query(&mut client).unwrap(),
            pending: match pending {
                Ok(redis::Value::Array(parts)) => match parts.first() {
                    Some(redis::Value::Int(count)) => u64::try_from(*count).unwrap(),
                    other => panic!("{other:?}"),
                },
                // Nobody has read anything yet.
                Err(_) => 0,
                Ok(other) => panic!("{other:?}"),
            },
            events_in: of(count("in").query(&mut client).unwrap()),
            events_out: of(count("out").query(&mut client).unwrap()),
        }
    }

    fn is_empty(&self) -> bool {
        self.entries == 0 && self.pending == 0 && self.events_in == self.events_out
    }
}
