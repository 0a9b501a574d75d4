//! What makes a request malformed. Each of these is refused with 422, whatever else is in
//! the request.

use crate::draw::{For, Seed};

/// One way in which an event is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The body ends in the middle of it.
    Truncated,
    SourceMissing,
    PayloadNotAnObject,
    TimestampIsNone,
    TopicEmpty,
    TopicWithControlCharacter,
    SourceNull,
    NotAnObject,
}

const ALL: [Fault; 8] = [
    Fault::Truncated,
    Fault::SourceMissing,
    Fault::PayloadNotAnObject,
    Fault::TimestampIsNone,
    Fault::TopicEmpty,
    Fault::TopicWithControlCharacter,
    Fault::SourceNull,
    Fault::NotAnObject,
];

impl Fault {
    /// The fault of a malformed request, and which of its `len` events has it.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the remainder is less than eight"
    )]
    pub(crate) fn of_request(seed: Seed, request: u64, len: u64) -> (Self, u64) {
        let mut draws = seed.stream(For::Fault, request);
        let fault = ALL[(draws.next() % ALL.len() as u64) as usize];
        (fault, draws.next() % len.max(1))
    }

    /// An event's JSON with the fault in it.
    pub(super) fn break_event(self, whole: &str) -> String {
        let member = |from: &str, to: &str| {
            let begin = whole.find(from).expect("an event has all five members");
            let value = begin + from.len();
            let end = value + whole[value..].find('"').expect("a string has an end");
            format!("{}{to}{}", &whole[..begin], &whole[end + 1..])
        };
        match self {
            Self::Truncated => whole[..whole.len() - 2].to_owned(),
            Self::SourceMissing => member("\"source\":\"", "\"from\":\"web\""),
            Self::PayloadNotAnObject => {
                whole.replacen("\"payload\":{", "\"payload\":[],\"was\":{", 1)
            }
            Self::TimestampIsNone => member("\"timestamp\":\"", "\"timestamp\":\"yesterday\""),
            Self::TopicEmpty => member("\"topic\":\"", "\"topic\":\"\""),
            Self::TopicWithControlCharacter => member("\"topic\":\"", "\"topic\":\"a\\u0007b\""),
            Self::SourceNull => member("\"source\":\"", "\"source\":null"),
            Self::NotAnObject => "17".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use event::{Form, body};

    use super::*;
    use crate::make::IdForm;
    use crate::make::tests::maker;
    use crate::plan::Item;

    #[test]
    fn every_fault_is_one_to_the_gateway_alone_and_in_a_batch() {
        let maker = maker(IdForm::V4);
        let item = Item { key: 3, version: 3 };
        for fault in ALL {
            let mut broken = BytesMut::new();
            maker.write_broken(item, fault, &mut broken);
            let mut whole = BytesMut::new();
            maker.write(item, &mut whole);
            let broken = String::from_utf8(broken.to_vec()).unwrap();
            let whole = String::from_utf8(whole.to_vec()).unwrap();
            for body in [broken.clone(), format!("[{whole},{broken},{whole}]")] {
                let refused = match body::parse(body.as_bytes(), Form::Json) {
                    Ok(parsed) => parsed.refused > 0,
                    Err(_) => true,
                };
                assert!(refused, "{fault:?}: {body}");
            }
        }
    }

    #[test]
    fn every_fault_occurs() {
        let mut seen: Vec<_> = (0..200)
            .map(|request| Fault::of_request(Seed(7), request, 10))
            .collect();
        assert!(seen.iter().all(|(_, at)| *at < 10));
        seen.sort_by_key(|(fault, _)| *fault as u8);
        seen.dedup_by_key(|(fault, _)| *fault);
        assert_eq!(seen.len(), ALL.len());
    }
}
