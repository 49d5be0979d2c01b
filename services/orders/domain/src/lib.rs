//! The order: from an empty draft to delivered or cancelled.
//!
//! ```text
//! DRAFT ──► PLACED ──► PAID ──► SHIPPED ──► DELIVERED
//!   └─────────┴─────────┴──► CANCELLED
//! ```
//!
//! Pure: [`Order`] decides and evolves, and knows no clock, no I/O, no wire format. A price arrives inside
//! [`Command::AddItem`], a customer's standing inside [`Command::CreateOrder`] and [`Command::PlaceOrder`],
//! looked up before; what inventory, payments and fulfillment did arrives as a command too, and what follows
//! from it is the table in [`process`]. Deliberately absent: the mapping from and to protobuf (the service's
//! codec).

#![deny(clippy::float_arithmetic)]

mod command;
mod event;
mod lines;
mod order;
pub mod process;
mod rejection;
mod sku;

pub use command::{Account, Command, Payment, Quote, Shipment, ShipmentCause, Standing, TOKEN_BYTES_MAX};
pub use event::{Cancellation, CancellationCause, Event};
pub use lines::{LINES_MAX, Line, Lines};
pub use order::{Details, Order, Status};
pub use rejection::Rejection;
pub use sku::{InvalidSku, Sku};
