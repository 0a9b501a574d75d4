//! Pages of conflicts and of dead letters, which are the same in both dialects.

use futures::{Stream, TryStreamExt as _};

use super::{CHUNK_BYTES, Conflict, DeadLetter};

/// Parameters: 1 the id below which the page starts, 2 the topic or nothing, 3 how many.
pub(crate) const CONFLICTS: &str = "
    SELECT c.id, c.recorded_at, t.name, c.event_id, c.ts, c.source, c.payload, c.received_at
    FROM conflicts c JOIN topics t ON t.id = c.topic_id
    WHERE c.id < $1
      AND (CAST($2 AS text) IS NULL OR c.topic_id = (SELECT id FROM topics WHERE name = $2))
    ORDER BY c.id DESC LIMIT $3";

/// The same parameters.
pub(crate) const DEAD_LETTERS: &str = "
    SELECT id, topic, event_id, reason, events, bytes, batch_id, received_at, buried_at, replayed_at
    FROM dead_letters
    WHERE id < $1 AND (CAST($2 AS text) IS NULL OR topic = $2)
    ORDER BY id DESC LIMIT $3";

/// What is listed here, by the bytes that a sender chose.
pub(crate) trait Listed {
    fn bytes(&self) -> usize;
}

impl Listed for Conflict {
    fn bytes(&self) -> usize {
        self.event.payload.len()
    }
}

impl Listed for DeadLetter {
    fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// How many rows to ask for: one more than wanted, which tells whether there are more.
pub(crate) fn rows(wanted: usize) -> i64 {
    i64::try_from(wanted).map_or(i64::MAX, |wanted| wanted.saturating_add(1))
}

/// The first of these rows: at most as many as wanted, and no more after [`CHUNK_BYTES`].
/// With it, whether there are more.
pub(crate) async fn page<R, L: Listed>(
    mut rows: impl Stream<Item = Result<R, sqlx::Error>> + Unpin,
    wanted: usize,
    read: impl Fn(&R) -> Result<L, sqlx::Error>,
) -> Result<(Vec<L>, bool), sqlx::Error> {
    let mut page = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        if page.len() == wanted || bytes >= CHUNK_BYTES {
            return Ok((page, true));
        }
        let letter = read(&row)?;
        bytes += letter.bytes();
        page.push(letter);
    }
    Ok((page, false))
}
