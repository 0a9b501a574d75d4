//! What an answer means for a request: that it is over, or that it is sent again.
//!
//! Sekali promises that a 429 or a 503 has taken nothing of a request, and that a request
//! may be sent again whenever its outcome is unknown. The verdict relies on the first
//! (see `verify`), and every retry on the second.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::args::Ack;
use crate::client::Unanswered;

/// What became of one attempt.
#[derive(Debug)]
pub(crate) enum Attempt<'a> {
    Unanswered(Unanswered),
    Answered {
        status: StatusCode,
        retry_after: Option<Duration>,
        body: &'a [u8],
    },
}

/// What is to be answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// How many events the request holds.
    pub(crate) events: u64,
    pub(crate) ack: Ack,
    pub(crate) request: Request,
}

/// What kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// All of it is to be taken.
    Sound,
    /// It is to be refused.
    Malformed,
    /// What of it is an event is to be taken (`partial=true`).
    Partial,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Over(End),
    Again(Again),
}

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Acknowledged(Receipt),
    /// A malformed request was refused.
    RefusedAsExpected,
    /// Nothing of it was taken, and never will be.
    Refused(String),
    /// An answer that Sekali should not give. It may have been taken.
    Failed(String),
}

/// Why and when a request is sent again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Again {
    pub(crate) why: String,
    /// How long the gateway asks to wait.
    pub(crate) wait: Option<Duration>,
    /// Whether this attempt left, and whether it may have been taken all the same.
    pub(crate) left: bool,
    pub(crate) may_be_taken: bool,
}

/// What an acknowledgement says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// With `ack=stored`: events that can never be stored.
    pub(crate) buried: u64,
    /// With `partial=true`: how many items are no events, and why; not all may be listed.
    pub(crate) refused: u64,
    pub(crate) errors: Vec<ItemError>,
}

/// One thing that is wrong with one item.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct ItemError {
    /// The item, counted from 0.
    pub(crate) index: usize,
    pub(crate) message: String,
}

/// The longest that a gateway is believed when it asks to wait.
const MAX_WAIT: Duration = Duration::from_mins(1);

pub(crate) fn decide(attempt: Attempt<'_>, wish: Wish) -> Decision {
    let (status, retry_after, body) = match attempt {
        Attempt::Unanswered(Unanswered::NotSent(why)) => return again(why, None, false, false),
        Attempt::Unanswered(Unanswered::Unknown(why)) => return again(why, None, true, true),
        Attempt::Answered {
            status,
            retry_after,
            body,
        } => (status, retry_after, body),
    };
    let wait = retry_after.map(|wait| wait.min(MAX_WAIT));
    match (status, wish.request) {
        (StatusCode::OK, Request::Malformed) => Decision::Over(End::Failed(
            "a malformed request was acknowledged".to_owned(),
        )),
        (StatusCode::OK, _) => Decision::Over(match receipt(body, wish) {
            Ok(receipt) => End::Acknowledged(receipt),
            Err(why) => End::Failed(why),
        }),
        (StatusCode::UNPROCESSABLE_ENTITY, Request::Malformed) => {
            Decision::Over(End::RefusedAsExpected)
        }
        // The body did not arrive in time, the gateway is full, or it can't reach its queue.
        (
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE,
            _,
        ) => again(explain(status, body), wait, true, false),
        (StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT, _) => {
            again(explain(status, body), wait, true, true)
        }
        (status, _) if status.is_client_error() => {
            Decision::Over(End::Refused(explain(status, body)))
        }
        (status, _) => Decision::Over(End::Failed(explain(status, body))),
    }
}

fn again(why: String, wait: Option<Duration>, left: bool, may_be_taken: bool) -> Decision {
    Decision::Again(Again {
        why,
        wait,
        left,
        may_be_taken,
    })
}

/// The body of an acknowledgement, of either kind.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    count: u64,
    #[serde(default)]
    accepted: u64,
    #[serde(default)]
    stored: u64,
    #[serde(default)]
    duplicates: u64,
    #[serde(default)]
    refused: u64,
    #[serde(default)]
    errors: Vec<ItemError>,
}

/// Reads an acknowledgement and holds it to what was sent.
fn receipt(body: &[u8], wish: Wish) -> Result<Receipt, String> {
    let answer: Answer<'_> = serde_json::from_slice(body)
        .map_err(|error| format!("the answer is no acknowledgement: {error}"))?;
    let refused = answer.refused;
    let (status, taken) = match wish.ack {
        Ack::Queued => ("queued", answer.accepted),
        Ack::Stored => ("stored", answer.count),
    };
    if answer.status != status {
        return Err(format!(
            "the answer is {:?} where {status:?} was asked for",
            answer.status
        ));
    }
    if taken.saturating_add(refused) != wish.events
        || (refused > 0 && wish.request != Request::Partial)
    {
        return Err(format!(
            "of {} events, {taken} were acknowledged and {refused} refused",
            wish.events
        ));
    }
    let settled = answer.stored.saturating_add(answer.duplicates);
    Ok(Receipt {
        buried: match wish.ack {
            Ack::Queued => 0,
            Ack::Stored => answer.count.saturating_sub(settled),
        },
        refused,
        errors: answer.errors,
    })
}

/// RFC 9457, as far as it is told of.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    #[serde(default)]
    errors: Vec<ItemError>,
}

