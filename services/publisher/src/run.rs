//! A run of a load that is made up: send, wait until the queue is empty, read back, delete.
//!
//! A signal ends the sending. What follows it has until shortly before the drain's deadline,
//! and what it can't finish by then the report says it did not.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use lifecycle::{CancellationToken, Process};

use crate::Session;
use crate::args::{Load as LoadArgs, Outcome};
use crate::draw::{Seed, Share};
use crate::gateway::Gateway;
use crate::load::{Load, Sent};
use crate::make::Maker;
use crate::plan::Plan;
use crate::progress::{Phase, Progress};
use crate::report::Report;
use crate::tally::Tally;
use crate::verify::{self, Before};

/// What a run is and what is to come of it.
struct Run {
    name: String,
    load: Arc<Load>,
    outcome: Outcome,
    gateway: Gateway,
    before: Before,
}

/// How long to wait, before anything is sent, for what an earlier run left in the queue.
const WAIT_BEFORE: Duration = Duration::from_secs(5);

/// The least patience with what is asked of the gateway.
const MIN_PATIENCE: Duration = Duration::from_secs(10);

/// Sends the load and says what became of it.
pub(crate) async fn run(
    process: &Process,
    session: &Session,
    load: LoadArgs,
    outcome: Outcome,
) -> anyhow::Result<Report> {
    // So many bits that every reader of JSON reads the number that was meant.
    let seed = load
        .seed
        .unwrap_or_else(|| lifecycle::backoff::seed() >> 11);
    let is_new = load.new || (load.seed.is_none() && load.run.is_none());
    let name = load.run.clone().unwrap_or_else(|| seed.to_string());
    let queue_wait = Duration::from_secs(outcome.queue_wait_seconds);
    let patience = session.patience.min(queue_wait.max(MIN_PATIENCE));
    tracing::info!(
        seed,
        run = name,
        target = session.client.target().name(),
        "publishing"
    );
    let mut run = Run {
        load: Arc::new(self::load(session, &load, seed, &name)),
        gateway: Gateway::new(session.client.clone(), patience),
        before: Before::none(load.topics.into()),
        outcome,
        name,
    };
    if run.outcome.verify && !is_new {
        let look = process.shutdown.run_until_cancelled(run.look_before());
        if let Err(why) = look.await.unwrap_or_else(|| Err(anyhow!("stopped"))) {
            let target = session.client.target().name();
            let mut report = Report::of(target, Tally::new(0), false, Duration::ZERO);
            report.fail(&format!("look for an earlier run of this name: {why:#}"));
            return Ok(report);
        }
    }
    let progress = Progress::start(
        Phase::Sending(load.events),
        &session.metrics,
        &process.tasks,
    );

    let begun = Instant::now();
    let mut expired = pin!(expired(&process.shutdown, session.grace));
    let load = Arc::clone(&run.load);
    let mut sending = pin!(load.send(process));
    let (sent, in_time) = tokio::select! {
        sent = &mut sending => (sent?, true),
        () = &mut expired => (sending.await?, false),
    };
    let mut report = Report::of(
        session.client.target().name(),
        sent.tally.clone(),
        sent.is_complete,
        sent.took,
    );
    report.run = Some(run.name.clone());
    report.seed = Some(seed);
    let concluded = in_time
        && tokio::select! {
            () = run.conclude(&sent, begun, &progress, &mut report) => true,
            () = &mut expired => false,
        };
    if !concluded && (run.outcome.verify || run.outcome.clean) {
        report.fail("there was no time left to finish after it was stopped");
    }
    progress.finish().await;
    Ok(report)
}

/// Some time after the process was told to stop.
async fn expired(shutdown: &CancellationToken, grace: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(grace).await;
}

fn load(session: &Session, args: &LoadArgs, seed: u64, name: &str) -> Load {
    let seed = Seed(seed);
    let topics = (0..args.topics).map(|topic| format!("{}{topic}", prefix(name)));
    Load {
        plan: Plan {
            seed,
            batch: session.batch.into(),
            events: args.events,
            duplicates: Share::new(args.duplicates),
            duplicates_or_conflicts: Share::new(args.duplicates + args.conflicts),
            malformed: Share::new(args.malformed),
        },
        maker: Maker::new(
            seed,
            topics.collect(),
            args.ids,
            args.payload_bytes as usize,
        ),
        client: session.client.clone(),
        ack: session.ack,
        connections: session.connections,
        rate: session.rate,
        patience: session.patience,
        metrics: Arc::clone(&session.metrics),
    }
}

fn prefix(run: &str) -> String {
    format!("run-{run}-")
}

impl Run {
    /// The same seed may have been sent before, by a process that was killed.
    async fn look_before(&mut self) -> anyhow::Result<()> {
        // It may never be empty, while others send; and they must not wait for each other.
        let settled = self
            .gateway
            .settle(WAIT_BEFORE.min(self.queue_wait()))
            .await;
        let books = verify::books(&mut self.gateway, self.load.maker.topics()).await?;
        let events: u64 = books.iter().map(|books| books.received).sum();
        if events > 0 {
            tracing::info!(events, "the run's topics hold events of an earlier run");
        }
        self.before = Before {
            books,
            is_settled: settled.is_ok(),
        };
        Ok(())
    }

    /// What follows the sending. What fails is entered into the report.
    async fn conclude(
        &mut self,
        sent: &Sent,
        begun: Instant,
        progress: &Progress,
        report: &mut Report,
    ) {
        let Outcome { verify, clean, .. } = self.outcome;
        let has_end = self.load.plan.events.is_some_and(|events| events > 0) && sent.is_complete;
        let mut is_settled = false;
        if verify || clean || (has_end && !self.queue_wait().is_zero()) {
            progress.enter(Phase::Settling);
            match self.gateway.settle(self.queue_wait()).await {
                Ok(()) => {
                    is_settled = true;
                    report.settled(begun.elapsed());
                }
                Err(why) if verify => report.fail(&format!("no verdict: {why:#}")),
                Err(why) => tracing::warn!(why = format!("{why:#}"), "no end-to-end rate"),
            }
        }
        if verify && is_settled {
            progress.enter(Phase::Reading(self.events_to_read(report)));
            match verify::verify(&mut self.gateway, &self.load, sent, &self.before).await {
                Ok(verdict) => report.verdict = Some(verdict),
                Err(why) => report.fail(&format!("no verdict: {why:#}")),
            }
        }
        if clean {
            if let Err(why) = self.clean().await {
                report.fail(&format!("delete the run's topics: {why:#}"));
            }
            if !is_settled {
                report.fail("the queue was not empty: what was in it may make the topics anew");
            }
        }
    }

    /// About as many as were sent and are no resends.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "it is told to people, with a rate"
    )]
    fn events_to_read(&self, report: &Report) -> u64 {
        let unique = 1.0 - self.load.plan.duplicates_or_conflicts.as_f64();
        (report.acknowledged as f64 * unique) as u64
    }

    /// Deletes all topics of this name, those of earlier runs with more of them too.
    async fn clean(&mut self) -> anyhow::Result<()> {
        let prefix = prefix(&self.name);
        for books in self.gateway.topics().await? {
            let number = books.topic.strip_prefix(&prefix);
            if number.is_some_and(|number| number.parse::<u16>().is_ok()) {
                self.gateway.delete(&books.topic).await?;
            }
        }
        Ok(())
    }

    fn queue_wait(&self) -> Duration {
        Duration::from_secs(self.outcome.queue_wait_seconds)
    }
}
