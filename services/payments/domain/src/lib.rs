//! The payment of one order: asked for, captured, given back.
//!
//! ```text
//! REQUESTED ──► AUTHORIZED ──► CAPTURED ──► PARTIALLY_REFUNDED ──► REFUNDED
//!     ├──────────────┴──► DECLINED, VOIDED       (REQUESTED ──► CAPTURED where nothing is authorized first)
//!     └──► CAPTURED
//! ```
//!
//! A provider that contradicts what was asked of it stops the payment wherever it is ([`Contradiction`]).
//!
//! Pure: [`Payment`] decides and evolves, and knows no clock, no I/O, no wire format, no provider. What has
//! to be asked of a provider follows from the events ([`Event::effects`]); what it answered, or reported by
//! itself, arrives as a command. Deliberately absent: which amounts a provider can take, where rates come
//! from, and the mapping from and to protobuf (all the service's).

#![deny(clippy::float_arithmetic)]

pub mod code;
mod command;
mod contradiction;
mod details;
mod effect;
mod event;
mod payment;
mod refund;
mod rejection;

pub use command::{Command, News, Outcome, Quote};
pub use contradiction::{Contradiction, NOTHING, REPORT, Subject};
pub use details::{Details, Settlement, Status};
pub use effect::{CAPTURE, CHARGE, Call, EffectChange, VOID, refund_name};
pub use event::{Event, Then};
pub use payment::{NOTHING_TO_PAY, Payment};
pub use refund::{Cause, REFUNDS_MAX, Refund, State};
pub use rejection::Rejection;
