//! What a currency is worth in the books.
//!
//! The shop keeps its books in one currency; a source knows which, and the rates to it, as fractions.
//! Invariant: a currency is worth exactly one of itself, and nobody is asked for that. Deliberately absent:
//! remembering rates. What counts is the one when the money moves.

mod http;
mod table;

use async_trait::async_trait;
use holdfast_core::codec::LookupFailed;
use holdfast_money::{Currency, FxRate, Ratio};
use holdfast_payments_domain::Quote;

pub use http::HttpRates;
pub use table::{InvalidTable, TableRates};

/// The source could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rate source: {0}")]
pub struct Unavailable(pub String);

/// Knows rates.
#[async_trait]
pub trait RateSource: Send + Sync + 'static {
    /// The books' currency.
    fn books(&self) -> Currency;

    /// What one major unit of `from`, which is another currency, is worth in the books' now; `None` if there
    /// is no rate.
    async fn ask(&self, from: Currency) -> Result<Option<FxRate>, Unavailable>;
}

/// What one major unit of `from` is worth in the books now; `None` if there is no rate.
pub(crate) async fn rate(source: &dyn RateSource, from: Currency) -> Result<Option<FxRate>, Unavailable> {
    if from == source.books() {
        let one = Ratio::new(1, 1).and_then(|one| FxRate::new(from, from, one));
        return one.map(Some).map_err(|error| Unavailable(error.to_string()));
    }
    source.ask(from).await
}

/// The same, for a command that waits for it.
pub(crate) async fn quote(source: &dyn RateSource, from: Currency) -> Result<Quote, LookupFailed> {
    match rate(source, from).await {
        Ok(found) => Ok(found.map_or(Quote::NoRate, Quote::Rate)),
        Err(error) => Err(LookupFailed(error.to_string())),
    }
}