/// What an answer that is no acknowledgement says, in one line.
pub(crate) fn explain(status: StatusCode, body: &[u8]) -> String {
    let Ok(Problem { detail, errors }) = serde_json::from_slice(body) else {
        return status.to_string();
    };
    let first = errors
        .first()
        .map(|error| format!(" (item {}: {})", error.index, error.message));
    let line = format!("{status}: {detail}{}", first.unwrap_or_default());
    line.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(request: Request, ack: Ack) -> Wish {
        Wish {
            events: 3,
            ack,
            request,
        }
    }

    fn answered(status: u16, body: &str, wish: Wish) -> Decision {
        let attempt = Attempt::Answered {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: Some(Duration::from_secs(2)),
            body: body.as_bytes(),
        };
        decide(attempt, wish)
    }

    #[test]
    fn what_was_not_taken_or_may_not_have_been_is_sent_again() {
        for (status, may_be_taken) in [
            (408, false),
            (429, false),
            (503, false),
            (502, true),
            (504, true),
        ] {
            for request in [Request::Sound, Request::Malformed, Request::Partial] {
                let decision = answered(status, "", wish(request, Ack::Queued));
                let Decision::Again(again) = decision else {
                    panic!("{status}: {decision:?}");
                };
                assert_eq!(again.may_be_taken, may_be_taken, "{status}");
                assert_eq!(again.wait, Some(Duration::from_secs(2)));
                assert!(again.left);
            }
        }
    }

    #[test]
    fn without_an_answer_only_what_left_may_have_been_taken() {
        for (unanswered, left) in [
            (Unanswered::NotSent("refused".into()), false),
            (Unanswered::Unknown("reset".into()), true),
        ] {
            let decision = decide(
                Attempt::Unanswered(unanswered),
                wish(Request::Sound, Ack::Queued),
            );
            let Decision::Again(again) = decision else {
                panic!("{decision:?}");
            };
            assert_eq!((again.left, again.may_be_taken), (left, left));
        }
    }

    #[test]
    fn a_gateway_that_asks_for_an_hour_gets_a_minute() {
        let attempt = Attempt::Answered {
            status: StatusCode::SERVICE_UNAVAILABLE,
            retry_after: Some(Duration::from_hours(1)),
            body: b"",
        };
        let Decision::Again(again) = decide(attempt, wish(Request::Sound, Ack::Queued)) else {
            panic!("it is over");
        };
        assert_eq!(again.wait, Some(MAX_WAIT));
    }

    #[test]
    fn a_malformed_request_must_be_refused_with_422_and_others_must_not() {
        let malformed = |status| answered(status, "{}", wish(Request::Malformed, Ack::Queued));
        assert_eq!(malformed(422), Decision::Over(End::RefusedAsExpected));
        assert!(matches!(malformed(400), Decision::Over(End::Refused(_))));
        assert!(matches!(malformed(200), Decision::Over(End::Failed(_))));
        let sound = |status| answered(status, "{}", wish(Request::Sound, Ack::Queued));
        for status in [400, 401, 403, 404, 413, 422] {
            assert!(matches!(sound(status), Decision::Over(End::Refused(_))));
        }
        assert!(matches!(sound(500), Decision::Over(End::Failed(_))));
        assert!(matches!(sound(301), Decision::Over(End::Failed(_))));
    }

    #[test]
    fn an_acknowledgement_counts_what_was_sent() {
        let queued = |body| answered(200, body, wish(Request::Sound, Ack::Queued));
        let good = r#"{"status":"queued","count":3,"accepted":3}"#;
        assert_eq!(
            queued(good),
            Decision::Over(End::Acknowledged(Receipt::default()))
        );
        for body in [
            "",
            "[]",
            r#"{"status":"queued","count":3,"accepted":2}"#,
            r#"{"status":"queued","count":3,"accepted":2,"refused":1}"#,
            r#"{"status":"stored","count":3,"stored":3,"duplicates":0}"#,
        ] {
            assert!(
                matches!(queued(body), Decision::Over(End::Failed(_))),
                "{body}"
            );
        }
    }

    #[test]
    fn an_acknowledgement_after_the_commit_says_what_became_of_the_events() {
        let body = r#"{"status":"stored","count":3,"stored":1,"duplicates":1,"conflicts":1,
                       "results":[{"topic":"t","event_id":"a","outcome":"stored"}]}"#;
        let receipt = Receipt {
            buried: 1,
            ..Receipt::default()
        };
        assert_eq!(
            answered(200, body, wish(Request::Sound, Ack::Stored)),
            Decision::Over(End::Acknowledged(receipt))
        );
    }

    #[test]
    fn of_a_file_some_lines_may_be_refused() {
        let body = r#"{"status":"queued","count":3,"accepted":2,"refused":1,
                       "errors":[{"index":1,"field":"topic","message":"`topic` is missing"}]}"#;
        let decision = answered(200, body, wish(Request::Partial, Ack::Queued));
        let Decision::Over(End::Acknowledged(receipt)) = decision else {
            panic!("{decision:?}");
        };
        assert_eq!((receipt.refused, receipt.errors[0].index), (1, 1));
    }

    #[test]
    fn a_problem_is_told_in_its_own_words() {
        let body = br#"{"type":"x","detail":"1 of 3","errors":[{"index":2,"message":"no"}]}"#;
        let line = explain(StatusCode::UNPROCESSABLE_ENTITY, body);
        assert_eq!(line, "422 Unprocessable Entity: 1 of 3 (item 2: no)");
        assert_eq!(explain(StatusCode::NOT_FOUND, b"<html>"), "404 Not Found");
    }
}
