//! From what a run asks for and what was seen to what is done and said. Pure.
//!
//! Whatever is to be done stands in the status before it is done, so that an operator that
//! is killed between the two, at whichever point, does it once when it comes back.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::job::{names, seed};
use super::schedule::{Victim, due, planned};
use super::verdict::{Outcome, PASSED, done, judge, publishers, totals, tried};
use crate::conditions::{Aspect, REFUSED, Truth, find};
use crate::resources::{ChaosRun, ChaosRunStatus, Phase, Verdict};
use crate::time::{elapsed, whole_seconds};

pub(crate) const COMPLETE: &str = "Complete";

/// How long its topics may refuse to be deleted until the run is over without that.
pub(crate) const CLEANING: Duration = Duration::from_mins(2);

/// What was seen of a run and its installation.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// What the API server would not do of what was to be done.
    pub(crate) refused: Option<String>,
    /// Why it can't begin yet.
    pub(crate) obstacle: Option<Obstacle>,
    /// Its Jobs, in the order of their numbers.
    pub(crate) publishers: Vec<Publisher>,
    pub(crate) victims: Vec<Victim>,
    /// Once it cleans up: whether nothing is left to do, or why something is.
    pub(crate) cleaned: Result<(), String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

#[derive(Debug, Clone)]
pub(crate) enum Publisher {
    /// There is no Job.
    Missing,
    /// There is one, and its pod does not run yet.
    Starting,
    Running,
    Ended(Outcome),
}

/// The status that a run is to have. What it then says is still to be done, is done.
pub(crate) fn decide(run: &ChaosRun, seen: &Seen, now: Timestamp) -> ChaosRunStatus {
    let mut status = run.status.clone().unwrap_or_default();
    status.observed_generation = run.metadata.generation;
    status.faults.get_or_insert_with(|| faults(run, 0));
    match status.phase {
        Phase::Pending => pend(run, seen, &mut status, now),
        Phase::Starting | Phase::Running => watch(run, seen, &mut status, now),
        Phase::Cleaning => clean(run, seen, &mut status, now),
        Phase::Complete => {}
    }
    if status.phase != Phase::Complete {
        let aspect = under_way(status.phase, seen);
        enter(run, &mut status, aspect, now);
    }
    if find(&status.conditions, PASSED).is_none() {
        let aspect = Aspect::new(PASSED, Truth::Unknown, "NotJudged", "it has not ended yet");
        enter(run, &mut status, aspect, now);
    }
    status
}

/// Why it is not over.
fn under_way(phase: Phase, seen: &Seen) -> Aspect {
    let aspect =
        |reason: &'static str, message: &str| Aspect::new(COMPLETE, false, reason, message);
    if let Some(why) = &seen.refused {
        return aspect(REFUSED, why);
    }
    match (phase, &seen.obstacle, &seen.cleaned) {
        (Phase::Pending, Some(Obstacle { reason, message }), _) => aspect(reason, message),
        (Phase::Cleaning, _, Err(why)) => aspect(reason(phase), why),
        _ => aspect(reason(phase), ""),
    }
}

/// Whether its time is up.
pub(crate) fn is_late(run: &ChaosRun, now: Timestamp) -> bool {
    let status = run.status.as_ref();
    let created = status.and_then(|status| status.created_at.as_ref());
    created.is_some_and(|created| elapsed(created.0, now) >= Duration::from(run.spec.deadline))
}

fn pend(run: &ChaosRun, seen: &Seen, status: &mut ChaosRunStatus, now: Timestamp) {
    let Some(obstacle) = &seen.obstacle else {
        status.phase = Phase::Starting;
        status.seed = Some(seed(run));
        status.created_at = Some(Time(whole_seconds(now)));
        return;
    };
    let asked = run.creation_timestamp().map_or(now, |time| time.0);
    if elapsed(asked, now) >= Duration::from(run.spec.deadline) {
        let message = format!(
            "it could not begin within its deadline: {}",
            obstacle.message
        );
        let aspect = Aspect::new(PASSED, false, "NotStarted", message);
        fail(run, status, aspect, now);
        complete(run, status, "", now);
    }
}

