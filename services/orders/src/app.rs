//! What the binary composes the orders context of.

use std::sync::Arc;

use holdfast_adapter::shown::{self, Kind};
use holdfast_core::Aggregate as _;
use holdfast_orders_domain::Order;
use holdfast_proto::orders::v1;
use holdfast_runtime::BoundedContext;

use crate::{
    codec::OrderAdapter,
    customers::{CustomerSource, Customers},
    prices::{Keep, PriceSource, Prices},
};

/// The context's name: its topics, its schema, its label.
pub const NAME: &str = "orders";

/// The migrations of the context's own tables, for [`holdfast_postgres::migrate`].
pub const MIGRATIONS: &[(i64, &str, &str)] =
    &[(1, "orders_view", include_str!("../../../migrations/orders/0001_orders_view.sql"))];

/// The read models that [`holdfast_postgres::Config`] is to write.
pub const VIEWS: &[holdfast_postgres::View] = &[crate::projection::VIEW];

/// Its kinds of aggregates, as operators see them.
pub const KINDS: &[Kind] = &[shown::kind::<v1::Order>(Order::KIND)];

/// The topics of other contexts that it follows, beside its own commands.
pub const FOLLOWS: &[&str] = &["inventory.events", "payments.events", "fulfillment.events"];

/// The encoded descriptors of its services, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = holdfast_proto::FILE_DESCRIPTOR_SET;

/// `ce_source` of what comes by gRPC, under which its claims are found.
pub const CALL_SOURCE: &str = holdfast_core::origin::CALL_SOURCE;

/// The context, asking `prices` what things cost and `customers` who may order.
pub fn context(prices: impl PriceSource, customers: impl CustomerSource) -> BoundedContext {
    context_keeping(prices, Keep::default(), customers)
}

/// The same, remembering prices as `keep` says.
pub fn context_keeping(prices: impl PriceSource, keep: Keep, customers: impl CustomerSource) -> BoundedContext {
    let prices = Prices::keeping(Arc::new(prices), keep);
    let adapter = OrderAdapter::new(prices, Customers::new(Arc::new(customers)));
    FOLLOWS.iter().fold(BoundedContext::new(NAME).with(adapter), |context, topic| context.subscribe(*topic))
}
