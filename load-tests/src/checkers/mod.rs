//! What must be true after a run, checked from the outside.
//!
//! [`gather()`] reads the topics and the schemas, [`audit()`] accounts for every command of a [`Ledger`] by
//! pure functions over what was read, [`settled()`] waits until there is nothing left to wait for. Shares no
//! code with the runtime: formats of headers, claims and tables are spelled out here a second time, so a
//! mistake there is not repeated here. Deliberately absent: repairing anything.

mod audit;
mod commands;
mod ends;
mod evidence;
mod gather;
mod history;
mod latency;
mod money;
mod news;
mod owners;
mod provider;
mod report;
mod settled;
mod state;
mod stock;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod whole;
mod written;

use std::time::Duration;

use futures::future::BoxFuture;

pub use audit::{audit, audit_shop};
pub use evidence::{
    AggregateRow, Answer, ClaimRow, ContextEvidence, DeadRecord, EventRecord, Evidence, OutboxRow, PartitionRow,
    PoolRow,
};
pub(crate) use gather::connect;
pub use gather::{events, gather};
pub use latency::{Latencies, latencies, percentiles, times_to, times_to_paid};
pub use news::{Line, News, Till};
pub use owners::{halted, homes, owners};
pub use provider::{Account, Charge, Refund};
pub use report::{Breach, Found, Money, Report, Sample, Stock};
pub use settled::{Backlog, backlog, settled};
pub use written::{Written, written};

use crate::producer::Ledger;

/// Why a run could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] crate::kafka::Error),
    /// Postgres.
    #[error("postgres: {0}")]
    Postgres(#[source] sqlx::Error),
    /// Work is left, and the time is up.
    #[error("not quiet after {waited:?}: {backlog}")]
    Restless {
        /// How long it was waited for.
        waited: Duration,
        /// What was left then.
        backlog: Box<Backlog>,
    },
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Postgres(error)
    }
}

/// Where one context keeps its tables.
#[derive(Clone, Debug)]
pub struct Schema {
    /// The database. May hold a password.
    pub url: String,
    /// The schema, which is the context's name.
    pub name: String,
    /// Whom to act as, if not whom the URL says.
    pub role: Option<String>,
}

impl Schema {
    /// The schema of the context `name` in the database at `url`.
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self { url: url.into(), name: name.into(), role: None }
    }
}

/// What is to be checked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Bootstrap servers.
    pub brokers: String,
    /// The orders context.
    pub orders: Schema,
    /// The inventory context; `None` where orders ran alone.
    pub inventory: Option<Schema>,
    /// The payments context, where the whole shop ran.
    pub payments: Option<Schema>,
    /// The fulfillment context, where the whole shop ran.
    pub fulfillment: Option<Schema>,
    /// The customers context, where the whole shop ran.
    pub customers: Option<Schema>,
    /// How long one reading of a topic may take.
    pub patience: Duration,
    /// How many partitions there were in the beginning, if they have grown since: an aggregate may have moved
    /// then.
    pub grown_from: Option<i32>,
    /// The version of orders that stood in the tables before the run. Those that have no later one are not
    /// looked at. 0 if there were none.
    pub stood_at: i64,
}

impl Target {
    /// Orders and inventory in one database, in schemas named after them.
    pub fn new(brokers: impl Into<String>, url: &str) -> Self {
        Self {
            brokers: brokers.into(),
            orders: Schema::new(url, "orders"),
            inventory: Some(Schema::new(url, "inventory")),
            payments: None,
            fulfillment: None,
            customers: None,
            patience: Duration::from_mins(2),
            grown_from: None,
            stood_at: 0,
        }
    }

    /// All five contexts in one database, in schemas named after them.
    pub fn shop(brokers: impl Into<String>, url: &str) -> Self {
        Self {
            payments: Some(Schema::new(url, "payments")),
            fulfillment: Some(Schema::new(url, "fulfillment")),
            customers: Some(Schema::new(url, "customers")),
            ..Self::new(brokers, url)
        }
    }

    /// The contexts that ran.
    pub fn schemas(&self) -> impl Iterator<Item = &Schema> {
        let others = [&self.inventory, &self.payments, &self.fulfillment, &self.customers];
        std::iter::once(&self.orders).chain(others.into_iter().filter_map(Option::as_ref))
    }

    /// Orders alone.
    #[must_use]
    pub fn orders_only(mut self) -> Self {
        self.inventory = None;
        self
    }
}

/// Reads everything and accounts for every command of `ledger`. Call it when the run has [`settled()`];
/// before, what is on its way counts as lost.
pub fn account<'a>(target: &'a Target, ledger: &'a Ledger) -> BoxFuture<'a, Result<Report, Error>> {
    Box::pin(async move {
        let evidence = gather(target).await?;
        Ok(audit(ledger, &evidence))
    })
}
