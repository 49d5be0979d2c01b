//! What the binary composes the inventory context of.

use std::time::Duration;

use holdfast_runtime::BoundedContext;

use crate::codec::{ReservationAdapter, StockItemAdapter};

pub use holdfast_inventory_domain::reservation::HOLD_DEFAULT;

/// The context's name: its topics, its schema, its label.
pub const NAME: &str = "inventory";

/// The migrations of the context's own tables: it has none beside the runtime's.
pub const MIGRATIONS: &[(i64, &str, &str)] = &[];

/// The encoded descriptors of its services, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = holdfast_proto::FILE_DESCRIPTOR_SET;

/// The context, holding stock for an order that is not paid for so long (usually [`HOLD_DEFAULT`]).
pub fn context(hold_for: Duration) -> BoundedContext {
    BoundedContext::new(NAME).with(ReservationAdapter::new(hold_for)).with(StockItemAdapter).subscribe("orders.events")
}
