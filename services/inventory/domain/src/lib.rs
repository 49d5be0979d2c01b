//! Stock and reservations.
//!
//! How much there is of a sku, and how much of it is spoken for, are shared quantities: a pool named by the
//! sku, which no actor owns. [`Reservation`] (keyed by order id) and [`StockItem`] (keyed by sku) decide on
//! condition of what the pool can give, so stock is never negative whatever the concurrency, and a hot sku
//! serialises nobody.
//!
//! Pure: no clock, no I/O, no wire format. Deliberately absent: the mapping from and to protobuf (the
//! service's codec).

#![deny(clippy::float_arithmetic)]

mod line;
pub mod reservation;
mod sku;
pub mod stock_item;

pub use line::Line;
pub use reservation::Reservation;
pub use sku::{InvalidSku, Sku};
pub use stock_item::StockItem;
