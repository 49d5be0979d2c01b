//! What Holdfast is measured against, beside the article's design ([`crate::baseline`]): Kafka Streams, and
//! the least that any of them must do.

pub mod echo;
pub mod streams;

use async_trait::async_trait;

use crate::scenarios::Error;

/// A design that runs, Holdfast's too.
#[async_trait]
pub(crate) trait Running: Send {
    /// Its process, if it has one of its own.
    fn pid(&self) -> Option<u32> {
        None
    }

    /// Returns when it has failed.
    async fn failed(&mut self) -> Error {
        std::future::pending().await
    }

    /// Ends it in good order, once nothing of what it was given is under way.
    async fn stop(self: Box<Self>) -> Result<(), Error>;
}
