//! A whole Sekali, to start, and in [`ask`] to ask.

mod ask;

use std::net::SocketAddr;

use reqwest::Client;
use tempfile::TempDir;

use crate::servers::{self, Redis};
use crate::{PATIENCE, Program, until};

pub use ask::{Answer, balance};

/// An installation. Everything in it ends with the value.
pub struct Sekali {
    gateways: Vec<Gateway>,
    workers: Vec<Program>,
    redis: Option<Redis>,
    database: String,
    claim_idle_ms: u32,
    /// Where gateways find Redis, if not where it is.
    queue: Option<SocketAddr>,
    /// What gateways are told besides.
    flags: Vec<String>,
    /// What the environment of all processes has.
    variables: Vec<(String, String)>,
    client: Client,
    _directory: Option<TempDir>,
}

struct Gateway {
    program: Program,
    address: SocketAddr,
}

impl Sekali {
    /// One gateway over an SQLite file.
    pub async fn embedded() -> Self {
        Self::embedded_with(&[]).await
    }

    /// The same, with flags.
    pub async fn embedded_with(flags: &[&str]) -> Self {
        let directory = crate::directory();
        let database = format!("sqlite://{}", directory.path().join("sekali.db").display());
        Self::start(database, None, 0, flags, Some(directory)).await
    }

    /// The same over a file of the test's own.
    pub async fn embedded_over(database: String) -> Self {
        Self::start(database, None, 0, &[], None).await
    }

    /// One gateway that writes to PostgreSQL.
    pub async fn direct() -> Self {
        Self::start(servers::database().await, None, 0, &[], None).await
    }

    /// One gateway and so many workers, with Redis between them and PostgreSQL.
    pub async fn full(workers: usize) -> Self {
        Self::full_with(workers, &[]).await
    }

    /// The same, with flags for the gateway.
    pub async fn full_with(workers: usize, flags: &[&str]) -> Self {
        let redis = Redis::start().await;
        let database = servers::database().await;
        Self::start(database, Some(redis), workers, flags, None).await
    }

    /// The same, with variables for all its processes.
    pub async fn full_in(workers: usize, variables: &[(String, String)]) -> Self {
        Self::full_over_in(servers::database().await, workers, variables).await
    }

    /// The same over a database of the test's own.
    pub async fn full_over_in(
        database: String,
        workers: usize,
        variables: &[(String, String)],
    ) -> Self {
        let redis = Redis::start().await;
        let mut sekali = Self::new(database, Some(redis), &[], None);
        sekali.variables = variables.to_vec();
        sekali.begin(workers).await
    }

    /// The same over a database of the test's own.
    pub async fn full_over(database: String, workers: usize) -> Self {
        Self::full_over_in(database, workers, &[]).await
    }

    /// The embedded and the full one, with flags for the gateway: for what must be the
    /// same in both.
    pub async fn of_each_kind_with(flags: &[&str]) -> [Self; 2] {
        let embedded = Self::embedded_with(flags).await;
        [embedded, Self::full_with(1, flags).await]
    }

    /// The same without flags.
    pub async fn of_each_kind() -> [Self; 2] {
        Self::of_each_kind_with(&[]).await
    }

    async fn start(
        database: String,
        redis: Option<Redis>,
        workers: usize,
        flags: &[&str],
        directory: Option<TempDir>,
    ) -> Self {
        Self::new(database, redis, flags, directory)
            .begin(workers)
            .await
    }

    fn new(
        database: String,
        redis: Option<Redis>,
        flags: &[&str],
        directory: Option<TempDir>,
    ) -> Self {
        Self {
            gateways: Vec::new(),
            workers: Vec::new(),
            redis,
            database,
            claim_idle_ms: 1_000,
            queue: None,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            variables: Vec::new(),
            client: Client::builder().read_timeout(PATIENCE).build().unwrap(),
            _directory: directory,
        }
    }

    async fn begin(mut self, workers: usize) -> Self {
        for number in 0..workers {
            self.add_worker(&format!("worker-{number}"));
        }
        self.add_gateway().await;
        self.answers().await;
        self
    }

    /// Waits until the first gateway has its store: with a queue it is ready before that.
    pub async fn answers(&self) {
        until("the tables are there", async || {
            self.get("/stats").await.status != 503
        })
        .await;
    }

