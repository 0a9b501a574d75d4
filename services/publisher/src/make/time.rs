//! When events happened: a clock that goes on by a fixed step with every position.

use bytes::{BufMut as _, BytesMut};

use crate::draw::{For, Seed};

/// 2026-01-01T00:00:00Z in microseconds since 1970.
const EPOCH: i64 = 1_767_225_600_000_000;

const MICROS_A_DAY: i64 = 86_400_000_000;

/// A run's clock begins on one of so many days after [`EPOCH`].
const DAYS: u64 = 100;

/// What the clock goes on by. At 100,000 events a second it keeps pace with the real one.
const STEP: i64 = 10;

/// Events are told of up to so much later than they happened: in the order of their
/// timestamps, they arrive jumbled.
const MAX_LATE: u64 = 2_000_000;

/// The clock of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calendar {
    seed: Seed,
    begin: i64,
}

impl Calendar {
    pub(super) fn new(seed: Seed) -> Self {
        let day = seed.draw(For::Epoch, 0) % DAYS;
        Self {
            seed,
            begin: EPOCH + day.cast_signed() * MICROS_A_DAY,
        }
    }

    /// What the clock shows at a position, in microseconds since 1970. A run that goes on
    /// for a hundred thousand million events comes back to where it began.
    pub(super) fn clock(self, position: u64) -> i64 {
        self.begin + (position % 100_000_000_000).cast_signed() * STEP
    }

    /// The timestamp of a version, in microseconds since 1970.
    pub(super) fn micros(self, version: u64) -> i64 {
        let late = self.seed.draw(For::Order, version) % MAX_LATE;
        self.clock(version) - late.cast_signed()
    }

    /// Appends the timestamp of a version: mostly in UTC, now and then in another zone or
    /// without one.
    pub(super) fn write(self, version: u64, out: &mut BytesMut) {
        let micros = self.micros(version);
        let (minutes, zone): (i64, &[u8]) = match self.seed.draw(For::Order, version) >> 61 {
            0 => (0, b""),
            1 => (7 * 60, b"+07:00"),
            2 => (-(3 * 60 + 30), b"-03:30"),
            _ => (0, b"Z"),
        };
        write_civil(micros + minutes * 60_000_000, out);
        out.put_slice(zone);
    }
}

/// Appends `2026-01-31T12:00:00.123456`.
fn write_civil(micros: i64, out: &mut BytesMut) {
    let (year, month, day) = date(micros.div_euclid(MICROS_A_DAY));
    let of_day = micros.rem_euclid(MICROS_A_DAY);
    let seconds = of_day / 1_000_000;
    let mut text = *b"0000-00-00T00:00:00.000000";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], seconds / 3_600);
    digits(&mut text[14..16], seconds / 60 % 60);
    digits(&mut text[17..19], seconds % 60);
    digits(&mut text[20..26], of_day % 1_000_000);
    out.put_slice(&text);
}

#[expect(clippy::cast_sign_loss, reason = "the remainder is a digit")]
fn digits(text: &mut [u8], mut number: i64) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The date of a day counted from 1970-01-01, for days after it
/// (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
fn date(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use event::Timestamp;

    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same_instant() {
        let calendar = Calendar::new(Seed(7));
        let mut out = BytesMut::new();
        for version in (0..1_000).chain([1 << 30, 99_999_999_999, u64::MAX]) {
            out.clear();
            calendar.write(version, &mut out);
            let text = std::str::from_utf8(&out).unwrap();
            let read = Timestamp::parse(text).unwrap();
            assert_eq!(read.as_micros(), calendar.micros(version), "{text}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (text, expected) in [
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000"),
            ("2028-02-29T23:59:59.999999Z", "2028-02-29T23:59:59.999999"),
            ("2100-03-01T00:00:00Z", "2100-03-01T00:00:00.000000"),
            ("1999-12-31T12:34:56.7Z", "1999-12-31T12:34:56.700000"),
        ] {
            let mut out = BytesMut::new();
            write_civil(Timestamp::parse(text).unwrap().as_micros(), &mut out);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn events_do_not_happen_in_the_order_in_which_they_are_sent() {
        let calendar = Calendar::new(Seed(7));
        assert!(!(0..100).map(|n| calendar.micros(n)).is_sorted());
        assert!((0..100).map(|n| calendar.clock(n)).is_sorted());
    }
}
