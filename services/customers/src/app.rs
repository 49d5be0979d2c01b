//! What the binary composes the customers context of.

use holdfast_adapter::shown::{self, Kind};
use holdfast_core::Aggregate as _;
use holdfast_customers_domain::Customer;
use holdfast_proto::customers::v1;
use holdfast_runtime::BoundedContext;

use crate::codec::CustomerAdapter;

/// The context's name: its topics, its schema, its label.
pub const NAME: &str = "customers";

/// The migrations of the context's own tables: it has none beside the runtime's.
pub const MIGRATIONS: &[(i64, &str, &str)] = &[];

/// Its kinds of aggregates, as operators see them: without personal data.
pub const KINDS: &[Kind] = &[shown::kind::<v1::CustomerReceipt>(Customer::KIND)];

/// The topics of other contexts that it follows, beside its own commands: none.
pub const FOLLOWS: &[&str] = &[];

/// The encoded descriptors of its services, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = holdfast_proto::FILE_DESCRIPTOR_SET;

/// The context.
pub fn context() -> BoundedContext {
    BoundedContext::new(NAME).with(CustomerAdapter)
}
