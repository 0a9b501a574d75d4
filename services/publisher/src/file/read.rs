//! Lines, gathered into requests: as many as fit, or as many as there are for now.

use std::fmt;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncBufRead as _, AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::time::Instant;

use super::Batch;

/// How long a line waits for others to share its request.
const LINGER: Duration = Duration::from_millis(50);

/// From this size on a request is full: well below what a gateway takes (8 MiB).
const FULL: usize = 1024 * 1024;

/// The longest line. A gateway takes payloads of a megabyte.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// How much is read at once.
const BUFFER: usize = 256 * 1024;

/// Why a line is not even sent: it would have its whole request refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    TooLong,
    NotUtf8,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the line is longer than {MAX_LINE} bytes"),
            Self::NotUtf8 => f.write_str("the line is not valid UTF-8"),
        }
    }
}

/// Reads an input. Whatever waits for it may stop waiting and come again.
pub(super) struct Reader<R> {
    input: BufReader<R>,
    /// How many lines a request holds.
    batch: usize,
    /// The line that has begun, and whether the rest of it is left out.
    line: Vec<u8>,
    is_too_long: bool,
    /// How many lines have ended.
    ended: u64,
    body: BytesMut,
    numbers: Vec<u64>,
    /// When what has been gathered is sent as it is.
    linger: Option<Instant>,
    faults: Vec<(u64, Fault)>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(input: R, batch: usize) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER, input),
            batch,
            line: Vec::new(),
            is_too_long: false,
            ended: 0,
            body: BytesMut::new(),
            numbers: Vec::new(),
            linger: None,
            faults: Vec::new(),
        }
    }

    /// The next request, or none at the end of the input.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Batch>> {
        loop {
            if self.is_full() {
                return Ok(self.take());
            }
            let linger = self.linger;
            let lingered = async {
                match linger {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let is_end = tokio::select! {
                biased;
                chunk = self.input.fill_buf() => chunk?.is_empty(),
                () = lingered => return Ok(self.take()),
            };
            if is_end {
                self.end_line();
                return Ok(self.take());
            }
            self.gather();
        }
    }

    /// The next request out of what has been read, until there is no whole line left of it.
    pub(super) fn rest(&mut self) -> Option<Batch> {
        self.gather();
        self.take()
    }

    /// What has been gathered, if anything.
    fn take(&mut self) -> Option<Batch> {
        self.linger = None;
        (!self.numbers.is_empty()).then(|| Batch {
            body: self.body.split().freeze(),
            numbers: std::mem::take(&mut self.numbers),
        })
    }

    /// Lines that are not sent, since this was last asked.
    pub(super) fn faults(&mut self) -> Vec<(u64, Fault)> {
        std::mem::take(&mut self.faults)
    }

    /// The number of the line that is to be read next.
    pub(super) fn next_line(&self) -> u64 {
        self.ended + 1
    }

    fn is_full(&self) -> bool {
        self.numbers.len() >= self.batch || self.body.len() >= FULL
    }

    /// Takes lines out of what was read until the request is full.
    fn gather(&mut self) {
        while !self.is_full() {
            let chunk = self.input.buffer();
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.line.len() + part.len() > MAX_LINE {
                self.is_too_long = true;
                self.line.clear();
            }
            if !self.is_too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            std::pin::Pin::new(&mut self.input).consume(used);
            if end.is_none() {
                return;
            }
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        self.ended += 1;
        let line = std::mem::take(&mut self.line);
        let is_blank = line.iter().all(u8::is_ascii_whitespace);
        if std::mem::take(&mut self.is_too_long) {
            self.faults.push((self.ended, Fault::TooLong));
        } else if !is_blank && std::str::from_utf8(&line).is_err() {
            self.faults.push((self.ended, Fault::NotUtf8));
        } else if !is_blank {
            self.body.extend_from_slice(&line);
            self.body.extend_from_slice(b"\n");
            self.numbers.push(self.ended);
            self.linger.get_or_insert_with(|| Instant::now() + LINGER);
        }
        // Its room serves the next line.
        self.line = line;
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn read(input: &[u8], batch: usize) -> (Vec<(String, Vec<u64>)>, Vec<(u64, Fault)>) {
        let mut reader = Reader::new(input, batch);
        let mut batches = Vec::new();
        let mut faults = Vec::new();
        loop {
            let next = reader.next().await.unwrap();
            faults.extend(reader.faults());
            let Some(Batch { body, numbers }) = next else {
                return (batches, faults);
            };
            batches.push((String::from_utf8(body.to_vec()).unwrap(), numbers));
        }
    }

    #[tokio::test]
    async fn lines_keep_their_numbers_and_blank_ones_are_left_out() {
        let (batches, faults) = read(b"a\n\nb\r\n \nc\nd", 2).await;
        let expected = [
            ("a\nb\r\n".to_owned(), vec![1, 3]),
            ("c\nd\n".to_owned(), vec![5, 6]),
        ];
        assert_eq!(batches, expected);
        assert_eq!(faults, []);
        assert!(read(b"", 2).await.0.is_empty());
    }

    #[tokio::test]
    async fn what_would_have_its_request_refused_is_not_sent() {
        let mut input = b"a\n\xff\n".to_vec();
        input.extend(vec![b'x'; MAX_LINE + 1]);
        input.extend(b"\nb\n");
        let (batches, faults) = read(&input, 10).await;
        assert_eq!(batches, [("a\nb\n".to_owned(), vec![1, 4])]);
        assert_eq!(faults, [(2, Fault::NotUtf8), (3, Fault::TooLong)]);
    }

    #[tokio::test]
    async fn a_request_is_full_by_its_bytes_too() {
        let line = vec![b'x'; 400 * 1024];
        let input = [&line[..], b"\n"].concat().repeat(4);
        let (batches, _) = read(&input, 100).await;
        let counts: Vec<_> = batches.iter().map(|(_, numbers)| numbers.len()).collect();
        assert_eq!(counts, [3, 1]);
    }

    #[tokio::test]
    async fn a_line_does_not_wait_for_others_for_long() {
        let (mut sender, receiver) = tokio::io::duplex(64);
        let mut reader = Reader::new(receiver, 100);
        sender.write_all(b"a\nb").await.unwrap();
        let begun = Instant::now();
        let batch = reader.next().await.unwrap().unwrap();
        assert_eq!(batch.numbers, [1]);
        assert!(begun.elapsed() >= LINGER);
        sender.write_all(b"c\n").await.unwrap();
        drop(sender);
        let batch = reader.next().await.unwrap().unwrap();
        assert_eq!(
            (&batch.body[..], &batch.numbers[..]),
            (&b"bc\n"[..], &[2][..])
        );
        assert!(reader.next().await.unwrap().is_none());
    }
}
