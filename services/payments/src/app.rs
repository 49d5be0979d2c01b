//! What the binary composes the payments context of.

use std::sync::Arc;

use holdfast_adapter::shown::{self, Kind};
use holdfast_core::Aggregate as _;
use holdfast_payments_domain::Payment;
use holdfast_proto::payments::v1;
use holdfast_runtime::BoundedContext;

use crate::{codec::PaymentAdapter, provider::Provider, rates::RateSource};

pub use crate::settings::Settings;

/// The context's name: its topics, its schema, its label.
pub const NAME: &str = "payments";

/// The migrations of the context's own tables, for [`holdfast_postgres::migrate`].
pub const MIGRATIONS: &[(i64, &str, &str)] =
    &[(1, "contradictions", include_str!("../../../migrations/payments/0001_contradictions.sql"))];

/// The read models that [`holdfast_postgres::Config`] is to write.
pub const VIEWS: &[holdfast_postgres::View] = &[crate::projection::VIEW];

/// Its kinds of aggregates, as operators see them.
pub const KINDS: &[Kind] = &[shown::kind::<v1::Payment>(Payment::KIND)];

/// The topics of other contexts that it follows, beside its own commands.
pub const FOLLOWS: &[&str] = &["orders.events"];

/// The encoded descriptors of its services, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = holdfast_proto::FILE_DESCRIPTOR_SET;

/// The context, asking `rates` what a currency is worth in the books, and `provider` for the money.
pub fn context(settings: Settings, rates: Arc<dyn RateSource>, provider: Arc<dyn Provider>) -> BoundedContext {
    let context = BoundedContext::new(NAME).with(PaymentAdapter::new(settings, rates, provider));
    FOLLOWS.iter().fold(context, |context, topic| context.subscribe(*topic))
}
