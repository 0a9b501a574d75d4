//! How long it takes, once a fault is over, until an event is stored again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use reqwest::Client;
use serde_json::json;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use tests::servers::{self, Postgres};
use tests::{Sekali, until};
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::load;
use crate::table::{self, Bound, Table};

/// As workers are by default; the other tests have less patience.
const CLAIM_IDLE_MS: u32 = 5_000;

/// How long a server is away before it comes back.
const OUTAGE: Duration = Duration::from_secs(2);

/// What is done to an installation.
#[derive(Clone, Copy)]
enum Fault {
    Worker,
    Gateway,
    Redis,
    Postgres,
}

/// Each with its name, and how many seconds it may take at most.
const FAULTS: [(Fault, &str, f64); 4] = [
    (Fault::Worker, "worker killed, the same again", 1.0),
    (Fault::Gateway, "gateway killed, another instead", 1.0),
    (Fault::Redis, "Redis killed, from its first PONG", 2.0),
    (
        Fault::Postgres,
        "PostgreSQL killed, from its first answer",
        2.0,
    ),
];

pub(crate) async fn measure(runs: usize, table: &mut Table) {
    let mut world = World::start().await;
    let mut busy = Vec::new();
    for (fault, what, at_most) in FAULTS {
        let mut times = Vec::new();
        for _ in 0..runs {
            world.goes_on().await;
            let over = world.suffers(fault, &mut busy).await;
            world.goes_on().await;
            times.push(over.elapsed().as_secs_f64());
        }
        report(what, times, at_most, table);
    }
    table.add(
        "a gateway and a worker while a server is away, of a core",
        "%",
        table::median(busy),
        Bound::AtMost(10.0),
    );
    world.takeovers(runs, table).await;
}

/// An installation with one worker, and a sender that goes on whatever happens.
struct World {
    postgres: Postgres,
    sekali: Sekali,
    /// Where the sender finds it, as it would by the name of a Service.
    gateway: Arc<Mutex<SocketAddr>>,
    sender: JoinSet<()>,
}

impl World {
    async fn start() -> Self {
        let postgres = Postgres::start(&[]).await;
        let mut sekali = Sekali::full_over(postgres.database().await, 0).await;
        sekali.claim_after(CLAIM_IDLE_MS);
        sekali.add_worker("one");
        let gateway = Arc::new(Mutex::new(sekali.address(0)));
        let mut sender = JoinSet::new();
        sender.spawn(send(sekali.client().clone(), Arc::clone(&gateway)));
        Self {
            postgres,
            sekali,
            gateway,
            sender,
        }
    }

    /// Does it, and says when it was over.
    async fn suffers(&mut self, fault: Fault, busy: &mut Vec<f64>) -> Instant {
        match fault {
            Fault::Worker => {
                self.sekali.worker(0).kill();
                let gone = Instant::now();
                self.sekali.replace_worker("one");
                gone
            }
            Fault::Gateway => {
                self.sekali.gateway(0).kill();
                let gone = Instant::now();
                self.sekali.replace_gateway().await;
                *self.gateway.lock().unwrap() = self.sekali.address(0);
                gone
            }
            Fault::Redis => {
                self.sekali.redis().program().kill();
                busy.push(self.busy().await);
                self.sekali.redis().restart().await;
                Instant::now()
            }
            Fault::Postgres => {
                self.postgres.program().kill();
                busy.push(self.busy().await);
                self.postgres.restart().await;
                Instant::now()
            }
        }
    }

    /// Waits until more is stored than now.
    async fn goes_on(&self) {
        let mut before = None;
        until("something new is stored", async || {
            let stored = stored(self.sekali.database()).await;
            stored.is_some_and(|stored| stored > *before.get_or_insert(stored))
        })
        .await;
    }

    /// What a gateway and a worker use in an outage, in hundredths of a core.
    async fn busy(&mut self) -> f64 {
        let processes = [self.sekali.gateway(0).id(), self.sekali.worker(0).id()];
        let used = || -> f64 { processes.into_iter().map(load::cpu_seconds).sum() };
        let before = used();
        tokio::time::sleep(OUTAGE).await;
        (used() - before) / OUTAGE.as_secs_f64() * 100.0
    }

    /// A worker that never comes back: what it had begun, another finishes.
    async fn takeovers(mut self, runs: usize, table: &mut Table) {
        self.sender.abort_all();
        self.sekali.settled().await;
        let mut times = Vec::new();
        for run in 0..runs {
            let mut outsider = PgConnection::connect(self.sekali.database()).await.unwrap();
            outsider
                .execute("BEGIN; LOCK TABLE batches IN EXCLUSIVE MODE")
                .await
                .unwrap();
            let event = event(&format!("takeover-{run}"));
            assert_eq!(self.sekali.publish(&event).await.status, 200);
            until("the worker waits for the outsider", async || {
                servers::somebody_waits(self.sekali.database()).await
            })
            .await;
            let before = stored(self.sekali.database()).await;
            assert!(before.is_some());
            self.sekali.worker(0).kill();
            let gone = Instant::now();
            self.sekali.replace_worker(&format!("other-{run}"));
            outsider.execute("ROLLBACK").await.unwrap();
            until("another has taken it over", async || {
                stored(self.sekali.database()).await > before
            })
            .await;
            times.push(gone.elapsed().as_secs_f64());
        }
        report(
            "worker killed for good, until another has its events",
            times,
            6.0,
            table,
        );
    }
}

/// Sends an event every few milliseconds, whatever is answered.
async fn send(client: Client, gateway: Arc<Mutex<SocketAddr>>) {
    let mut requests = JoinSet::new();
    let mut tick = interval(Duration::from_millis(5));
    for number in 0_u64.. {
        tick.tick().await;
        let url = format!("http://{}/publish", gateway.lock().unwrap());
        let request = client.post(url).json(&event(&number.to_string()));
        requests.spawn(request.send().map(drop));
        while requests.try_join_next().is_some() {}
    }
}

fn event(id: &str) -> serde_json::Value {
    json!({
        "topic": "recovery", "event_id": id, "timestamp": "2026-01-01T00:00:00Z",
        "source": "bench", "payload": {},
    })
}

/// How many events are stored, if somebody answers.
async fn stored(url: &str) -> Option<i64> {
    let mut connection = PgConnection::connect(url).await.ok()?;
    let sum = r#"SELECT coalesce(sum("unique"), 0)::int8 FROM counters"#;
    let sum = sqlx::query_scalar(sum).fetch_one(&mut connection).await;
    sum.ok()
}

fn report(what: &str, times: Vec<f64>, at_most: f64, table: &mut Table) {
    let runs = times.len();
    let slowest = times.iter().copied().fold(0.0, f64::max);
    let median = table::median(times);
    eprintln!("   {what}: median {median:.2} s, slowest {slowest:.2} s");
    table.add(
        &format!("{what}, median of {runs}"),
        "s",
        median,
        Bound::None,
    );
    table.add(
        &format!("{what}, slowest of {runs}"),
        "s",
        slowest,
        Bound::AtMost(at_most),
    );
}
