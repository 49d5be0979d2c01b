//! The order: from an empty draft to placed or cancelled.
//!
//! ```text
//! DRAFT ──► PLACED          (both ──► CANCELLED)
//! ```
//!
//! Pure: [`Order`] decides and evolves, and knows no clock, no I/O, no wire format. A price arrives inside
//! [`Command::AddItem`], looked up before; what inventory did arrives as a command too. Deliberately absent: payment and
//! shipment, which come with their contexts, and the mapping from and to protobuf (the service's codec).

#![deny(clippy::float_arithmetic)]

mod command;
mod event;
mod lines;
mod order;
mod rejection;
mod sku;

pub use command::{Command, Quote};
pub use event::{Cancellation, CancellationCause, Event};
pub use lines::{Line, Lines};
pub use order::{Details, LINES_MAX, Order, Status};
pub use rejection::Rejection;
pub use sku::{InvalidSku, Sku};
