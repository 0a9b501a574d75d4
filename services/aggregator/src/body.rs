//! The body of a request, read within its bounds.
//!
//! What is held is reserved first, from a budget that all requests share, so that many
//! large bodies at once are refused rather than held; a compressed body reserves what it
//! unpacks to, as it does.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use http_body_util::{BodyDataStream, BodyExt as _};
use prometheus::{PullingGauge, Registry};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::io::StreamReader;

use crate::args::Limits;
use crate::error::ApiError;

/// What is reserved at a time where the length is not known before.
const STEP: usize = 64 * 1024;

/// The largest window of a zstd body, as a power of two: the 8 MiB that every decoder is
/// asked to support (RFC 8878, 3.1.1.1.2). Its memory is touched only as far as the body
/// unpacks, which is reserved.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How long the rest of a body that is refused is read on.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads bodies, all of them together within one budget.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    budget: Arc<Semaphore>,
    budget_bytes: u32,
    max_bytes: u32,
    timeout: Duration,
}

/// A body. What it took of the budget is given back when it is dropped.
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    pub(crate) reserved: Reserved,
}

/// A part of the budget. It is shared by all that hold what it is for: a sender that hangs up
/// ends its handler, but not what was handed in for it.
pub(crate) struct Reserved {
    budget: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Reader {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            budget: Arc::new(Semaphore::new(limits.body_budget_bytes as usize)),
            budget_bytes: limits.body_budget_bytes,
            max_bytes: limits.max_body_bytes,
            timeout: Duration::from_millis(limits.body_timeout_ms),
        }
    }

    /// Lets a registry tell how much of the budget is taken.
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let (budget, bytes) = (Arc::clone(&self.budget), f64::from(self.budget_bytes));
        registry.register(Box::new(PullingGauge::new(
            "sekali_gateway_body_budget_bytes",
            "What the bodies of all requests in flight may take together.",
            Box::new(move || bytes),
        )?))?;
        registry.register(Box::new(PullingGauge::new(
            "sekali_gateway_body_bytes",
            "What they take; at the budget requests are refused.",
            Box::new(move || bytes - as_f64(budget.available_permits())),
        )?))
    }

    pub(crate) async fn read(&self, headers: &HeaderMap, mut body: Body) -> Result<Read, ApiError> {
        let read = self.reserve_and_read(headers, &mut body);
        let read = tokio::time::timeout(self.timeout, read).await;
        let refused = match read {
            Ok(Ok(read)) => return Ok(read),
            Ok(Err(error)) => error,
            Err(_) => return Err(ApiError::TooSlow),
        };
        discard(headers, body).await;
        Err(refused)
    }

    async fn reserve_and_read(
        &self,
        headers: &HeaderMap,
        body: &mut Body,
    ) -> Result<Read, ApiError> {
        let encoding = encoding(headers)?;
        let mut reserved = Reserved {
            budget: Arc::clone(&self.budget),
            permit: None,
            bytes: 0,
        };
        if let Some(length) = length(headers) {
            if length > u64::from(self.max_bytes) {
                return Err(ApiError::TooLarge(self.max_bytes));
            }
            if encoding == Encoding::Identity {
                reserved.grow(usize::try_from(length).unwrap_or(usize::MAX))?;
            }
        }
        let bytes = match encoding {
            Encoding::Identity => self.plain(body, &mut reserved).await?,
            Encoding::Gzip => {
                let mut decoder = GzipDecoder::new(stream(body));
                decoder.multiple_members(true);
                self.unpacked(decoder, "gzip", &mut reserved).await?
            }
            Encoding::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW_LOG);
                let mut decoder = ZstdDecoder::with_params(stream(body), &[window]);
                decoder.multiple_members(true);
                self.unpacked(decoder, "zstd", &mut reserved).await?
            }
        };
        Ok(Read { bytes, reserved })
    }

    /// A body of one piece, as small ones are, is not copied.
    async fn plain(&self, body: &mut Body, reserved: &mut Reserved) -> Result<Bytes, ApiError> {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| cut_off())?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let length = first.len().max(all.len()) + data.len();
            self.admit(length, reserved)?;
            if first.is_empty() && all.is_empty() {
                first = data;
                continue;
            }
            if all.is_empty() {
                all.reserve(reserved.bytes);
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }

    async fn unpacked(
        &self,
        decoder: impl AsyncRead,
        name: &str,
        reserved: &mut Reserved,
    ) -> Result<Bytes, ApiError> {
        let mut decoder = std::pin::pin!(decoder);
        let mut all = BytesMut::new();
        loop {
            // One byte more than the limit tells whether there is more.
            self.admit(all.len(), reserved)?;
            all.reserve(STEP);
            let read = decoder.read_buf(&mut all).await.map_err(|error| {
                ApiError::Malformed(format!("the body is not valid {name}: {error}"))
            })?;
            if read == 0 {
                return Ok(all.freeze());
            }
        }
    }

    fn admit(&self, length: usize, reserved: &mut Reserved) -> Result<(), ApiError> {
        if length > self.max_bytes as usize {
            return Err(ApiError::TooLarge(self.max_bytes));
        }
        if length > reserved.bytes {
            // No more than one body may take, or one of a limit that is no multiple would want
            // more than a budget of the same size has.
            let most = self.max_bytes as usize - reserved.bytes;
            let more = (length - reserved.bytes).next_multiple_of(STEP);
            reserved.grow(more.min(most))?;
        }
        Ok(())
    }
}

