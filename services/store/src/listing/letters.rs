//! Pages of conflicts and of dead letters, which are the same in both dialects.

use event::Topic;
use futures::{Stream, TryStreamExt as _};

use super::{CHUNK_BYTES, Conflict, DeadLetter};

/// A statement over all topics, and the same of one: each has an index of its own.
/// Parameters: 1 the id below which the page starts, 2 how many, 3 the topic.
pub(crate) struct Listing {
    all: &'static str,
    of_one: &'static str,
}

impl Listing {
    pub(crate) fn of(&self, topic: Option<&Topic<'_>>) -> &'static str {
        if topic.is_some() {
            self.of_one
        } else {
            self.all
        }
    }
}

macro_rules! listing {
    ($select:expr, $kept:expr, $topic:literal) => {
        Listing {
            all: concat!(
                $select,
                " WHERE l.id < $1 AND ",
                $kept,
                " ORDER BY l.id DESC LIMIT $2"
            ),
            of_one: concat!(
                $select,
                " WHERE l.id < $1 AND ",
                $kept,
                " AND ",
                $topic,
                " ORDER BY l.id DESC LIMIT $2"
            ),
        }
    };
}

pub(crate) const CONFLICTS: Listing = listing!(
    "SELECT l.id, l.recorded_at, t.name, l.event_id, l.ts, l.source, l.payload, l.received_at
     FROM conflicts l JOIN topics t ON t.id = l.topic_id",
    "true",
    "l.topic_id = (SELECT id FROM topics WHERE name = $3)"
);

/// Whether a letter is none of a deleted topic, which is only there until housekeeping comes
/// to it. (0 is no topic.)
macro_rules! is_kept {
    () => {
        "(l.topic_id = 0 OR EXISTS (SELECT 1 FROM topics t WHERE t.id = l.topic_id))"
    };
}
pub(crate) use is_kept;

macro_rules! dead_letters {
    () => {
        "SELECT l.id, l.topic, l.event_id, l.reason, l.events, l.bytes, l.batch_id, l.received_at,
                l.buried_at, l.replayed_at
         FROM dead_letters l"
    };
}

pub(crate) const DEAD_LETTERS: Listing = listing!(dead_letters!(), is_kept!(), "l.topic = $3");

/// One letter (1).
pub(crate) const ONE_LETTER: &str = concat!(dead_letters!(), " WHERE l.id = $1 AND ", is_kept!());

/// Removes one letter (1).
pub(crate) const DROP_LETTER: &str = concat!(
    "DELETE FROM dead_letters AS l WHERE l.id = $1 AND ",
    is_kept!()
);

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
