//! What the binary composes the fulfillment context of.

use std::sync::Arc;

use holdfast_adapter::shown::{self, Kind};
use holdfast_core::Aggregate as _;
use holdfast_fulfillment_domain::{Recipient, Shipment};
use holdfast_proto::fulfillment::v1;
use holdfast_runtime::BoundedContext;

use crate::{
    addresses::Addresses,
    carrier::Carrier,
    codec::{RecipientAdapter, ShipmentAdapter},
};

/// The context's name: its topics, its schema, its label.
pub const NAME: &str = "fulfillment";

/// The migrations of the context's own tables, for [`holdfast_postgres::migrate`].
pub const MIGRATIONS: &[(i64, &str, &str)] =
    &[(1, "shipments_view", include_str!("../../../migrations/fulfillment/0001_shipments_view.sql"))];

/// The read models that [`holdfast_postgres::Config`] is to write.
pub const VIEWS: &[holdfast_postgres::View] = &[crate::projection::VIEW];

/// Its kinds of aggregates, as operators see them: without addresses.
pub const KINDS: &[Kind] =
    &[shown::kind::<v1::Shipment>(Shipment::KIND), shown::kind::<v1::Recipient>(Recipient::KIND)];

/// The topics of other contexts that it follows, beside its own commands.
pub const FOLLOWS: &[&str] = &["orders.events", "inventory.events", "customers.events"];

/// The encoded descriptors of its services, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = holdfast_proto::FILE_DESCRIPTOR_SET;

/// The context, asking `addresses` where shipments go, and booking with `carrier` what nobody else carries.
pub fn context(addresses: impl Addresses, carrier: impl Carrier) -> BoundedContext {
    let context = BoundedContext::new(NAME)
        .with(ShipmentAdapter::new(Arc::new(addresses), Arc::new(carrier)))
        .with(RecipientAdapter);
    FOLLOWS.iter().fold(context, |context, topic| context.subscribe(*topic))
}
