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
    async fn prices(&self, skus: &[Sku]) -> Result<Vec<Option<Money>>, LookupFailed> {
        let request = GetPricesRequest { skus: skus.iter().map(|sku| sku.as_str().to_owned()).collect() };
        let answer = self
            .inventory
            .call(|stack| {
                let request = request.clone();
                async move { CatalogServiceClient::new(stack).get_prices(request).await }
            })
            .await
            .map_err(failed)?;
        in_order(skus, answer.into_inner())
    }
}

fn failed(status: Status) -> LookupFailed {
    let word = code_word(status.code());
    LookupFailed(match reason(&status) {
        Some(reason) => format!("inventory's prices: {word} ({reason})"),
        None => format!("inventory's prices: {word}"),
    })
}

/// The answer in the order of the question. A sku that it says nothing about is no unknown one: the answer is not trusted.
fn in_order(skus: &[Sku], answer: GetPricesResponse) -> Result<Vec<Option<Money>>, LookupFailed> {
    let broken = |what: &str| LookupFailed(format!("inventory's prices: {what}"));
    let mut known: HashMap<String, Option<Money>> = HashMap::with_capacity(skus.len());
    for row in answer.prices {
        let price = row.price.ok_or_else(|| broken("a row without a price"))?;
        let currency = Currency::from_code(&price.currency).map_err(|_| broken("an unknown currency"))?;
        known.insert(row.sku, Some(Money::new(price.minor, currency)));
    }
    known.extend(answer.unknown_skus.into_iter().map(|sku| (sku, None)));
    skus.iter().map(|sku| known.get(sku.as_str()).copied().ok_or_else(|| broken("a sku was left out"))).collect()
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
        assert_eq!(in_order(&[sku("A"), sku("B"), sku("C")], answer), Ok(vec![euro(1), None, euro(3)]));
    }

    #[test]
    fn an_answer_that_leaves_a_sku_out_is_no_answer() {
        let empty = GetPricesResponse::default();
        assert!(in_order(&[sku("A")], empty).is_err(), "a silent sku must not become an unknown one");
        let strange = GetPricesResponse { prices: vec![row("A", 1, "???")], ..GetPricesResponse::default() };
        assert!(in_order(&[sku("A")], strange).is_err());
    }
}
