//! Wire contracts between contexts: protobuf messages, gRPC stubs, canonical proto3 JSON, reflection.
//!
//! The `.proto` files beside this crate's manifest are the source; everything here is generated from them at
//! build time. A module is a package: `holdfast.orders.v1` is [`orders::v1`]. `serde` on a message is its
//! canonical JSON; unknown JSON fields are errors, unknown binary fields are skipped. The full name of a
//! message, as in `ce_type`, is `<PlaceOrder as prost::Name>::full_name()`. Deliberately absent: any mapping
//! to a domain's types; each context keeps its own, with the validation.

pub use pbjson_types::{Duration, Timestamp};

/// Encoded `google.protobuf.FileDescriptorSet` of all packages and what they import, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// One package's generated code.
macro_rules! package {
    ($module:ident, $name:literal, $doc:literal) => {
        #[doc = $doc]
        pub mod $module {
            #[doc = concat!("Package `", $name, "`.")]
            #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::unwrap_used)]
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/", $name, ".rs"));
                include!(concat!(env!("OUT_DIR"), "/", $name, ".serde.rs"));
            }
        }
    };
}

package!(admin, "holdfast.admin.v1", "What operators ask of a running node.");
package!(customers, "holdfast.customers.v1", "Customers.");
package!(fulfillment, "holdfast.fulfillment.v1", "Shipments.");
package!(inventory, "holdfast.inventory.v1", "Stock and reservations.");
package!(money, "holdfast.money.v1", "Amounts.");
package!(orders, "holdfast.orders.v1", "Orders.");
package!(payments, "holdfast.payments.v1", "Payments.");
package!(read, "holdfast.read.v1", "How reads are made.");
package!(runtime, "holdfast.runtime.v1", "Between nodes.");

pub mod time;
