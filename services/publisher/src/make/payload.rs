//! What happened: JSON objects of an exact length that nothing may change on the way.

use std::io::Write as _;

use bytes::{BufMut as _, BytesMut};

use crate::draw::{For, Seed};

/// Room for the version, of up to twenty digits, and for a text of some letters.
pub(crate) const MIN_BYTES: usize = 48;

/// The most that a gateway takes (see `event::payload`).
pub(crate) const MAX_BYTES: usize = event::payload::MAX_BYTES;

/// From this length on there is room for a number that no double holds.
const ROOMY: usize = 128;

const OPEN: &[u8] = b"{\"n\":";
const TEXT: &[u8] = b",\"text\":\"";
const CLOSE: &[u8] = b"\"}";

/// Words as they stand in JSON, some of which tempt a program to rewrite them.
const WORDS: [&[u8]; 32] = [
    b"order ",
    b"paid ",
    b"shipped ",
    b"returned ",
    b"queued ",
    b"retry ",
    b"timeout ",
    b"customer ",
    b"basket ",
    b"invoice ",
    b"cancelled ",
    b"refund ",
    b"warehouse ",
    b"signal ",
    b"level=info ",
    b"status=200 ",
    b"user=4711 ",
    b"GET /cart ",
    b"ms=12.75 ",
    b"line\\n",
    b"tab\\t",
    b"\\\"quoted\\\" ",
    b"back\\\\slash ",
    b"a\\/b ",
    b"\\u0000 ",
    b"\\u00fc ",
    b"\\ud83d\\ude00 ",
    "\u{fc}ber ".as_bytes(),
    "\u{2602} ".as_bytes(),
    "\u{1d11e} ".as_bytes(),
    b"{[( ",
    b"null, ",
];

/// Appends the payload of a version, `bytes` long.
pub(super) fn write(seed: Seed, version: u64, bytes: usize, out: &mut BytesMut) {
    let begin = out.len();
    let mut draws = seed.stream(For::Content, version);
    out.put_slice(OPEN);
    write_number(version, out);
    if bytes >= ROOMY {
        out.put_slice(b",\"exact\":-");
        write_number(draws.next() | 1 << 63, out);
        write_number(version, out);
        out.put_slice(b".10e-3,\"a\":{\"z\":[],\"a\":null}");
    }
    out.put_slice(TEXT);
    write_words(
        &mut draws,
        (begin + bytes - CLOSE.len()).saturating_sub(out.len()),
        out,
    );
    out.put_slice(CLOSE);
}

/// The version that a payload says it is.
pub(super) fn version_of(payload: &str) -> Option<u64> {
    let rest = payload.as_bytes().strip_prefix(OPEN)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

/// Five bits of a draw choose a word, until the room is filled.
fn write_words(draws: &mut crate::draw::Stream, mut room: usize, out: &mut BytesMut) {
    while room > 0 {
        let mut bits = draws.next();
        for _ in 0..12 {
            let word = WORDS[(bits & 31) as usize];
            bits >>= 5;
            if word.len() > room {
                out.put_bytes(b'x', room);
                return;
            }
            out.put_slice(word);
            room -= word.len();
        }
    }
}

fn write_number(number: u64, out: &mut BytesMut) {
    write!(out.writer(), "{number}").expect("a buffer takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(version: u64, bytes: usize) -> String {
        let mut out = BytesMut::from("before");
        write(Seed(7), version, bytes, &mut out);
        String::from_utf8(out[6..].to_vec()).unwrap()
    }

    #[test]
    fn payloads_are_json_of_the_length_that_was_asked_for() {
        for bytes in [MIN_BYTES, 100, ROOMY, 300, 5_000] {
            for version in [0, 1, 12_345, u64::MAX] {
                let payload = payload(version, bytes);
                assert_eq!(payload.len(), bytes, "{payload}");
                assert_eq!(version_of(&payload), Some(version));
                serde_json::from_str::<serde_json::Value>(&payload).expect(&payload);
            }
        }
    }

    #[test]
    fn no_two_versions_share_a_payload() {
        assert_eq!(payload(1, 300), payload(1, 300));
        assert_ne!(payload(1, 300), payload(2, 300));
    }

    #[test]
    fn long_payloads_hold_what_must_not_be_changed() {
        let all: String = (0..20).map(|version| payload(version, 1_000)).collect();
        for part in [
            "\\u0000",
            "\\/",
            "\u{1d11e}",
            "\\ud83d",
            "\"z\":[],\"a\"",
            ".10e-3",
        ] {
            assert!(all.contains(part), "{part}");
        }
    }

    #[test]
    fn other_payloads_have_no_version() {
        for text in [
            "{}",
            "{\"n\":\"1\"}",
            "{\"n\":-1}",
            "{\"n\":99999999999999999999999}",
        ] {
            assert_eq!(version_of(text), None, "{text}");
        }
    }
}
