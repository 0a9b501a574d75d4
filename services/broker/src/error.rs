//! What can go wrong, as far as a caller does something else about it.

use redis::RedisError;

/// The queue did not do what it was asked. What had been asked can be asked again.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It can't be reached, or refuses.
    #[error("the queue is unavailable: {0}")]
    Unavailable(#[from] RedisError),
    /// It can be reached, but takes no writes, or would lose them.
    #[error("the queue can't be relied on: {0}")]
    Unfit(String),
}

/// Why an append did not surely happen.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing was appended: Redis has no memory left.
    #[error("the queue is full")]
    Full,
    /// Nothing was appended.
    #[error("the queue is unavailable: {0}")]
    Unavailable(#[source] RedisError),
    /// It was sent and not answered: it may or may not have happened.
    #[error("the outcome of an append is unknown: {0}")]
    OutcomeUnknown(#[source] RedisError),
}
