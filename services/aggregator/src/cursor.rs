//! Where a page ended, as an opaque word.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use event::{Key, Timestamp};
use store::Position;
use uuid::Uuid;

/// Timestamp, topic number, key.
const POSITION: usize = 8 + 4 + 16;

/// Tells a cursor from a guess: not a secret, since a position that somebody made up does
/// no harm, only an honest answer to somebody who cut one short.
const CHECKSUM: usize = 4;

pub(crate) fn write(position: &Position) -> String {
    let mut bytes = [0; POSITION + CHECKSUM];
    bytes[..8].copy_from_slice(&position.timestamp.as_micros().to_be_bytes());
    bytes[8..12].copy_from_slice(&position.topic_id.to_be_bytes());
    bytes[12..POSITION].copy_from_slice(position.key.as_uuid().as_bytes());
    let checksum = checksum(&bytes[..POSITION]);
    bytes[POSITION..].copy_from_slice(&checksum);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// None for what [`write`] did not write.
pub(crate) fn read(text: &str) -> Option<Position> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (position, sum) = bytes.split_at_checked(POSITION)?;
    if sum != checksum(position) {
        return None;
    }
    let (timestamp, rest) = position.split_first_chunk()?;
    let (topic_id, key) = rest.split_first_chunk()?;
    Some(Position {
        timestamp: Timestamp::from_micros(i64::from_be_bytes(*timestamp))?,
        topic_id: i32::from_be_bytes(*topic_id),
        key: Key::from(Uuid::from_slice(key).ok()?),
    })
}

fn checksum(position: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&blake3::hash(position).as_bytes()[..CHECKSUM]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_a_forged_one_is_not() {
        let position = Position {
            timestamp: Timestamp::from_micros(-5).unwrap(),
            topic_id: 7,
            key: Key::from(Uuid::from_u128(42)),
        };
        let text = write(&position);
        assert_eq!(read(&text), Some(position));
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(read(&forged), None, "{forged}");
        }
        assert_eq!(read(""), None);
        assert_eq!(read(&text[..10]), None);
        assert_eq!(read("not base 64!"), None);
    }
}
