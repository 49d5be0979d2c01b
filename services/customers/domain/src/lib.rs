//! The customer: an account, who it belongs to, where things can be sent.
//!
//! ```text
//! ACTIVE ◄──► SUSPENDED      (both ──► ERASED)
//! ```
//!
//! Pure: [`Customer`] decides and evolves, and knows no clock, no I/O, no wire format. Personal data is in
//! [`Profile`], [`Address`] and [`Preferences`], whose `Debug` shows none of it. Deliberately absent: whether
//! an e-mail address exists, signing in, and the mapping from and to protobuf (the service's codec).

mod command;
mod customer;
mod event;
mod personal;
mod rejection;

pub use command::Command;
pub use customer::{Customer, Details, Status};
pub use event::Event;
pub use personal::{ADDRESSES_MAX, Address, PreferenceField, Preferences, Profile, ProfileField};
pub use rejection::Rejection;
