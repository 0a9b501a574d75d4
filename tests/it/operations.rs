//! What docs/operations.md says of backups is so: its commands are run in its order.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tests::example::{self, Example};
use tests::servers::Postgres;
use tests::{Program, Sekali, servers};

use crate::path::event;
use crate::verdict::publish;

const PAGE: &str = include_str!("../../docs/operations.md");

/// A chapter of the page, which is run block by block; between them happens what the page says
/// above them.
struct Chapter {
    blocks: std::vec::IntoIter<&'static str>,
    directory: TempDir,
}

impl Chapter {
    fn open(title: &str) -> Self {
        let (_, rest) = PAGE.split_once(&format!("\n### {title}\n")).unwrap();
        let text = rest.split("\n### ").next().unwrap();
        Self {
            blocks: example::blocks(text, "console").into_iter(),
            directory: tests::directory(),
        }
    }

    /// Runs the commands of the next block: each gives what stands under it. `ports` are those of
    /// the page, and those that they stand for.
    async fn run(&mut self, ports: &[(&str, u16)], redis: &str) {
        let path = example::path();
        let variables = [("PATH", &*path), ("REDIS", redis)];
        let block = self.blocks.next().unwrap();
        for Example { command, output } in example::examples(block) {
            let mut lines = format!("{}\n{command}", example::blocks(PAGE, "sh")[0]);
            for (port, meant) in ports {
                lines = lines.replace(port, &meant.to_string());
            }
            let said = example::run(lines, self.directory.path(), &variables).await;
            assert_eq!(said, output, "{command}");
        }
    }

    /// All of it was run.
    fn end(mut self) {
        assert_eq!(self.blocks.next(), None);
    }
}

/// What the page is tried on.
struct Installation {
    sekali: Sekali,
    postgres: Postgres,
    /// The port of the worker's metrics.
    admin: u16,
}

impl Installation {
    async fn start() -> Self {
        let postgres = Postgres::start(&["fsync=off"]).await;
        let database = postgres.url("sekali");
        servers::execute(&postgres.url("postgres"), "CREATE DATABASE sekali").await;
        let mut sekali = Sekali::full_over(database, 1).await;
        let admin = sekali.worker(0).address("admin").await.port();
        Self {
            sekali,
            postgres,
            admin,
        }
    }

    async fn run(&mut self, page: &mut Chapter) {
        let ports = [
            ("25432", self.postgres.address().port()),
            ("26379", self.sekali.redis().address().port()),
            ("28080", self.sekali.address(0).port()),
            ("29091", self.admin),
        ];
        let redis = self
            .sekali
            .redis()
            .disk()
            .path()
            .to_str()
            .unwrap()
            .to_owned();
        page.run(&ports, &redis).await;
    }

    async fn stop_worker(&mut self) {
        end(self.sekali.worker(0)).await;
    }

    /// Starts a worker again, which empties the queue.
    async fn start_worker(&mut self) {
        self.sekali.replace_worker("worker-0");
        self.admin = self.sekali.worker(0).address("admin").await.port();
        // What a server's end has cut off is asked for again.
        self.sekali.answers().await;
        self.sekali.settled().await;
    }

    async fn stop_gateway(&mut self) {
        end(self.sekali.gateway(0)).await;
    }

    async fn start_gateway(&mut self) {
        self.sekali.replace_gateway().await;
        self.sekali.answers().await;
    }

    async fn stop_redis(&mut self) {
        end(self.sekali.redis().program()).await;
    }

    async fn start_redis(&mut self) {
        self.sekali.redis().restart().await;
    }
}

/// Ends a process politely.
async fn end(program: &mut Program) {
    let status = program.terminate().await;
    assert!(status.success(), "{status}: {}", program.log());
}

#[tokio::test]
async fn a_database_and_a_queue_are_restored_as_the_page_says() {
    let mut here = Installation::start().await;
    let mut page = Chapter::open("PostgreSQL");
    here.run(&mut page).await;

    here.postgres.lose().await;
    here.run(&mut page).await;

    here.stop_worker().await;
    here.stop_gateway().await;
    here.postgres.replace().await;
    here.run(&mut page).await;
    here.start_gateway().await;
    here.run(&mut page).await;
    here.start_worker().await;
    here.run(&mut page).await;
    here.run(&mut page).await;

    here.stop_worker().await;
    here.run(&mut page).await;
    here.start_worker().await;
    here.run(&mut page).await;
    page.end();

    let mut page = Chapter::open("Redis");
    here.stop_worker().await;
    here.run(&mut page).await;
    here.stop_redis().await;
    here.run(&mut page).await;
    here.start_redis().await;
    here.start_worker().await;
    here.run(&mut page).await;

    here.stop_worker().await;
    here.stop_gateway().await;
    here.stop_redis().await;
    here.run(&mut page).await;
    here.start_redis().await;
    here.start_gateway().await;
    here.run(&mut page).await;
    here.start_worker().await;
    here.run(&mut page).await;
    page.end();
}

#[tokio::test]
async fn an_sqlite_file_is_restored_as_the_page_says() {
    let mut page = Chapter::open("SQLite");
    let database = format!("sqlite://{}/sekali.db", page.directory.path().display());
    let mut sekali = Sekali::embedded_over(database).await;
    let ports = |sekali: &Sekali| [("28080", sekali.address(0).port())];

    let flags = [
        "--events=5000",
        "--duplicates=0.3",
        "--batch=100",
        "--seed=1",
        "--rate=1000",
    ];
    let sends = publish(&sekali, &flags);
    let backs_up = async {
        sekali.stores_more(500).await;
        page.run(&ports(&sekali), "").await;
    };
    let ((good, log), ()) = tokio::join!(sends, backs_up);
    assert!(good, "{log}");
    page.run(&ports(&sekali), "").await;

    sekali.gateway(0).kill();
    page.run(&[], "").await;
    sekali.replace_gateway().await;
    page.run(&ports(&sekali), "").await;

    end(sekali.gateway(0)).await;
    page.run(&[], "").await;
    page.end();
}

/// How many topics have books that differ from their rows, and how many rows have no topic.
async fn faults(url: &str) -> (usize, i64) {
    let block = example::blocks(PAGE, "sql")[0];
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
