//! The parameters of a query. One that can't be meant is refused, and so is one that is
//! not known: a misspelt filter that is ignored answers a question that nobody asked.

use std::borrow::Cow;

use event::{Source, Timestamp, Topic};
use http::{HeaderValue, Uri};

use crate::error::ApiError;

/// What one page holds unless told otherwise, and at most.
pub(crate) const DEFAULT_LIMIT: usize = 50;
pub(crate) const MAX_LIMIT: usize = 10_000;

/// The parameters of a request, each given once.
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Takes the query apart; all names must be among `known`.
    pub(crate) fn of(uri: &'a Uri, known: &'static [&'static str]) -> Result<Self, ApiError> {
        let query = uri.query().unwrap_or_default();
        let mut pairs = Vec::<(Cow<'_, str>, Cow<'_, str>)>::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(name) = known.iter().find(|known| **known == name) else {
                return Err(ApiError::Parameter(
                    "query",
                    match known {
                        [] => "no parameters are known here".to_owned(),
                        known => format!(
                            "{:?} is not known; there are {}",
                            name.chars().take(40).collect::<String>(),
                            known.join(", ")
                        ),
                    },
                ));
            };
            if pairs.iter().any(|(before, _)| before == name) {
                return Err(ApiError::Parameter(name, "give it once".into()));
            }
            pairs.push((Cow::Borrowed(name), value));
        }
        Ok(Self(pairs))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| &**value)
    }

    pub(crate) fn limit(&self) -> Result<usize, ApiError> {
        match self.get("limit").map(str::parse) {
            None => Ok(DEFAULT_LIMIT),
            Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
            Some(_) => Err(ApiError::Parameter(
                "limit",
                format!("a number from 1 to {MAX_LIMIT}"),
            )),
        }
    }

    pub(crate) fn topic(&self) -> Result<Option<Topic<'_>>, ApiError> {
        let topic = self.get("topic").map(Topic::parse).transpose();
        topic.map_err(|error| ApiError::Parameter("topic", error.to_string()))
    }

    pub(crate) fn source(&self) -> Result<Option<Source<'_>>, ApiError> {
        let source = self.get("source").map(Source::parse).transpose();
        source.map_err(|error| ApiError::Parameter("source", error.to_string()))
    }

    pub(crate) fn time(&self, name: &'static str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        // In a query a plus sign means a space, which nobody remembers who writes
        // +07:00 at the end of a time.
        let parsed = Timestamp::parse(text).or_else(|error| match text.rsplit_once(' ') {
            Some((time, offset)) => Timestamp::parse(&format!("{time}+{offset}")),
            None => Err(error),
        });
        parsed
            .map(Some)
            .map_err(|error| ApiError::Parameter(name, error.to_string()))
    }

    /// Where the page before ended.
    pub(crate) fn cursor<T>(
        &self,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let refused =
            || ApiError::Parameter("cursor", "take it from the header Link of a page".into());
        let cursor = self.get("cursor");
        cursor
            .map(|text| read(text).ok_or_else(refused))
            .transpose()
    }

    /// The header Link for the next page, relative to the host: the same question and a cursor.
    pub(crate) fn next(&self, path: &str, cursor: &str) -> HeaderValue {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        pairs.extend_pairs(self.0.iter().filter(|(name, _)| name != "cursor"));
        pairs.append_pair("cursor", cursor);
        let next = format!("<{path}?{}>; rel=\"next\"", pairs.finish());
        HeaderValue::try_from(next).expect("a path and a form are ASCII")
    }

    /// One of two words.
    pub(crate) fn choice(
        &self,
        name: &'static str,
        [no, yes]: [&'static str; 2],
    ) -> Result<bool, ApiError> {
        match self.get(name) {
            None => Ok(false),
            Some(value) if value == no => Ok(false),
            Some(value) if value == yes => Ok(true),
            Some(_) => Err(ApiError::Parameter(name, format!("{no} or {yes}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["limit", "from", "topic", "ack"];

    fn detail<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
        match result.unwrap_err() {
            ApiError::Parameter(name, detail) => format!("{name}: {detail}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let of = |query: &str| -> Uri { format!("/events?{query}").parse().unwrap() };
        let limit = |query| Query::of(&of(query), KNOWN).and_then(|query| query.limit());
        assert_eq!(limit(""), Ok(50));
        assert_eq!(limit("limit=10000"), Ok(10_000));
        for query in ["limit=0", "limit=10001", "limit=-1", "limit=", "limit=ten"] {
            assert_eq!(detail(limit(query)), "limit: a number from 1 to 10000");
        }
        assert_eq!(detail(limit("limit=1&limit=2")), "limit: give it once");
        assert!(detail(limit("topics=x")).contains("there are limit, from"));
        let ack = |query| {
            Query::of(&of(query), KNOWN).and_then(|query| query.choice("ack", ["queued", "stored"]))
        };
        assert_eq!((ack(""), ack("ack=stored")), (Ok(false), Ok(true)));
        assert_eq!(detail(ack("ack=never")), "ack: queued or stored");
    }

    #[test]
    fn an_offset_may_be_written_with_or_without_escaping_its_plus() {
        let time = |query: &str| {
            let uri: Uri = format!("/events?{query}").parse().unwrap();
            Query::of(&uri, KNOWN).and_then(|query| query.time("from"))
        };
        let expected = Timestamp::parse("2026-01-01T00:00:00Z").ok();
        assert_eq!(time("from=2026-01-01T07:00:00+07:00"), Ok(expected));
        assert_eq!(time("from=2026-01-01T07:00:00%2B07:00"), Ok(expected));
        assert!(detail(time("from=yesterday")).starts_with("from: "));
    }
}
