//! Prices from inventory's `CatalogService`.
//!
//! Through the platform's client stack: deadline, circuit breaker, jittered retries within a budget.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use holdfast_core::codec::LookupFailed;
use holdfast_money::{Currency, Money};
use holdfast_orders_domain::Sku;
use holdfast_platform::{
    errors::{code_word, reason},
    grpc::{Peer, client},
};
use holdfast_proto::inventory::v1::{
    GetPricesRequest, GetPricesResponse, catalog_service_client::CatalogServiceClient,
};
use tonic::Status;

use super::PriceSource;

/// Inventory as a price source.
#[derive(Clone, Debug)]
pub struct GrpcPrices {
    inventory: Peer,
}

impl GrpcPrices {
    /// Asks this peer; see [`settings`].
    pub const fn new(inventory: Peer) -> Self {
        Self { inventory }
    }
}

/// How to call inventory for prices: a batch of commands waits for the answer, so not for long.
pub fn settings() -> client::Settings {
    client::Settings { deadline: Duration::from_millis(800), ..client::Settings::default() }
}

#[async_trait]
impl PriceSource for GrpcPrices {
    async fn prices(&self, skus: &[Sku]) -> Result<Vec<Result<Option<Money>, LookupFailed>>, LookupFailed> {
        let request = GetPricesRequest { skus: skus.iter().map(|sku| sku.as_str().to_owned()).collect() };
        let answer = self
            .inventory
            .call(|stack| {
                let request = request.clone();
                async move { CatalogServiceClient::new(stack).get_prices(request).await }
            })
            .await
            .map_err(failed)?;
        Ok(in_order(skus, answer.into_inner()))
    }
}

fn failed(status: Status) -> LookupFailed {
    let word = code_word(status.code());
    LookupFailed(match reason(&status) {
        Some(reason) => format!("inventory's prices: {word} ({reason})"),
        None => format!("inventory's prices: {word}"),
    })
}

/// The answer in the order of the question. A sku about which nothing is said that this build understands is
/// no unknown one: it failed.
fn in_order(skus: &[Sku], answer: GetPricesResponse) -> Vec<Result<Option<Money>, LookupFailed>> {
    let broken = |what: &str| LookupFailed(format!("inventory's prices: {what}"));
    let mut known: HashMap<String, Option<Money>> = HashMap::with_capacity(skus.len());
    for row in answer.prices {
        let price = row.price.and_then(|price| Some((price.minor, Currency::from_code(&price.currency).ok()?)));
        if let Some((minor, currency)) = price {
            known.insert(row.sku, Some(Money::new(minor, currency)));
        }
    }
    known.extend(answer.unknown_skus.into_iter().map(|sku| (sku, None)));
    let price = |sku: &Sku| {
        let known = known.get(sku.as_str()).copied();
        known.ok_or_else(|| broken("a sku was left out, or has a price that this build can't read"))
    };
    skus.iter().map(price).collect()
}

#[cfg(test)]
mod tests {
    use holdfast_proto::{inventory::v1::SkuPrice, money::v1::Money as WireMoney};

    use super::*;

    fn sku(text: &str) -> Sku {
        Sku::new(text).unwrap()
    }

    fn row(sku: &str, minor: i64, currency: &str) -> SkuPrice {
        let price = Some(WireMoney { minor, currency: currency.to_owned() });
        SkuPrice { sku: sku.to_owned(), price, version: 1 }
    }

    #[test]
    fn an_answer_is_put_in_the_order_of_the_question() {
        let answer = GetPricesResponse {
            prices: vec![row("C", 3, "EUR"), row("A", 1, "EUR")],
            unknown_skus: vec!["B".to_owned()],
            read: None,
        };
        let euro = |minor| Some(Money::new(minor, Currency::EUR));
        assert_eq!(in_order(&[sku("A"), sku("B"), sku("C")], answer), [Ok(euro(1)), Ok(None), Ok(euro(3))]);
    }

    #[test]
    fn sku_left_out_or_with_a_strange_price_fails_alone() {
        let prices = vec![row("A", 1, "???"), row("B", 1, "EUR")];
        let answer = GetPricesResponse { prices, ..GetPricesResponse::default() };
        let answers = in_order(&[sku("A"), sku("B"), sku("C")], answer);
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false]);
    }
}
