use serde_json::json;

use super::super::report::{EndToEnd, Findings, Report};
use super::*;
use crate::resources::{Injection, Target};

fn run(spec: serde_json::Value) -> ChaosRun {
    let mut run = ChaosRun::new("smoke", serde_json::from_value(spec).unwrap());
    run.metadata.uid = Some("1a2b3c4d".into());
    run.metadata.generation = Some(1);
    run.metadata.creation_timestamp = Some(Time(at(0)));
    run
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn nothing() -> Seen {
    Seen {
        refused: None,
        obstacle: None,
        publishers: Vec::new(),
        victims: Vec::new(),
        cleaned: Ok(()),
    }
}

fn publishers(publishers: &[Publisher]) -> Seen {
    Seen {
        publishers: publishers.to_vec(),
        victims: vec![Victim {
            target: Target::Worker,
            name: "w".into(),
            uid: "u".into(),
        }],
        ..nothing()
    }
}

fn good() -> Publisher {
    let findings = Findings {
        good: true,
        words: "GOOD".into(),
        expected: 7,
        ..Findings::default()
    };
    Publisher::Ended(Ok(Report {
        passed: true,
        verdict: Some(findings),
        ..Report::default()
    }))
}

/// Decides, and takes the status over.
fn step(run: &mut ChaosRun, seen: &Seen, second: i64) -> Phase {
    let status = decide(run, seen, at(second));
    let phase = status.phase;
    run.status = Some(status);
    phase
}

fn passed(run: &ChaosRun) -> (String, String) {
    let status = run.status.as_ref().unwrap();
    let passed = find(&status.conditions, PASSED).unwrap();
    (passed.status.clone(), passed.reason.clone())
}

fn complete(run: &ChaosRun) -> (String, String) {
    let status = run.status.as_ref().unwrap();
    let complete = find(&status.conditions, COMPLETE).unwrap();
    (complete.status.clone(), complete.reason.clone())
}

fn message(run: &ChaosRun) -> &str {
    let status = run.status.as_ref().unwrap();
    &find(&status.conditions, COMPLETE).unwrap().message
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

#[test]
fn a_run_goes_through_its_phases_and_passes() {
    let faults = json!([{"target": "worker", "action": "kill", "every": "5s"}]);
    let mut run = run(json!({"seed": 7, "faults": faults}));
    assert_eq!(step(&mut run, &nothing(), 1), Phase::Starting);
    assert_eq!(passed(&run), is("Unknown", "NotJudged"));
    assert_eq!(run.status.as_ref().unwrap().seed, Some(7));
    let missing = publishers(&[Publisher::Missing]);
    assert_eq!(step(&mut run, &missing, 2), Phase::Starting);
    let starting = publishers(&[Publisher::Starting]);
    assert_eq!(step(&mut run, &starting, 3), Phase::Starting);
    let running = publishers(&[Publisher::Running]);
    assert_eq!(step(&mut run, &running, 10), Phase::Running);
    // The faults' time begins when the publishers run.
    assert_eq!(step(&mut run, &running, 14), Phase::Running);
    assert_eq!(run.status.as_ref().unwrap().injected, []);
    step(&mut run, &running, 15);
    let status = run.status.as_mut().unwrap();
    assert_eq!(
        (status.injected.len(), status.faults.as_deref()),
        (1, Some("0/1"))
    );
    status.injected[0].done = true;
    step(&mut run, &running, 16);
    assert_eq!(run.status.as_ref().unwrap().faults.as_deref(), Some("1/1"));
    assert_eq!(step(&mut run, &publishers(&[good()]), 20), Phase::Cleaning);
    assert_eq!(passed(&run), is("True", "PromiseKept"));
    assert_eq!(complete(&run), is("False", "Cleaning"));
    assert_eq!(step(&mut run, &nothing(), 21), Phase::Complete);
    assert_eq!(complete(&run), is("True", "Over"));
    let over = run.status.clone();
    step(&mut run, &nothing(), 99);
    assert_eq!(run.status, over);
}

#[test]
fn a_run_that_can_not_begin_waits_and_then_fails() {
    let mut run = run(json!({"deadline": "60s"}));
    let blocked = Seen {
        obstacle: Some(Obstacle {
            reason: "NoPipeline",
            message: "there is no Pipeline sekali".into(),
        }),
        ..nothing()
    };
    assert_eq!(step(&mut run, &blocked, 59), Phase::Pending);
    assert_eq!(complete(&run), is("False", "NoPipeline"));
    assert_eq!(step(&mut run, &blocked, 60), Phase::Complete);
    assert_eq!(passed(&run), is("False", "NotStarted"));
    assert_eq!(complete(&run), is("True", "Over"));
}

#[test]
fn a_run_ends_at_its_deadline_in_whatever_phase() {
    for publisher in [Publisher::Missing, Publisher::Starting, Publisher::Running] {
        let mut run = run(json!({"deadline": "60s", "publishers": 2}));
        step(&mut run, &nothing(), 5);
        let seen = publishers(&[good(), publisher]);
        assert_ne!(step(&mut run, &seen, 64), Phase::Cleaning);
        assert_eq!(step(&mut run, &seen, 65), Phase::Cleaning);
        assert_eq!(passed(&run), is("False", "DeadlineExceeded"));
        let status = run.status.as_ref().unwrap();
        assert_eq!(status.verdict, Some(Verdict::Failed));
        assert_eq!(
            (status.publishers[0].passed, status.publishers[1].passed),
            (true, false)
        );
    }
}

#[test]
fn what_is_refused_is_said_for_as_long_as_it_is() {
    let mut run = run(json!({}));
    step(&mut run, &nothing(), 0);
    let refused = Seen {
        refused: Some("create a publisher's Job: no".into()),
        ..publishers(&[Publisher::Missing])
    };
    assert_eq!(step(&mut run, &refused, 1), Phase::Starting);
    assert_eq!(complete(&run), is("False", "Refused"));
    assert_eq!(message(&run), "create a publisher's Job: no");
    step(&mut run, &publishers(&[Publisher::Starting]), 2);
    assert_eq!(complete(&run), is("False", "Starting"));
}

#[test]
fn a_job_that_is_deleted_is_not_sent_again() {
    let mut run = run(json!({}));
    step(&mut run, &nothing(), 0);
    step(&mut run, &publishers(&[Publisher::Running]), 1);
    let gone = publishers(&[Publisher::Missing]);
    assert_eq!(step(&mut run, &gone, 2), Phase::Cleaning);
    assert_eq!(passed(&run), is("False", "NoVerdict"));
}

#[test]
fn faults_that_there_was_no_time_for_are_a_failure() {
    let faults = json!([{"target": "worker", "action": "kill", "every": "5s", "count": 3}]);
    let mut run = run(json!({"faults": faults}));
    step(&mut run, &nothing(), 0);
    step(&mut run, &publishers(&[Publisher::Running]), 1);
    step(&mut run, &publishers(&[Publisher::Running]), 6);
    run.status.as_mut().unwrap().injected[0].done = true;
    step(&mut run, &publishers(&[good()]), 7);
    assert_eq!(passed(&run), is("False", "FaultsMissed"));
    assert_eq!(run.status.unwrap().faults.as_deref(), Some("1/3"));
}

#[test]
fn faults_that_come_when_all_is_stored_do_not_count() {
    for (second, reason, faults) in [(5, "PromiseKept", "1/1"), (6, "FaultsMissed", "0/1")] {
        let every = format!("{second}s");
        let fault = json!({"target": "worker", "action": "kill", "every": every});
        let mut run = run(json!({"faults": [fault]}));
        step(&mut run, &nothing(), 0);
        step(
            &mut run,
            &publishers(&[Publisher::Running, Publisher::Running]),
            10,
        );
        step(
            &mut run,
            &publishers(&[Publisher::Running, Publisher::Running]),
            10 + second,
        );
        run.status.as_mut().unwrap().injected[0].done = true;
        let stored_after = |seconds| match good() {
            Publisher::Ended(Ok(report)) => Publisher::Ended(Ok(Report {
                end_to_end: Some(EndToEnd { seconds }),
                ..report
            })),
            other => other,
        };
        let ended = publishers(&[stored_after(3.0), stored_after(4.7)]);
        step(&mut run, &ended, 20);
        assert_eq!(passed(&run).1, reason, "after {second} s");
        assert_eq!(run.status.unwrap().faults.as_deref(), Some(faults));
    }
}

#[test]
fn topics_that_can_not_be_deleted_do_not_hold_a_run_for_ever() {
    let mut run = run(json!({}));
    step(&mut run, &nothing(), 0);
    step(&mut run, &publishers(&[good()]), 10);
    let stuck = Seen {
        cleaned: Err("no gateway answers".into()),
        ..nothing()
    };
    assert_eq!(step(&mut run, &stuck, 129), Phase::Cleaning);
    assert_eq!(complete(&run), is("False", "Cleaning"));
    assert_eq!(message(&run), "no gateway answers");
    assert_eq!(step(&mut run, &stuck, 130), Phase::Complete);
    assert_eq!(complete(&run), is("True", "TopicsLeft"));
    assert_eq!(passed(&run), is("True", "PromiseKept"));
}

/// Whatever is decided is the same when it is decided again upon the status as it was
/// written: an operator that is killed after any write goes on from there.
#[test]
fn a_status_that_was_written_is_enough_to_go_on_from() {
    let faults = json!([{"target": "worker", "action": "kill", "every": "2s", "count": 4}]);
    let mut whole = run(json!({"faults": faults}));
    let mut restarted = whole.clone();
    for second in 0..30 {
        let publisher = match second {
            0..3 => Publisher::Missing,
            3..25 => Publisher::Running,
            _ => good(),
        };
        let seen = publishers(&[publisher]);
        let finish = |one: &mut Injection| one.done = true;
        for run in [&mut whole, &mut restarted] {
            let status = run.status.get_or_insert_default();
            status.injected.iter_mut().for_each(finish);
            step(run, &seen, second);
        }
        // As it comes back from the API server.
        let text = serde_json::to_string(&restarted).unwrap();
        restarted = serde_json::from_str(&text).unwrap();
        assert_eq!(restarted, whole, "second {second}");
    }
    assert_eq!(whole.status.as_ref().unwrap().injected.len(), 4);
    assert_eq!(passed(&whole), is("True", "PromiseKept"));
}
