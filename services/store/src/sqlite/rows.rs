//! Many rows in one statement.

use std::fmt::Write as _;
use std::ops::Range;

use sqlx::AssertSqlSafe;

/// The most rows of one statement: with eight columns an eighth of SQLite's own limit on
/// parameters (<https://www.sqlite.org/limits.html>, 9).
const MOST: usize = 512;

/// Splits so many rows into ranges whose lengths are powers of two, of which there are few:
/// each length is a statement that is compiled once and kept by its connection.
pub(super) fn split(count: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = count - start;
        let length = (left.checked_ilog2().map(|log| 1 << log)?).min(MOST);
        start += length;
        Some(start - length..start)
    })
}

/// `before VALUES (?,?),(?,?) after`, with so many rows of so many columns.
pub(super) fn values(
    before: &'static str,
    columns: usize,
    rows: usize,
    after: &'static str,
) -> AssertSqlSafe<String> {
    let row = format!("({})", vec!["?"; columns].join(","));
    let mut text = String::with_capacity(before.len() + after.len() + rows * (row.len() + 1) + 9);
    let _ = write!(text, "{before} VALUES {row}");
    for _ in 1..rows {
        text.push(',');
        text.push_str(&row);
    }
    let _ = write!(text, " {after}");
    // Nothing but question marks was put in.
    AssertSqlSafe(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_range_and_lengths_are_powers_of_two() {
        for count in [0, 1, 2, 3, 100, 511, 512, 513, 5_000] {
            let mut end = 0;
            for range in split(count) {
                assert_eq!(range.start, end);
                assert!(range.len().is_power_of_two() && range.len() <= MOST);
                end = range.end;
            }
            assert_eq!(end, count);
        }
    }

    #[test]
    fn a_statement_has_a_mark_for_every_column_of_every_row() {
        let AssertSqlSafe(text) = values("INSERT INTO t (a, b)", 2, 3, "RETURNING a");
        assert_eq!(
            text,
            "INSERT INTO t (a, b) VALUES (?,?),(?,?),(?,?) RETURNING a"
        );
    }
}