    /// The variables of a process, with more for this one.
    fn variables<'v>(&'v self, more: &[(&'v str, &'v str)]) -> Vec<(&'v str, &'v str)> {
        let all = self.variables.iter();
        let all = all.map(|(name, value)| (&name[..], &value[..]));
        all.chain(more.iter().copied()).collect()
    }

    /// Starts another gateway, and waits until it is ready. The verbs ask the first.
    pub async fn add_gateway(&mut self) {
        self.start_gateway("sekali-aggregator", &[]).await;
    }

    /// The same of one that a variable ends, or stops, at an instant.
    pub async fn add_doomed_gateway(&mut self, fate: (&str, &str)) {
        self.start_gateway("sekali-aggregator-doomed", &[fate])
            .await;
    }

    async fn start_gateway(&mut self, binary: &str, variables: &[(&str, &str)]) {
        let url = self.queue.or_else(|| Some(self.redis.as_ref()?.address()));
        let url = url.map(|address| format!("redis://{address}"));
        let mut arguments = vec!["--http-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"];
        arguments.extend(["--database-url", &self.database]);
        if let Some(url) = &url {
            arguments.extend(["--broker-url", url]);
        }
        arguments.extend(self.flags.iter().map(String::as_str));
        let mut program = Program::start_in(binary, &arguments, &self.variables(variables));
        let address = program.address("http").await;
        let url = format!("http://{address}/readyz");
        until("the gateway is ready", async || {
            assert!(!program.has_ended(), "it ended: {}", program.log());
            matches!(self.client.get(&url).send().await, Ok(answer) if answer.status() == 200)
        })
        .await;
        self.gateways.push(Gateway { program, address });
    }

    /// Starts another worker.
    pub fn add_worker(&mut self, name: &str) {
        self.start_worker("sekali-worker", name, &[]);
    }

    /// The same of one that a variable ends, or stops, at an instant.
    pub fn add_doomed_worker(&mut self, name: &str, fate: (&str, &str)) {
        self.start_worker("sekali-worker-doomed", name, &[fate]);
    }

    /// Starts another worker in place of the first, which has ended.
    pub fn replace_worker(&mut self, name: &str) {
        self.workers.remove(0);
        self.add_worker(name);
    }

    /// Workers that are started from now on take over what was with another for so long.
    pub fn claim_after(&mut self, millis: u32) {
        self.claim_idle_ms = millis;
    }

    fn start_worker(&mut self, binary: &str, name: &str, variables: &[(&str, &str)]) {
        let claim_idle_ms = self.claim_idle_ms.to_string();
        let url = self.redis.as_ref().expect("workers need a queue").url();
        let arguments = [
            "--admin-addr",
            "127.0.0.1:0",
            "--database-url",
            &self.database,
            "--broker-url",
            &url,
            "--name",
            name,
            "--claim-idle-ms",
            &claim_idle_ms,
        ];
        let worker = Program::start_in(binary, &arguments, &self.variables(variables));
        self.workers.push(worker);
    }

    /// Ends every process of ours politely and starts as many again; the servers stay.
    pub async fn restart_everything(&mut self) {
        let (gateways, workers) = (self.gateways.len(), self.workers.len());
        let programs = self.gateways.drain(..).map(|gateway| gateway.program);
        for mut program in programs.chain(self.workers.drain(..)) {
            let status = program.terminate().await;
            assert!(status.success(), "{status}: {}", program.log());
        }
        for number in 0..workers {
            self.add_worker(&format!("worker-{number}"));
        }
        for _ in 0..gateways {
            self.add_gateway().await;
        }
    }

    /// Gateways that are started from now on find their servers here.
    pub fn lead(&mut self, queue: SocketAddr, database: &str) {
        self.queue = Some(queue);
        database.clone_into(&mut self.database);
    }

    /// Sends a signal to a gateway.
    pub fn signal(&self, gateway: usize, signal: &str) {
        self.gateways[gateway].program.signal(signal);
    }

    /// Whether a gateway was stopped by a signal.
    pub fn is_gateway_stopped(&self, gateway: usize) -> bool {
        self.gateways[gateway].program.is_stopped()
    }

    /// Sends a signal to the first gateway.
    pub fn signal_gateway(&self, signal: &str) {
        self.gateways[0].program.signal(signal);
    }

    /// Starts a gateway in place of the first, which has ended.
    pub async fn replace_gateway(&mut self) {
        self.gateways.remove(0);
        self.add_gateway().await;
    }

    /// The same of one that a variable ends, or stops, at an instant.
    pub async fn replace_doomed_gateway(&mut self, fate: (&str, &str)) {
        self.gateways.remove(0);
        self.add_doomed_gateway(fate).await;
    }

    /// Whether there is a queue.
    pub fn is_full(&self) -> bool {
        self.redis.is_some()
    }

    /// A gateway's process.
    pub fn gateway(&mut self, number: usize) -> &mut Program {
        &mut self.gateways[number].program
    }

    /// A worker's process.
    pub fn worker(&mut self, number: usize) -> &mut Program {
        &mut self.workers[number]
    }

    /// The Redis between them.
    pub fn redis(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("there is a queue")
    }

    /// The address of the database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The address of a gateway.
    pub fn address(&self, number: usize) -> SocketAddr {
        self.gateways[number].address
    }
}
