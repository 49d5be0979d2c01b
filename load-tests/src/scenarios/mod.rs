//! What is measured.

pub mod apart;
pub mod catch_up;
pub mod ceiling;
pub mod cold_start;
pub mod cpu;
pub mod data;
pub mod database;
pub mod flash_sale;
pub mod holdfast;
pub mod hot_order;
pub mod memory;
pub mod pipeline;
pub mod poison;
pub mod seed;
pub mod site;
pub mod stand_in;

use std::time::Duration;

/// Why a scenario did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] crate::kafka::Error),
    /// The load.
    #[error(transparent)]
    Producer(#[from] crate::producer::Error),
    /// Postgres.
    #[error("postgres")]
    Postgres(#[from] sqlx::Error),
    /// A part of it failed.
    #[error("{what} failed")]
    Part {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is left behind could not be checked.
    #[error(transparent)]
    Checkers(#[from] crate::checkers::Error),
    /// It did something else than it was meant to.
    #[error("{0}")]
    Wrong(String),
    /// It took too long.
    #[error("gave up after {0:?} waiting for {1}")]
    Timeout(Duration, String),
}

/// A run that stands still for so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Counts here are far below 2^52.
#[allow(clippy::cast_precision_loss)]
pub(crate) const fn precise(count: u64) -> f64 {
    count as f64
}

pub(crate) fn failed<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Part { what, source: Box::new(source) }
}
