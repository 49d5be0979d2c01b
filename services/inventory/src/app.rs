//! What the binary composes the inventory context of.

use std::time::Duration;

use holdfast_adapter::shown::{self, Kind};
use holdfast_core::Aggregate as _;
use holdfast_inventory_domain::{Reservation, StockItem};
use holdfast_proto::inventory::v1;
use holdfast_runtime::BoundedContext;

use crate::codec::{ReservationAdapter, StockItemAdapter};

pub use holdfast_inventory_domain::reservation::HOLD_DEFAULT;

/// The context's name: its topics, its schema, its label.
pub const NAME: &str = "inventory";

/// The migrations of the context's own tables: it has none beside the runtime's.
pub const MIGRATIONS: &[(i64, &str, &str)] = &[];

/// Its kinds of aggregates, as operators see them; a sku without its quantities, which no actor holds.
pub const KINDS: &[Kind] =
    &[shown::kind::<v1::Reservation>(Reservation::KIND), shown::kind::<v1::StockItem>(StockItem::KIND)];

/// The topics of other contexts that it follows, beside its own commands.
pub const FOLLOWS: &[&str] = &["orders.events"];

/// The encoded descriptors of its services, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = holdfast_proto::FILE_DESCRIPTOR_SET;

/// The context, holding stock for an order that is not paid for so long (usually [`HOLD_DEFAULT`]).
pub fn context(hold_for: Duration) -> BoundedContext {
    let context = BoundedContext::new(NAME).with(ReservationAdapter::new(hold_for)).with(StockItemAdapter);
    FOLLOWS.iter().fold(context, |context, topic| context.subscribe(*topic))
}
