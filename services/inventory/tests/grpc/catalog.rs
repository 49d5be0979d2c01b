//! `CatalogService`.

use std::time::Duration;

use holdfast_platform::errors;
use holdfast_proto::{
    inventory::v1::{
        CatalogServiceGetStockRequest, CatalogServiceGetStockResponse, GetPricesRequest, GetPricesResponse, SkuPrice,
        catalog_service_client::CatalogServiceClient,
    },
    money::v1::Money,
    read::v1::Consistency,
};
use tonic::{Code, Status};

use crate::shop::{Shop, by_sku, counts, invalid, new_id, price, receive, refusal};

fn names(skus: &[&str]) -> Vec<String> {
    skus.iter().map(|sku| (*sku).to_owned()).collect()
}

impl Shop {
    async fn prices(&self, skus: &[&str]) -> Result<GetPricesResponse, Status> {
        let request = GetPricesRequest { skus: names(skus) };
        Ok(self.catalog().get_prices(request).await?.into_inner())
    }

    async fn stocks(&self, skus: &[&str]) -> Result<CatalogServiceGetStockResponse, Status> {
        let request = CatalogServiceGetStockRequest { skus: names(skus) };
        Ok(self.catalog().get_stock(request).await?.into_inner())
    }
}

#[tokio::test]
async fn prices_are_those_set_and_a_sku_without_one_is_unknown() {
    let shop = Shop::open().await;
    shop.stocked("A", 5, 100).await;
    shop.stock().set_price(price(&new_id(), "B", 7, "JPY")).await.unwrap();
    shop.stock().receive_stock(receive(&new_id(), "UNPRICED", 5)).await.unwrap();

    let answer = shop.prices(&["B", "GONE", "A", "UNPRICED", "A"]).await.unwrap();
    let row = |sku: &str, minor, currency: &str, version| SkuPrice {
        sku: sku.to_owned(),
        price: Some(Money { minor, currency: currency.to_owned() }),
        version,
    };
    let prices = by_sku(answer.prices, |price| &price.sku);
    assert_eq!(prices.into_values().collect::<Vec<_>>(), [row("A", 100, "EUR", 2), row("B", 7, "JPY", 1)]);
    let mut unknown = answer.unknown_skus;
    unknown.sort();
    assert_eq!(unknown, ["GONE", "UNPRICED"]);
    let read = answer.read.unwrap();
    assert_eq!((read.consistency(), read.version), (Consistency::Local, 0));
    assert!(read.as_of.is_some());

    shop.stock().set_price(price(&new_id(), "A", 101, "EUR")).await.unwrap();
    assert_eq!(shop.prices(&["A"]).await.unwrap().prices, [row("A", 101, "EUR", 3)], "no cache on this side");
}

#[tokio::test]
async fn stock_is_what_was_received_less_what_is_reserved() {
    let shop = Shop::open().await;
    shop.stocked("A", 5, 100).await;
    shop.stock().set_price(price(&new_id(), "PRICED", 7, "EUR")).await.unwrap();
    let order = new_id();
    shop.place(&order, &[("A", 2)]);
    shop.reserved(&order).await;

    let answer = shop.stocks(&["PRICED", "A", "GONE", "A"]).await.unwrap();
    assert_eq!(answer.unknown_skus, ["GONE"]);
    let items = by_sku(answer.items, |item| &item.sku);
    assert_eq!(items.keys().collect::<Vec<_>>(), ["A", "PRICED"]);
    assert_eq!((counts(&items["A"]), items["A"].version), ((5, 2, 3), 2));
    assert_eq!((counts(&items["PRICED"]), items["PRICED"].version), ((0, 0, 0), 1));
    assert_eq!(answer.read.unwrap().consistency(), Consistency::Local);
}

#[tokio::test]
async fn a_question_holds_1_to_1000_well_formed_skus() {
    let shop = Shop::open().await;
    let many: Vec<String> = (0..1000).map(|n| format!("S{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(shop.prices(&many).await.unwrap().unknown_skus.len(), 1000);
    assert_eq!(shop.stocks(&many).await.unwrap().unknown_skus.len(), 1000);
    for wrong in [&[][..], &[&many[..], &["S0"]].concat()] {
        assert_eq!(refusal(shop.prices(wrong).await), invalid("skus"));
        assert_eq!(refusal(shop.stocks(wrong).await), invalid("skus"));
    }
    let (code, _, fields) = refusal(shop.prices(&["A", "no sku", "B", ""]).await);
    assert_eq!((code, fields), (Code::InvalidArgument, names(&["skus[1]", "skus[3]"])));
}

#[tokio::test]
async fn the_catalog_needs_no_owner() {
    let shop = Shop::open().await;
    shop.stocked("A", 5, 100).await;
    shop.node.stop().await;
    assert_eq!(shop.prices(&["A"]).await.unwrap().prices.len(), 1);
    assert_eq!(counts(&shop.stocks(&["A"]).await.unwrap().items[0]), (5, 0, 5));
}

#[tokio::test]
async fn absent_or_slow_database_gives_a_status_in_time() {
    let shop = Shop::open().await;
    shop.stocked("A", 5, 100).await;
    shop.catalog_store.set_unavailable(true);
    for refused in [shop.prices(&["A"]).await.unwrap_err(), shop.stocks(&["A"]).await.unwrap_err()] {
        assert_eq!((refused.code(), errors::reason(&refused).as_deref()), (Code::Unavailable, Some("UNAVAILABLE")));
        assert!(errors::retry_after(&refused).is_some());
        assert!(!refused.message().contains("switched"), "nothing from inside leaves: {refused}");
    }
    shop.catalog_store.set_unavailable(false);
    shop.catalog_store.set_latency(Duration::from_mins(1));
    let request = GetPricesRequest { skus: names(&["A"]) };
    let (code, reason, _) = refusal(CatalogServiceClient::new(shop.impatient()).get_prices(request).await);
    assert_eq!((code, reason.as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
}
