//! The store over PostgreSQL 15 and later.

mod connection;
mod housekeep;
mod instant;
mod letters;
mod query;
mod record;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use crate::topics::TopicCache;
pub(crate) use connection::{answered, changed};

use crate::{Args, StoreError};

/// A pool of connections and what is remembered of the topics.
#[derive(Debug, Clone)]
pub(crate) struct Postgres {
    pool: PgPool,
    pub(crate) topics: Arc<TopicCache>,
    keep_identities: Duration,
}

impl Postgres {
    pub(crate) fn new(options: &PgConnectOptions, args: &Args) -> Self {
        Self {
            pool: connection::pool(options, args.database_connections),
            topics: Arc::new(TopicCache::new(args.max_topics)),
            keep_identities: args.keep_identities(),
        }
    }

    pub(crate) async fn migrate(&self) -> Result<(), StoreError> {
        connection::migrate(&self.pool).await
    }

    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        connection::check(&self.pool).await
    }

    pub(crate) async fn close(&self, patience: Duration) {
        // What is still running then is cut off with the process; nothing waits for it.
        let _ = tokio::time::timeout(patience, self.pool.close()).await;
    }
}
