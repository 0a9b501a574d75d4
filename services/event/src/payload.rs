//! A payload: any JSON object, kept as the text that was sent.
//!
//! It is never parsed into a tree, so `\u0000`, integers of any length, repeated
//! members and the order of members come back as they were sent. Only the white
//! space between tokens, which means nothing in JSON, is left out.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// How deep objects and arrays may nest, the payload itself included. Readers
/// commonly stop at 128, and a payload sits inside an event inside an array.
pub const MAX_DEPTH: usize = 100;

/// The largest payload in bytes. A worker reads several entries at once; this
/// bounds what the largest of them can be.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Why a JSON value is not a payload. Its display completes "`payload` ...".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// A string, number, array, boolean or null.
    #[error("must be a JSON object")]
    NotAnObject,
    /// Nested beyond [`MAX_DEPTH`].
    #[error("must not nest deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Longer than [`MAX_BYTES`].
    #[error("must be at most {MAX_BYTES} bytes of JSON")]
    TooLong,
}

/// The compact text of a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload<'a>(Cow<'a, str>);

impl<'a> Payload<'a> {
    /// Takes a JSON value that serde_json has already found to be well formed.
    pub fn from_json(raw: &'a RawValue) -> Result<Self, PayloadError> {
        let text = raw.get();
        if !text.starts_with('{') {
            return Err(PayloadError::NotAnObject);
        }
        let shape = Shape::of(text.as_bytes());
        if shape.depth > MAX_DEPTH {
            return Err(PayloadError::TooDeep);
        }
        if shape.compact_len > MAX_BYTES {
            return Err(PayloadError::TooLong);
        }
        if shape.compact_len == text.len() {
            Ok(Self(Cow::Borrowed(text)))
        } else {
            Ok(Self(Cow::Owned(compact(text, shape.compact_len))))
        }
    }

    /// Takes the text from a batch that a gateway wrote. It is not parsed again:
    /// the store does that, and buries what it can't read.
    pub(crate) fn trusted(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What one pass over a well-formed text finds.
struct Shape {
    depth: usize,
    compact_len: usize,
}

impl Shape {
    fn of(json: &[u8]) -> Self {
        let mut depth = 0_usize;
        let mut deepest = 0;
        let mut space = 0;
        let mut at = 0;
        while let Some(&byte) = json.get(at) {
            match byte {
                b'"' => at = end_of_string(json, at),
                b'{' | b'[' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                b' ' | b'\n' | b'\r' | b'\t' => space += 1,
                _ => {}
            }
            at += 1;
        }
        Self {
            depth: deepest,
            compact_len: json.len() - space,
        }
    }
}

/// The index of the quote that closes the string which opens at `open`.
fn end_of_string(json: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

fn compact(json: &str, capacity: usize) -> String {
    let mut out = String::with_capacity(capacity);
    let bytes = json.as_bytes();
    let mut kept_from = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at),
            b' ' | b'\n' | b'\r' | b'\t' => {
                out.push_str(&json[kept_from..at]);
                kept_from = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    out.push_str(&json[kept_from..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(json: &str) -> Result<String, PayloadError> {
        let raw: &RawValue = serde_json::from_str(json).expect("the case is well-formed JSON");
        Payload::from_json(raw).map(|payload| payload.as_str().to_owned())
    }

    #[test]
    fn only_insignificant_white_space_is_left_out() {
        let sent =
            "{ \"a b\" : [ 1 ,\t2 ],\r\n \"q\\\"\\\\\": \" \\u0000 \\ud800 \" , \"n\": 1e999}";
        let kept = r#"{"a b":[1,2],"q\"\\":" \u0000 \ud800 ","n":1e999}"#;
        assert_eq!(payload(sent).as_deref(), Ok(kept));
        assert_eq!(payload(kept).as_deref(), Ok(kept));
        assert_eq!(payload("{}").as_deref(), Ok("{}"));
    }

    #[test]
    fn members_stay_as_they_were_sent() {
        let digits = "9".repeat(400);
        let sent = format!(r#"{{"z":{digits},"a":1,"a":2}}"#);
        assert_eq!(payload(&sent), Ok(sent));
    }

    #[test]
    fn depth_is_bounded_and_brackets_in_strings_are_none() {
        let nested = |levels: usize| {
            format!(
                "{{\"a\":{}{}}}",
                "[".repeat(levels - 1),
                "]".repeat(levels - 1)
            )
        };
        assert!(payload(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(payload(&nested(MAX_DEPTH + 1)), Err(PayloadError::TooDeep));
        assert!(payload(&format!(r#"{{"a":"{}"}}"#, "[{".repeat(500))).is_ok());
    }

    #[test]
    fn a_payload_is_an_object_of_bounded_length() {
        for json in ["[]", "1", "\"{}\"", "null", "true"] {
            assert_eq!(payload(json), Err(PayloadError::NotAnObject), "{json}");
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_BYTES));
        assert_eq!(payload(&long), Err(PayloadError::TooLong));
    }
}
