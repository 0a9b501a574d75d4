//! What can go wrong, as far as a caller does something else about it.

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was changed, and a later try may succeed: the server can't be reached, is
    /// starting, read-only, out of disk or connections, or was too slow.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The connection was lost during the commit: it may or may not have happened.
    #[error("the outcome of the commit is unknown: {0}")]
    OutcomeUnknown(#[source] sqlx::Error),
    /// The file can't be used as a store, or another process uses it.
    #[error("{0}")]
    Unusable(String),
    /// What was recorded doesn't add up; nothing was changed. A defect.
    #[error("the books of a batch do not balance: {0}")]
    Unbalanced(String),
    /// The schema could not be brought up to this release's.
    #[error("can't migrate the schema: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error)
    }
}

impl StoreError {
    /// Whether what was asked takes longer than a statement may.
    pub fn is_too_slow(&self) -> bool {
        /// PostgreSQL's `query_canceled`, and SQLite's SQLITE_INTERRUPT.
        const INTERRUPTED: [&str; 2] = ["57014", "9"];
        let Self::Unavailable(error) = self else {
            return false;
        };
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        code.is_some_and(|code| INTERRUPTED.contains(&&*code))
    }
}
