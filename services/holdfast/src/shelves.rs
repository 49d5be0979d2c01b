//! Fills the shelves: what a fresh system needs before an order can be placed.
//!
//! Speaks to inventory as any caller does, over gRPC. Deliberately absent: anything that only this process
//! could do.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use holdfast_platform::grpc::{Peer, client};
use holdfast_proto::{
    inventory::v1::{
        ReceiveStock, ReceiveStockRequest, SetPrice, SetPriceRequest, stock_service_client::StockServiceClient,
    },
    money::v1::Money,
};
use tonic::Status;

/// Calls in flight at a time.
const CONCURRENCY: usize = 32;

/// One sku as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelf {
    /// Its name.
    pub sku: String,
    /// Units delivered; none if 0.
    pub quantity: i64,
    /// Price of one unit, in euro cents.
    pub price_minor: i64,
}

/// Receives and prices every sku. Calling it again with the same `run` changes nothing.
///
/// # Errors
/// The status of the first call that failed for good.
pub async fn fill(inventory: &Peer, run: &str, shelves: impl IntoIterator<Item = Shelf>) -> Result<(), Status> {
    let calls = shelves.into_iter().map(|shelf| one(inventory, run, shelf));
    stream::iter(calls).buffer_unordered(CONCURRENCY).try_collect::<Vec<()>>().await?;
    Ok(())
}

async fn one(inventory: &Peer, run: &str, shelf: Shelf) -> Result<(), Status> {
    let Shelf { sku, quantity, price_minor } = shelf;
    let price = Some(Money { minor: price_minor, currency: "EUR".to_owned() });
    let priced = SetPriceRequest {
        request_id: format!("{run}/{sku}/price"),
        command: Some(SetPrice { sku: sku.clone(), price }),
    };
    let call = |stack| {
        let request = priced.clone();
        async move { StockServiceClient::new(stack).set_price(request).await }
    };
    inventory.call(call).await?;
    if quantity > 0 {
        let received = ReceiveStockRequest {
            request_id: format!("{run}/{sku}/stock"),
            command: Some(ReceiveStock { sku, quantity }),
        };
        let call = |stack| {
            let request = received.clone();
            async move { StockServiceClient::new(stack).receive_stock(request).await }
        };
        inventory.call(call).await?;
    }
    Ok(())
}

/// Inventory, as a caller from outside reaches it: patient, since a fresh node may still be taking its
/// partitions.
///
/// # Errors
/// If `address` is no address.
pub fn inventory(address: &str) -> Result<Peer, client::Error> {
    let settings = client::Settings { deadline: std::time::Duration::from_secs(20), ..client::Settings::default() };
    Peer::new("inventory", address, settings, None)
}