impl Reserved {
    fn grow(&mut self, by: usize) -> Result<(), ApiError> {
        let permits = u32::try_from(by).map_err(|_| ApiError::Overloaded)?;
        let more = Arc::clone(&self.budget)
            .try_acquire_many_owned(permits)
            .map_err(|_| ApiError::Overloaded)?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        self.bytes += by;
        Ok(())
    }
}

/// Reads the body of a request that is refused, for a while, and keeps nothing: most senders
/// read no answer before their body is sent, and would find no more than a closed connection.
pub(crate) async fn discard(headers: &HeaderMap, mut body: Body) {
    // Who asks first whether to send a body is not told to.
    if headers.contains_key(EXPECT) {
        return;
    }
    let discard = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whether it came to its end makes no difference to the answer.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, discard).await;
}

#[expect(clippy::cast_precision_loss, reason = "a budget is a gigabyte at most")]
fn as_f64(bytes: usize) -> f64 {
    bytes as f64
}

fn stream(body: &mut Body) -> impl tokio::io::AsyncBufRead {
    let frames = BodyDataStream::new(body);
    StreamReader::new(TryStreamExt::map_err(frames, io::Error::other))
}

fn cut_off() -> ApiError {
    ApiError::Malformed("the body ended before its length".into())
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let Some(value) = headers.get(CONTENT_ENCODING) else {
        return Ok(Encoding::Identity);
    };
    match value.to_str().map(str::trim) {
        Ok("" | "identity") => Ok(Encoding::Identity),
        Ok(name) if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
            Ok(Encoding::Gzip)
        }
        Ok(name) if name.eq_ignore_ascii_case("zstd") => Ok(Encoding::Zstd),
        _ => Err(ApiError::UnknownEncoding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_within_the_limit_fits_a_budget_of_the_same_size_with_and_without_a_length() {
        let reader = Reader::new(&Limits {
            max_body_bytes: 1_000_000,
            body_budget_bytes: 1_000_000,
            body_timeout_ms: 15_000,
            metrics_topics: 0,
        });
        for bytes in [1, 990_000, 1_000_000] {
            let body = || Body::from(vec![b' '; bytes]);
            let chunked = reader.read(&HeaderMap::new(), body()).await;
            assert_eq!(chunked.map(|read| read.bytes.len()), Ok(bytes));
            let length = HeaderMap::from_iter([(CONTENT_LENGTH, bytes.into())]);
            let whole = reader.read(&length, body()).await;
            assert_eq!(whole.map(|read| read.bytes.len()), Ok(bytes));
        }
        let large = Body::from(vec![b' '; 1_000_001]);
        let refused = reader.read(&HeaderMap::new(), large).await;
        assert_eq!(refused.err(), Some(ApiError::TooLarge(1_000_000)));
    }
}
