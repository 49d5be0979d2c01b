//! The shipment: from a paid order to a parcel that arrived; and the recipient, who knows which shipments are
//! a customer's.
//!
//! ```text
//! PENDING ──► PICKING ──► PACKED ──► SHIPPED ──► DELIVERED
//!    └───────────┴──────────┴──► CANCELLED
//! ```
//!
//! Pure: no clock, no I/O, no wire format. [`Shipment`] is keyed by order id, [`Recipient`] by customer id.
//! The address arrives inside [`Command::OrderPaid`], looked up before, and its `Debug` shows nothing of it.
//! Deliberately absent: returns, parcels for a part of an order, carriers (a port of the service), and the
//! mapping from and to protobuf (the service's codec).

mod address;
mod command;
mod event;
pub mod recipient;
mod rejection;
mod shipment;
mod tracking;

pub use address::{Address, Lookup};
pub use command::{Booking, Command, Line};
pub use event::{Cancellation, CancellationCause, Event};
pub use recipient::Recipient;
pub use rejection::Rejection;
pub use shipment::{Details, Request, Shipment, Status, shipment_id};
pub use tracking::{Parcel, Tracking, TrackingStatus};