/// While its publishers run: faults, and the end.
fn watch(run: &ChaosRun, seen: &Seen, status: &mut ChaosRunStatus, now: Timestamp) {
    let is_late = is_late(run, now);
    let has_begun = |one: &Publisher| matches!(one, Publisher::Running | Publisher::Ended(_));
    if status.phase == Phase::Starting && seen.publishers.iter().all(has_begun) {
        status.phase = Phase::Running;
        status.started_at = Some(Time(whole_seconds(now)));
    }
    // In the first phase a Job that is missing is still to be made.
    let is_over = |one: &Publisher| match one {
        Publisher::Ended(_) => true,
        Publisher::Missing => status.phase == Phase::Running,
        Publisher::Starting | Publisher::Running => false,
    };
    if is_late || seen.publishers.iter().all(is_over) {
        end(run, seen, status, is_late, now);
    } else if let (Phase::Running, Some(started)) = (status.phase, &status.started_at) {
        let drawn_from = status.seed.unwrap_or_default();
        let next = due(
            &run.spec.faults,
            &status.injected,
            &seen.victims,
            drawn_from,
            started.0,
            now,
        );
        status.injected.extend(next);
        status.faults = Some(faults(run, done(&status.injected)));
    }
}

fn end(run: &ChaosRun, seen: &Seen, status: &mut ChaosRunStatus, is_late: bool, now: Timestamp) {
    let outcome = |one: &Publisher| match one {
        Publisher::Ended(outcome) => outcome.clone(),
        Publisher::Missing if !is_late => Err("its Job was deleted".into()),
        _ => Err("the deadline had passed before it ended".into()),
    };
    let outcomes: Vec<_> = seen.publishers.iter().map(outcome).collect();
    status.totals = totals(&outcomes);
    status.publishers = publishers(&names(run), &outcomes);
    let tried = tried(&outcomes, &status.injected, status.started_at.as_ref());
    status.faults = Some(faults(run, tried));
    let (verdict, mut aspect) = judge(&run.spec, &outcomes, tried);
    if is_late && aspect.reason == "NoVerdict" {
        aspect.reason = "DeadlineExceeded";
    }
    status.verdict = Some(verdict);
    status.ended_at = Some(Time(whole_seconds(now)));
    status.phase = Phase::Cleaning;
    enter(run, status, aspect, now);
}

fn clean(run: &ChaosRun, seen: &Seen, status: &mut ChaosRunStatus, now: Timestamp) {
    let ended = status.ended_at.as_ref().map_or(now, |time| time.0);
    match &seen.cleaned {
        Ok(()) => complete(run, status, "", now),
        Err(why) if elapsed(ended, now) >= CLEANING => {
            let message = format!("what it made may still be there: {why}");
            complete(run, status, &message, now);
        }
        Err(_) => {}
    }
}

fn complete(run: &ChaosRun, status: &mut ChaosRunStatus, message: &str, now: Timestamp) {
    status.phase = Phase::Complete;
    let reason = if message.is_empty() {
        "Over"
    } else {
        "TopicsLeft"
    };
    enter(
        run,
        status,
        Aspect::new(COMPLETE, true, reason, message),
        now,
    );
}

fn fail(run: &ChaosRun, status: &mut ChaosRunStatus, aspect: Aspect, now: Timestamp) {
    status.verdict = Some(Verdict::Failed);
    status.ended_at = Some(Time(whole_seconds(now)));
    enter(run, status, aspect, now);
}

fn enter(run: &ChaosRun, status: &mut ChaosRunStatus, aspect: Aspect, now: Timestamp) {
    aspect.enter(&mut status.conditions, run.metadata.generation, now);
}

fn faults(run: &ChaosRun, done: usize) -> String {
    format!("{done}/{}", planned(&run.spec.faults))
}

fn reason(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Starting => "Starting",
        Phase::Running => "Running",
        Phase::Cleaning => "Cleaning",
        Phase::Complete => "Over",
    }
}

#[cfg(test)]
mod tests;
