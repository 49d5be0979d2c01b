//! `CatalogService`: prices and stock of many skus at once.
//!
//! Invariant: the answer comes from the store's committed rows, by one statement for all skus (stock: two),
//! never from an actor: a context that asks in the middle of its own work can't wait in a ring, and a
//! partition on the move takes no price away. Each answer carries the version it is from; a sku whose state
//! can't be read is in no list of an answer about prices (it is not unknown, and costs no other its answer),
//! and fails one about stock. Deliberately absent: a cache; callers have theirs.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use holdfast_adapter::{read, status, store::Reads};
use holdfast_core::{Aggregate as _, AggregateId};
use holdfast_inventory_domain::StockItem;
use holdfast_platform::errors::Problem;
use holdfast_proto::inventory::v1::{
    self, CatalogServiceGetStockRequest, CatalogServiceGetStockResponse, GetPricesRequest, GetPricesResponse, SkuPrice,
    catalog_service_server::CatalogService,
};
use tonic::{Request, Response, Status};

use super::counted;
use crate::{
    codec::{decode_stock_item, item},
    sku::sku_or_refused,
};

/// Most skus in one question, repeats included.
pub const SKUS_MAX: usize = 1000;

pub(super) struct Catalog {
    reads: Reads,
}

impl Catalog {
    pub(super) fn new(reads: Reads) -> Self {
        Self { reads }
    }

    /// Each of `skus` once.
    async fn items(&self, skus: &[String]) -> Result<Items, Status> {
        let asked = checked(skus)?;
        let ids = asked.iter().map(|sku| AggregateId { kind: StockItem::KIND, key: Arc::from(*sku) });
        let rows = self.reads.states(ids.collect()).await?;
        let mut items = Items::default();
        for (sku, row) in asked.into_iter().zip(rows) {
            let state = row.map(|row| decode_stock_item(row.schema, &row.bytes).map(|state| (state, row.version)));
            match state.transpose() {
                Ok(state) => match state.and_then(|(state, version)| item(&state, sku, version)) {
                    Some(item) => items.known.push(item),
                    None => items.unknown.push(sku.to_owned()),
                },
                Err(error) => {
                    status::left_out(&sku, &error);
                    items.is_cut = true;
                }
            }
        }
        Ok(items)
    }
}

/// What was found of some skus.
#[derive(Default)]
struct Items {
    /// Those that exist, without quantities.
    known: Vec<v1::StockItem>,
    /// Those that don't.
    unknown: Vec<String>,
    /// Whether one could not be read.
    is_cut: bool,
}

#[async_trait]
impl CatalogService for Catalog {
    async fn get_prices(&self, request: Request<GetPricesRequest>) -> Result<Response<GetPricesResponse>, Status> {
        let Items { known, unknown: mut unknown_skus, .. } = self.items(&request.into_inner().skus).await?;
        let mut prices = Vec::with_capacity(known.len());
        for v1::StockItem { sku, price, version, .. } in known {
            match price {
                Some(price) => prices.push(SkuPrice { sku, price: Some(price), version }),
                None => unknown_skus.push(sku),
            }
        }
        Ok(Response::new(GetPricesResponse { prices, unknown_skus, read: Some(read::info(0, false)) }))
    }

    async fn get_stock(
        &self,
        request: Request<CatalogServiceGetStockRequest>,
    ) -> Result<Response<CatalogServiceGetStockResponse>, Status> {
        let Items { known: items, unknown: unknown_skus, is_cut } = self.items(&request.into_inner().skus).await?;
        if is_cut {
            return Err(Problem::internal().into_status());
        }
        let names: Vec<String> = items.iter().map(|item| item.sku.clone()).collect();
        // After the skus, so that no item's quantities are older than its version says.
        let pools = self.reads.pools(&names).await?;
        let items = items
            .into_iter()
            .map(|item| {
                let pool = pools.get(&item.sku).copied();
                counted(item, pool)
            })
            .collect();
        Ok(Response::new(CatalogServiceGetStockResponse { items, unknown_skus, read: Some(read::info(0, false)) }))
    }
}

