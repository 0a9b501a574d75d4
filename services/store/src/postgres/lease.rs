//! A connection of the pool, for as long as somebody uses it.

use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, PgPool, Postgres, Transaction};
use tokio::time::{Instant, timeout_at};

use super::connection::{ANSWER_TIMEOUT, PING_TIMEOUT};

/// A connection that goes back to its pool when it is dropped, within a bound.
///
/// sqlx's own goes back when the server has answered once more, waits for that without a
/// bound, and keeps its slot of the pool meanwhile: when a server is lost without a word, each
/// connection in use would hold its slot until the kernel gives up, a quarter of an hour
/// later, or for ever behind a proxy that still acknowledges.
pub(super) struct Lease {
    connection: PoolConnection<Postgres>,
    since: Instant,
    /// The server may be in a transaction of which sqlx knows nothing.
    in_doubt: bool,
}

impl Lease {
    pub(super) async fn of(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self {
            connection: pool.acquire().await?,
            since: Instant::now(),
            in_doubt: false,
        })
    }

    /// Begins a transaction with this statement.
    pub(super) async fn begin(
        &mut self,
        statement: &'static str,
    ) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
        // sqlx takes note of the transaction once all of this has succeeded. Where a lock is
        // refused, or nobody waits for it to the end, the BEGIN before it stands, nobody rolls
        // it back, and whoever came next would be in it.
        self.in_doubt = true;
        let transaction = self.connection.begin_with(statement).await?;
        self.in_doubt = false;
        Ok(transaction)
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Lease {
    #[expect(
        clippy::disallowed_methods,
        reason = "in place of the task that sqlx starts for every connection that is dropped"
    )]
    fn drop(&mut self) {
        if self.in_doubt {
            self.connection.close_on_drop();
            return;
        }
        // What was given up may still run: the slot is taken for as long as it can, so that a
        // caller who goes away does not make room for more connections than there may be.
        let until = (self.since + ANSWER_TIMEOUT).max(Instant::now() + PING_TIMEOUT);
        tokio::spawn(timeout_at(until, self.connection.return_to_pool()));
    }
}
