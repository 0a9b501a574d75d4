use serde_json::json;

use super::super::report::{Latency, Refused};
use super::*;
use crate::conditions::Truth;

fn good() -> Report {
    Report {
        passed: true,
        sent: 1_000,
        acknowledged: 990,
        refused: Refused { expected: 10 },
        seconds: 2.0,
        latency_ms: Latency { p99: 12.4 },
        end_to_end: None,
        verdict: Some(Findings {
            good: true,
            words: "GOOD".into(),
            expected: 700,
            stored: 700,
            duplicates: 290,
            ..Findings::default()
        }),
        failures: Vec::new(),
    }
}

fn bad(missing: i64, doubled: i64) -> Report {
    let findings = Findings {
        good: false,
        words: format!("BAD: {missing} lost, {doubled} doubled"),
        missing,
        doubled,
        ..good().verdict.unwrap()
    };
    Report {
        passed: false,
        verdict: Some(findings),
        ..good()
    }
}

fn no_verdict(why: &str) -> Report {
    Report {
        passed: false,
        verdict: None,
        failures: vec![why.into()],
        ..good()
    }
}

fn spec() -> ChaosRunSpec {
    let faults = json!([{"target": "worker", "action": "kill", "count": 2}]);
    serde_json::from_value(json!({"faults": faults})).unwrap()
}

#[test]
fn it_passes_only_if_everything_was_read_back_and_everything_was_tried() {
    let (both, one) = (2, 1);
    let unsent = Report {
        passed: false,
        ..good()
    };
    for (outcomes, faults, reason) in [
        (vec![Ok(good()), Ok(good())], both, "PromiseKept"),
        (vec![Ok(good()), Ok(good())], one, "FaultsMissed"),
        (vec![Ok(good()), Ok(bad(3, 0))], both, "PromiseBroken"),
        // What is known to be lost outweighs what is not known.
        (
            vec![Err("gone".into()), Ok(bad(0, 1))],
            both,
            "PromiseBroken",
        ),
        (vec![Ok(good()), Err("gone".into())], both, "NoVerdict"),
        (vec![Ok(good()), Ok(no_verdict("x"))], both, "NoVerdict"),
        (vec![Ok(unsent), Ok(good())], both, "LoadFailed"),
    ] {
        let (verdict, aspect) = judge(&spec(), &outcomes, faults);
        assert_eq!(aspect.reason, reason, "{aspect:?}");
        assert_eq!(verdict == Verdict::Passed, reason == "PromiseKept");
        assert_eq!(aspect.status == Truth::True, reason == "PromiseKept");
    }
}

#[test]
fn the_condition_says_what_was_lost_and_by_whom_it_was_found() {
    let outcomes = [Ok(good()), Ok(bad(3, 1))];
    let (_, aspect) = judge(&spec(), &outcomes, 0);
    assert_eq!(aspect.message, "publisher 1: BAD: 3 lost, 1 doubled");
    let totals = totals(&outcomes);
    assert_eq!((totals.lost, totals.doubled), (Some(3), Some(1)));
}

#[test]
fn totals_are_sums_and_lack_no_publisher() {
    let all = totals(&[Ok(good()), Ok(good())]);
    assert_eq!((all.sent, all.acknowledged), (Some(2_000), Some(1_980)));
    let unique = (all.unique_expected, all.unique_stored);
    assert_eq!(unique, (Some(1_400), Some(1_400)));
    let rest = (all.lost, all.doubled, all.refused);
    assert_eq!(rest, (Some(0), Some(0), Some(20)));
    assert_eq!((all.rate, all.p99_milliseconds), (Some(990), Some(12)));
    let unread = totals(&[Ok(good()), Ok(no_verdict("x"))]);
    assert_eq!((unread.sent, unread.rate), (Some(2_000), Some(990)));
    assert_eq!((unread.lost, unread.unique_stored), (None, None));
    let unreported = totals(&[Ok(good()), Err("gone".into())]);
    assert_eq!(unreported, Totals::default());
}

#[test]
fn each_publisher_is_told_of_in_its_own_words() {
    let jobs = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let outcomes = [Ok(good()), Err("x".repeat(900)), Ok(no_verdict("why"))];
    let said = publishers(&jobs, &outcomes);
    assert_eq!((said[0].passed, said[0].message.as_str()), (true, "GOOD"));
    assert_eq!((said[1].passed, said[1].message.len()), (false, 600));
    let last = (said[2].job.as_str(), said[2].message.as_str());
    assert_eq!(last, ("c", "why"));
}