/// The skus, each once; every malformed one is named by its place.
fn checked(skus: &[String]) -> Result<BTreeSet<&str>, Status> {
    if skus.is_empty() || skus.len() > SKUS_MAX {
        let text = format!("skus holds {} entries; 1-{SKUS_MAX} are answered", skus.len());
        return Err(Problem::invalid("INVALID", &text).field("skus", &text).into());
    }
    let places = skus.iter().enumerate();
    let malformed = places.filter_map(|(at, sku)| {
        let field = format!("skus[{at}]");
        sku_or_refused(&field, sku).err().map(|refused| (field, refused.error))
    });
    let problem = malformed.fold(None::<Problem>, |problem, (field, text)| {
        Some(problem.unwrap_or_else(|| Problem::invalid("INVALID", &text)).field(field, text))
    });
    match problem {
        Some(problem) => Err(problem.into()),
        None => Ok(skus.iter().map(String::as_str).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use bytes::Bytes;
    use holdfast_core::{codec::Adapter as _, port::store::StateRow};
    use holdfast_inventory_domain::stock_item::Details;
    use holdfast_money::{Currency, Money};
    use holdfast_testkit::MemoryStore;
    use tokio::{task::JoinSet, time::Instant};
    use tonic::Code;

    use super::*;
    use crate::codec::StockItemAdapter;

    fn skus(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("S{n}")).collect()
    }

    /// A store that holds `skus`, each stored as `bytes`.
    fn store(skus: &[String], bytes: &Bytes) -> MemoryStore {
        let store = MemoryStore::new();
        let mut contents = store.contents();
        for sku in skus {
            let id = AggregateId { kind: StockItem::KIND, key: sku.as_str().into() };
            let row =
                StateRow { version: 3, revision: 3, schema: 1, bytes: bytes.clone(), sources: BTreeMap::default() };
            contents.states.insert(id, row);
        }
        store.restore(contents);
        store
    }

    fn priced() -> Bytes {
        let (price, at) = (Some(Money::new(100, Currency::EUR)), holdfast_core::Timestamp::default());
        StockItemAdapter.encode_state(&StockItem::rehydrate(Details {
            price,
            reorder_point: 0,
            is_replenishing: false,
            created_at: at,
            updated_at: at,
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn prices_cost_one_round_trip_and_stock_two_for_any_sku_count() {
        let skus = skus(SKUS_MAX);
        let store = store(&skus, &priced());
        store.set_latency(Duration::from_millis(100));
        let catalog = Catalog::new(Reads::new(Arc::new(store)));

        let asked = Instant::now();
        let prices = catalog.get_prices(Request::new(GetPricesRequest { skus: skus.clone() })).await.unwrap();
        assert_eq!(prices.into_inner().prices.len(), SKUS_MAX);
        assert_eq!(asked.elapsed().as_millis() / 100, 1);

        let asked = Instant::now();
        let stock = catalog.get_stock(Request::new(CatalogServiceGetStockRequest { skus })).await.unwrap();
        assert_eq!(stock.into_inner().items.len(), SKUS_MAX);
        assert_eq!(asked.elapsed().as_millis() / 100, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn burst_of_queries_waits_rather_than_takes_every_connection() {
        let skus = skus(1);
        let store = store(&skus, &priced());
        store.set_latency(Duration::from_millis(100));
        let catalog = Arc::new(Catalog::new(Reads::new(Arc::new(store))));
        let asked = Instant::now();
        let ask = |_| {
            let (catalog, question) = (catalog.clone(), GetPricesRequest { skus: skus.clone() });
            async move { catalog.get_prices(Request::new(question)).await.unwrap() }
        };
        (0..10).map(ask).collect::<JoinSet<_>>().join_all().await;
        assert_eq!(asked.elapsed().as_millis() / 100, 5);
    }

    #[tokio::test]
    async fn a_sku_whose_state_cannot_be_read_is_never_called_unknown() {
        let skus = skus(2);
        let catalog = Catalog::new(Reads::new(Arc::new(store(&skus[..1], &Bytes::from_static(b"\xffsecret")))));
        let prices = catalog.get_prices(Request::new(GetPricesRequest { skus: skus.clone() })).await.unwrap();
        let GetPricesResponse { prices, unknown_skus, .. } = prices.into_inner();
        assert_eq!((prices, unknown_skus), (Vec::new(), vec![skus[1].clone()]), "left out, and the other answered");
        let failed = catalog.get_stock(Request::new(CatalogServiceGetStockRequest { skus })).await.unwrap_err();
        assert_eq!(failed.code(), Code::Internal);
        assert!(!failed.message().contains("schema"), "nothing from inside leaves: {failed}");
    }
}
