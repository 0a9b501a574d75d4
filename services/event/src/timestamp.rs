//! Instants, to the microsecond, of the years 1 to 9999.

use std::fmt;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::temporal::{DateTimeParser, PiecesOffset};

/// An instant in microseconds since 1970-01-01T00:00:00Z. Finer digits are cut
/// off: PostgreSQL's `timestamptz` keeps no more, and a resend must compare equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

/// The text is not an ISO 8601 date and time of the years 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be an ISO 8601 date and time of the years 0001 to 9999, such as 2026-01-31T12:00:00Z"
)]
pub struct TimestampError;

/// Civil time reaches to the end of 9999; jiff's own instants stop a day before it.
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

static PARSER: DateTimeParser = DateTimeParser::new();

impl Timestamp {
    /// 0001-01-01T00:00:00Z: both stores and every JSON reader agree from here.
    pub const MIN: Self = Self(-62_135_596_800_000_000);
    /// 9999-12-31T23:59:59.999999Z: the last that RFC 3339 can write.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// Reads ISO 8601. Without an offset the text is taken as UTC, since senders
    /// in the field send local-naive strings; a leap second is the second before it.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let pieces = PARSER.parse_pieces(text).map_err(|_| TimestampError)?;
        // A zone in brackets would need a time zone database to mean anything.
        if pieces.time_zone_annotation().is_some() {
            return Err(TimestampError);
        }
        let time = pieces.time().ok_or(TimestampError)?;
        let civil = DateTime::from_parts(pieces.date(), time);
        let offset = match pieces.offset() {
            Some(PiecesOffset::Numeric(numeric)) => numeric.offset().seconds(),
            Some(_) | None => 0,
        };
        let since_1970 = civil.duration_since(EPOCH) - SignedDuration::from_secs(offset.into());
        Self::from_nanos(since_1970.as_nanos())
    }

    /// The instant that a clock showed.
    pub fn from_jiff(instant: jiff::Timestamp) -> Result<Self, TimestampError> {
        Self::from_nanos(instant.as_nanosecond())
    }

    fn from_nanos(nanos: i128) -> Result<Self, TimestampError> {
        // Rounds towards the past on both sides of 1970.
        let micros = i64::try_from(nanos.div_euclid(1_000)).map_err(|_| TimestampError)?;
        Self::from_micros(micros).ok_or(TimestampError)
    }

    /// The instant so many microseconds after 1970, if it is within the bounds.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0)
            .contains(&micros)
            .then_some(Self(micros))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn as_micros(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, with as many decimals as are needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let civil = EPOCH + SignedDuration::from_micros(self.0);
        write!(f, "{civil}Z")
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        Timestamp::parse(text)
            .ok()
            .map(|timestamp| timestamp.to_string())
    }

    #[test]
    fn iso_8601_is_read_and_written_as_rfc_3339_in_utc() {
        for (text, expected) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
            (
                "2026-01-31T12:00:00.123456789+02:00",
                "2026-01-31T10:00:00.123456Z",
            ),
            ("2026-01-31T12:00:00", "2026-01-31T12:00:00Z"),
            ("2026-01-31 12:00:00.5", "2026-01-31T12:00:00.5Z"),
            ("20260131T120000Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00", "2026-01-31T12:00:00Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
            (
                "1969-12-31T23:59:59.9999999Z",
                "1969-12-31T23:59:59.999999Z",
            ),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        for text in [
            "",
            "yesterday",
            "1700000000",
            "2026-01-31",
            "2026-02-30T00:00:00Z",
            "2026-01-31T25:00:00Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "-000001-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "+010000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-01:00",
            "2026-01-31T12:00:00Z trailing",
            "2026-01-31T12:00:00+02:00[Europe/Berlin]",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
