//! What the reports of all publishers come to. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::report::{Findings, Report};
use super::schedule::planned;
use crate::conditions::Aspect;
use crate::gateway::as_float;
use crate::resources::{ChaosRunSpec, Injection, PublisherStatus, Totals, Verdict};
use crate::time::elapsed;

pub(crate) const PASSED: &str = "Passed";

/// How a publisher ended: with a report, or why there is none.
pub(crate) type Outcome = Result<Report, String>;

/// The times in a status are whole seconds.
const RESOLUTION: Duration = Duration::from_secs(1);

/// The longest words of one publisher that the status keeps.
const MAX_WORDS: usize = 600;

/// Sums up what all of them reported. A number that lacks a publisher's part would read like a
/// good one.
pub(crate) fn totals(outcomes: &[Outcome]) -> Totals {
    let reports = outcomes.iter().map(|one| one.as_ref().ok());
    let Some(reports) = reports.collect::<Option<Vec<_>>>() else {
        return Totals::default();
    };
    let found = reports.iter().map(|one| one.verdict.as_ref());
    let found: Option<Vec<_>> = found.collect();
    let sent = |of: fn(&Report) -> i64| Some(reports.iter().map(|one| of(one)).sum());
    let found = |of: fn(&Findings) -> i64| {
        let found = found.as_ref()?.iter();
        Some(found.map(|one| of(one)).sum::<i64>())
    };
    let acknowledged: i64 = reports.iter().map(|one| one.acknowledged).sum();
    let seconds = reports.iter().map(|one| one.seconds).fold(0.0, f64::max);
    let p99 = reports
        .iter()
        .map(|one| one.latency_ms.p99)
        .fold(0.0, f64::max);
    Totals {
        sent: sent(|one| one.sent),
        acknowledged: Some(acknowledged),
        refused: sent(|one| one.refused.expected),
        unique_expected: found(|one| one.expected),
        unique_stored: found(|one| one.stored),
        duplicates: found(|one| one.duplicates),
        conflicts: found(|one| one.conflicts),
        lost: found(|one| one.missing),
        doubled: found(|one| one.doubled),
        foreign: found(|one| one.foreign),
        altered: found(|one| one.altered),
        rate: Some(whole(as_float(acknowledged) / seconds.max(0.001))),
        p99_milliseconds: Some(whole(p99)),
    }
}

/// What is said of each publisher.
pub(crate) fn publishers(jobs: &[String], outcomes: &[Outcome]) -> Vec<PublisherStatus> {
    let said = |(job, outcome): (&String, &Outcome)| PublisherStatus {
        job: job.clone(),
        passed: outcome.as_ref().is_ok_and(|report| report.passed),
        message: words(outcome).chars().take(MAX_WORDS).collect(),
    };
    jobs.iter().zip(outcomes).map(said).collect()
}

/// Whether the promise was kept, and why not. It is kept only if each publisher says so,
/// having read everything back, and everything was done to break it that was to be done. So many
/// faults did.
pub(crate) fn judge(spec: &ChaosRunSpec, outcomes: &[Outcome], faults: usize) -> (Verdict, Aspect) {
    let failed = |reason, message| (Verdict::Failed, Aspect::new(PASSED, false, reason, message));
    let findings = |outcome: &Outcome| outcome.as_ref().ok().and_then(|one| one.verdict.clone());
    let all: Vec<_> = outcomes.iter().map(findings).collect();
    let told = |of: &dyn Fn(usize) -> bool| {
        let those = (0..outcomes.len()).filter(|&number| of(number));
        let told: Vec<_> = those
            .map(|number| format!("publisher {number}: {}", words(&outcomes[number])))
            .collect();
        told.join("; ")
    };
    if all.iter().flatten().any(|one| !one.good) {
        let bad = |number: usize| all[number].as_ref().is_some_and(|one| !one.good);
        return failed("PromiseBroken", told(&bad));
    }
    if all.iter().any(Option::is_none) {
        return failed("NoVerdict", told(&|number| all[number].is_none()));
    }
    let fell_short = |number: usize| !outcomes[number].as_ref().is_ok_and(|one| one.passed);
    if (0..outcomes.len()).any(fell_short) {
        return failed("LoadFailed", told(&fell_short));
    }
    let planned = planned(&spec.faults);
    if faults < planned {
        let message = format!(
            "nothing was lost, but all was stored before {} of {planned} faults: send more \
             events, or fewer a second, or have the faults come sooner; each needs a ready pod of \
             its target",
            planned - faults,
        );
        return failed("FaultsMissed", message);
    }
    let message = format!(
        "lost: 0, doubled: 0, of {} keys acknowledged; {faults} faults injected",
        totals(outcomes).unique_expected.unwrap_or_default(),
    );
    (
        Verdict::Passed,
        Aspect::new(PASSED, true, "PromiseKept", message),
    )
}

/// How many faults are known to have been injected.
pub(crate) fn done(injected: &[Injection]) -> usize {
    injected.iter().filter(|one| one.done).count()
}

/// How many of them tried the promise: when all is stored and is only read back, none does. All
/// do as far as nobody knows when that was.
pub(crate) fn tried(outcomes: &[Outcome], injected: &[Injection], started: Option<&Time>) -> usize {
    let stored_after = |one: &Outcome| Some(one.as_ref().ok()?.end_to_end.as_ref()?.seconds);
    let seconds: Option<Vec<_>> = outcomes.iter().map(stored_after).collect();
    let (Some(seconds), Some(started)) = (seconds, started) else {
        return done(injected);
    };
    let last = seconds.into_iter().fold(0.0, f64::max);
    let last = Duration::try_from_secs_f64(last).unwrap_or(Duration::MAX);
    let end = last.saturating_add(RESOLUTION);
    let tries = |one: &&Injection| one.done && elapsed(started.0, one.at.0) < end;
    injected.iter().filter(tries).count()
}

fn words(outcome: &Outcome) -> String {
    match outcome {
        Err(why) => why.clone(),
        Ok(report) => match (&report.verdict, report.failures.first()) {
            (Some(findings), None) => findings.words.clone(),
            (Some(findings), Some(failure)) => format!("{}; {failure}", findings.words),
            (None, Some(failure)) => failure.clone(),
            (None, None) => "it has no verdict".into(),
        },
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is shown to people")]
fn whole(number: f64) -> i64 {
    number.round() as i64
}

#[cfg(test)]
mod tests;
