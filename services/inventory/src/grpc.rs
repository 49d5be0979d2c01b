//! Inventory's services over gRPC.
//!
//! `StockService` (`stock`) commands skus, `ReservationService` (`reservations`) reads the live actor of an
//! order's reservation, `CatalogService` (`catalog`) answers for many skus from the store. Invariant: a
//! mutation goes to the sku's one actor, through the same claims as its twin on Kafka; the catalog never
//! waits for an actor. Deliberately absent: commands to reservations, which follow orders' events.

mod catalog;
mod reservations;
mod stock;

use std::sync::Arc;

use holdfast_adapter::store::Reads;
use holdfast_core::{pool::Pool, port::store::Store};
use holdfast_platform::{grpc::Server, limited};
use holdfast_proto::inventory::v1::{
    self, catalog_service_server::CatalogServiceServer, reservation_service_server::ReservationServiceServer,
    stock_service_server::StockServiceServer,
};
use holdfast_runtime::Router;

pub use catalog::SKUS_MAX;

/// Adds the context's services to `server`: commands and strong reads through `router`, everything shared or
/// many from `store`.
pub fn register(server: Server, router: Arc<dyn Router>, store: Arc<dyn Store>) -> Server {
    let reads = Reads::new(store);
    let stock = stock::Stock::new(router.clone(), reads.clone());
    let reservations = reservations::Reservations::new(router);
    let catalog = catalog::Catalog::new(reads);
    server
        .service(limited!(StockServiceServer::new(stock)))
        .service(limited!(ReservationServiceServer::new(reservations)))
        .service(limited!(CatalogServiceServer::new(catalog)))
}

/// `item` with its quantities; a pool that does not exist is an empty one.
fn counted(item: v1::StockItem, pool: Option<Pool>) -> v1::StockItem {
    let pool = pool.unwrap_or_default();
    v1::StockItem { on_hand: pool.total, reserved: pool.held, available: pool.available(), ..item }
}
