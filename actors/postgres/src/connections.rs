//! Connections, a few of each use.
//!
//! The rule that makes launchbadge/sqlx#4385 harmless here (a cancelled `begin` gives a connection with an
//! open transaction back to sqlx's pool): a connection is handed back only by [`Checkout::done`], which its
//! user calls after reading the last answer on it. A connection that is merely dropped, as a cancelled future
//! does, is closed, and the server rolls back whatever was open. It also saves the two round trips that
//! sqlx's pool makes for each use (a ping before, a ping after). Deliberately absent: queues with priorities.
//! Each use has connections of its own, so that a lease is never renewed behind a stuck commit.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use holdfast_core::port::store::StoreError;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::error;

/// A connection idle for longer is pinged before it is used: a restarted server should cost a new connection,
/// not an outage.
const TRUSTED_FOR: Duration = Duration::from_secs(2);

/// The connections of one use.
pub(crate) struct Connections {
    options: PgConnectOptions,
    patience: Duration,
    idle: Mutex<Vec<(PgConnection, Instant)>>,
    permits: Arc<Semaphore>,
}

/// A connection in use.
pub(crate) struct Checkout {
    connection: PgConnection,
    connections: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    /// At most `limit` connections, opened as needed; `patience` bounds the wait for a free one and for a new
    /// one.
    pub(crate) fn new(options: PgConnectOptions, limit: usize, patience: Duration) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(limit.max(1)));
        Arc::new(Self { options, patience, idle: Mutex::default(), permits })
    }

    /// Waits for a connection.
    pub(crate) async fn check_out(self: &Arc<Self>) -> Result<Checkout, StoreError> {
        let late = |what: &str| StoreError::Unavailable(format!("no {what} within {:?}", self.patience));
        let permit = timeout(self.patience, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| late("free connection"))?
            .map_err(|_| StoreError::Unavailable("closed".into()))?;
        let connection = match self.trusted().await {
            Some(connection) => connection,
            None => timeout(self.patience, self.connect())
                .await
                .map_err(|_| late("new connection"))?
                .map_err(|error| error::store(&error))?,
        };
        Ok(Checkout { connection, connections: Arc::clone(self), _permit: permit })
    }

    /// Boxed: a future is compiled where it is polled, and all of sqlx's way to a connection hangs on this
    /// one.
    fn connect(&self) -> BoxFuture<'_, sqlx::Result<PgConnection>> {
        Box::pin(self.options.connect())
    }

    async fn trusted(&self) -> Option<PgConnection> {
        loop {
            let (mut connection, since) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if since.elapsed() < TRUSTED_FOR {
                return Some(connection);
            }
            if let Ok(Ok(())) = timeout(self.patience, connection.ping()).await {
                return Some(connection);
            }
        }
    }
}

impl Checkout {
    /// The connection.
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Hands the connection back. Only for one on which no answer is outstanding and no transaction open.
    pub(crate) fn done(self) {
        self.connections.idle.lock().unwrap_or_else(PoisonError::into_inner).push((self.connection, Instant::now()));
    }
}
