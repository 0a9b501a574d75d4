//! Lines out of a stream that comes in chunks of any size.

use bytes::{Buf as _, BytesMut};

/// The longest line. A payload of a megabyte may grow by half where names are escaped.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// What of a line has come so far.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: BytesMut,
}

impl Lines {
    /// Hands on each line that the chunk ends, without its line feed. Blank ones mean
    /// nothing.
    pub(super) fn feed<E: From<anyhow::Error>>(
        &mut self,
        mut chunk: &[u8],
        each: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            if self.begun.is_empty() {
                hand_on(&chunk[..end], each)?;
            } else {
                self.begun.extend_from_slice(&chunk[..end]);
                hand_on(&self.begun, each)?;
                self.begun.clear();
            }
            chunk.advance(end + 1);
        }
        if self.begun.len() + chunk.len() > MAX_LINE {
            return Err(anyhow::anyhow!("a line is longer than {MAX_LINE} bytes").into());
        }
        self.begun.extend_from_slice(chunk);
        Ok(())
    }

    /// What comes after the last line feed is a line too.
    pub(super) fn end<E>(self, each: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        hand_on(&self.begun, each)
    }
}

fn hand_on<E>(line: &[u8], each: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    if line.is_empty() { Ok(()) } else { each(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let text = b"one\ntwo\n\nthree\nlast";
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            let mut each = |line: &[u8]| {
                seen.push(String::from_utf8(line.to_vec())?);
                anyhow::Ok(())
            };
            for chunk in text.chunks(size) {
                lines.feed(chunk, &mut each).unwrap();
            }
            lines.end(&mut each).unwrap();
            assert_eq!(seen, ["one", "two", "three", "last"], "{size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_collected_for_ever() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; MAX_LINE];
        let mut each = |_: &[u8]| anyhow::Ok(());
        lines.feed(&chunk, &mut each).unwrap();
        assert!(lines.feed(&chunk, &mut each).is_err());
    }
}
