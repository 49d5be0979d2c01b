//! Prices that never change, for tests and benchmarks.

use std::collections::HashMap;

use async_trait::async_trait;
use holdfast_core::codec::LookupFailed;
use holdfast_money::Money;
use holdfast_orders_domain::Sku;

use super::PriceSource;

/// Prices as given.
#[derive(Clone, Debug, Default)]
pub struct StaticPrices {
    prices: HashMap<Sku, Money>,
    others: Option<Money>,
}

impl StaticPrices {
    /// Every sku costs this.
    pub fn all(price: Money) -> Self {
        Self { prices: HashMap::new(), others: Some(price) }
    }

    /// These skus cost this; others are not known.
    pub fn of(prices: impl IntoIterator<Item = (Sku, Money)>) -> Self {
        Self { prices: prices.into_iter().collect(), others: None }
    }
}

#[async_trait]
impl PriceSource for StaticPrices {
    async fn prices(&self, skus: &[Sku]) -> Result<Vec<Result<Option<Money>, LookupFailed>>, LookupFailed> {
        Ok(skus.iter().map(|sku| self.prices.get(sku).copied().or(self.others)).map(Ok).collect())
    }
}
