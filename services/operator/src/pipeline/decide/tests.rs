use serde_json::json;

use super::*;
use crate::conditions::find;

const BOOKS: Books = Books {
    received: 100,
    unique_processed: 70,
    duplicate_dropped: 29,
    conflicts: 2,
    buried: 1,
    queue_depth: 0,
    oldest_age_seconds: 0.0,
    recorded_rate: 0.0,
};

fn pipeline(change: &serde_json::Value) -> Pipeline {
    let mut spec = json!({
        "instance": "sekali",
        "gateway": {"service": "sekali"},
        "workers": {"deployment": "sekali-worker", "min": 1, "max": 4},
    });
    for (name, value) in change.as_object().unwrap() {
        spec[name] = value.clone();
    }
    let mut pipeline = Pipeline::new("sekali", serde_json::from_value(spec).unwrap());
    pipeline.metadata.generation = Some(3);
    pipeline
}

fn seen() -> Seen {
    Seen {
        workers: Some(Replicas {
            wanted: 1,
            ready: 1,
        }),
        owner: None,
        older: None,
        books: Ok(BOOKS),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

/// Of each condition: its status and reason.
fn said(decision: &Decision, type_: &str) -> (String, String) {
    let found = find(&decision.status.conditions, type_).unwrap();
    assert_eq!(found.observed_generation, Some(3));
    (found.status.clone(), found.reason.clone())
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

#[test]
fn a_status_says_what_the_books_say() {
    let decision = decide(&pipeline(&json!({})), &seen(), at(0));
    let status = &decision.status;
    assert_eq!(decision.scale, None);
    assert_eq!((status.received, status.unique), (Some(100), Some(70)));
    assert_eq!((status.duplicates, status.conflicts), (Some(29), Some(2)));
    assert_eq!((status.buried, status.queue), (Some(1), Some(0)));
    assert_eq!(status.lag.as_deref(), Some("0s"));
    assert_eq!((status.workers, status.desired_workers), (Some(1), Some(1)));
    assert_eq!(said(&decision, READY), is("True", "Serving"));
    assert_eq!(said(&decision, BALANCED), is("True", "Exact"));
    assert_eq!(said(&decision, SCALING), is("True", "ByQueue"));
}

#[test]
fn at_rest_nothing_changes() {
    let mut pipeline = pipeline(&json!({}));
    let first = decide(&pipeline, &seen(), at(0));
    pipeline.status = Some(first.status.clone());
    assert_eq!(decide(&pipeline, &seen(), at(600)), first);
}

#[test]
fn a_queue_asks_for_workers() {
    let mut seen = seen();
    seen.books = Ok(Books {
        queue_depth: 50_000,
        oldest_age_seconds: 2.4,
        ..BOOKS
    });
    let decision = decide(&pipeline(&json!({})), &seen, at(0));
    assert_eq!(decision.scale, Some(3));
    assert_eq!(decision.status.desired_workers, Some(3));
    assert_eq!(decision.status.lag.as_deref(), Some("2s"));
    // A queue that is not empty says nothing about the books.
    assert_eq!(find(&decision.status.conditions, BALANCED), None);
}

#[test]
fn while_the_books_can_not_be_read_the_number_stays_within_its_bounds() {
    let mut seen = seen();
    seen.books = Err("no gateway answers".into());
    for (wanted, scale) in [(1, None), (4, None), (0, Some(1)), (7, Some(4))] {
        seen.workers = Some(Replicas {
            wanted,
            ready: wanted,
        });
        let decision = decide(&pipeline(&json!({})), &seen, at(0));
        assert_eq!(decision.scale, scale, "from {wanted}");
        assert_eq!(said(&decision, READY), is("False", "BooksUnreadable"));
        assert_eq!(said(&decision, SCALING), is("False", "BooksUnreadable"));
    }
}

#[test]
fn what_was_last_known_stays_while_nothing_can_be_read() {
    let mut pipeline = pipeline(&json!({}));
    pipeline.status = Some(decide(&pipeline, &seen(), at(0)).status);
    let mut seen = seen();
    seen.books = Err("x".into());
    let status = decide(&pipeline, &seen, at(5)).status;
    assert_eq!(status.received, Some(100));
    assert_eq!(find(&status.conditions, BALANCED).unwrap().status, "True");
}

#[test]
fn another_owner_of_the_number_is_left_to_it() {
    let mut seen = seen();
    seen.books = Ok(Books {
        queue_depth: 1_000_000,
        ..BOOKS
    });
    seen.workers = Some(Replicas {
        wanted: 9,
        ready: 9,
    });
    for (owner, older, reason) in [
        (Some("the HorizontalPodAutoscaler h"), None, "OtherOwner"),
        (None, Some("first"), "Claimed"),
    ] {
        seen.owner = owner.map(Into::into);
        seen.older = older.map(Into::into);
        for paused in [true, false] {
            let decision = decide(&pipeline(&json!({"paused": paused})), &seen, at(0));
            assert_eq!(decision.scale, None);
            assert_eq!(said(&decision, SCALING), is("False", reason));
        }
    }
}

#[test]
fn a_pause_scales_to_none_and_back_whatever_the_books() {
    for books in [Ok(BOOKS), Err("x".into())] {
        let mut seen = Seen { books, ..seen() };
        let paused = decide(&pipeline(&json!({"paused": true})), &seen, at(0));
        assert_eq!(paused.scale, Some(0));
        assert_eq!(said(&paused, SCALING), is("False", "Paused"));
        seen.workers = Some(Replicas {
            wanted: 0,
            ready: 0,
        });
        let again = decide(&pipeline(&json!({"paused": true})), &seen, at(5));
        assert_eq!(again.scale, None);
        assert_eq!(decide(&pipeline(&json!({})), &seen, at(10)).scale, Some(1));
    }
}

#[test]
fn a_time_in_which_nobody_looked_at_the_load_was_no_quiet_one() {
    let pipeline_at = |status: Option<&PipelineStatus>, paused: bool| {
        let mut pipeline = pipeline(&json!({"paused": paused}));
        pipeline.status = status.cloned();
        pipeline
    };
    let idle = Seen {
        workers: Some(Replicas {
            wanted: 4,
            ready: 4,
        }),
        ..seen()
    };
    let quiet = decide(&pipeline_at(None, false), &idle, at(0)).status;
    assert_eq!(quiet.quiet_since, Some(Time(at(0))));
    for (blind, paused, reason) in [
        (
            Seen {
                books: Err("x".into()),
                ..idle.clone()
            },
            false,
            "BooksUnreadable",
        ),
        (
            Seen {
                owner: Some("h".into()),
                ..idle.clone()
            },
            false,
            "OtherOwner",
        ),
        (
            Seen {
                older: Some("first".into()),
                ..idle.clone()
            },
            false,
            "Claimed",
        ),
        (
            Seen {
                workers: None,
                ..idle.clone()
            },
            false,
            "NoDeployment",
        ),
        (idle.clone(), true, "Paused"),
    ] {
        let decision = decide(&pipeline_at(Some(&quiet), paused), &blind, at(5));
        assert_eq!(said(&decision, SCALING), is("False", reason));
        let status = Some(&decision.status);
        let again = decide(&pipeline_at(status, false), &idle, at(200));
        assert_eq!(again.scale, None, "{reason}");
        assert_eq!(again.status.quiet_since, Some(Time(at(200))), "{reason}");
    }
}

#[test]
fn books_that_do_not_add_up_are_told_with_their_numbers() {
    let mut seen = seen();
    seen.books = Ok(Books {
        received: 103,
        ..BOOKS
    });
    let decision = decide(&pipeline(&json!({})), &seen, at(0));
    assert_eq!(said(&decision, BALANCED), is("False", "Differ"));
    // What is not queued any more is nobody's to record.
    assert_eq!(decision.scale, None);
    let message = &find(&decision.status.conditions, BALANCED).unwrap().message;
    for number in ["103", "100", "70", "29", "1 buried"] {
        assert!(message.contains(number), "{message}");
    }
}

#[test]
fn none_at_rest_is_ready_and_the_first_event_asks_for_one() {
    let pipeline = pipeline(&json!({
        "workers": {"deployment": "sekali-worker", "min": 0, "max": 4},
    }));
    let mut seen = seen();
    seen.workers = Some(Replicas {
        wanted: 0,
        ready: 0,
    });
    let decision = decide(&pipeline, &seen, at(0));
    assert_eq!(decision.scale, None);
    assert_eq!(said(&decision, READY), is("True", "Serving"));
    seen.books = Ok(Books {
        received: 101,
        queue_depth: 1,
        ..BOOKS
    });
    assert_eq!(decide(&pipeline, &seen, at(5)).scale, Some(1));
}

#[test]
fn without_workers_it_is_not_ready() {
    let mut seen = seen();
    seen.workers = Some(Replicas {
        wanted: 1,
        ready: 0,
    });
    let decision = decide(&pipeline(&json!({})), &seen, at(0));
    assert_eq!(said(&decision, READY), is("False", "NoWorker"));
    seen.workers = None;
    let decision = decide(&pipeline(&json!({})), &seen, at(0));
    assert_eq!(said(&decision, READY), is("False", "NoDeployment"));
    assert_eq!(decision.scale, None);
}
