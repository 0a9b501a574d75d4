//! The store over PostgreSQL 15 and later.

mod connection;
mod housekeep;
mod instant;
mod lease;
mod letters;
mod query;
mod record;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use crate::commit::Commits;
use crate::metrics::Metrics;
use crate::topics::TopicCache;
use crate::{Args, StoreError};
pub(crate) use connection::{answered, changed};
use lease::Lease;

/// A pool of connections and what is remembered of the topics.
#[derive(Debug, Clone)]
pub(crate) struct Postgres {
    pub(crate) pool: PgPool,
    pub(crate) topics: Arc<TopicCache>,
    keep_identities: Duration,
    commits: Commits,
}

impl Postgres {
    pub(crate) fn new(options: &PgConnectOptions, args: &Args, metrics: &Metrics) -> Self {
        Self {
            pool: connection::pool(options, args.database_connections, metrics.connects.clone()),
            topics: Arc::new(TopicCache::new(args.max_topics)),
            keep_identities: args.keep_identities(),
            commits: metrics.commits("postgresql"),
        }
    }

    async fn lease(&self) -> Result<Lease, sqlx::Error> {
        Lease::of(&self.pool).await
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
