//! Where a shipment goes: the one piece of personal data in this context.
//!
//! Invariant: `Debug` holds nothing of it, so that neither a log line nor a failed assertion can.

use std::{fmt, sync::Arc};

/// A delivery address, as customers said it when the shipment was requested.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Who receives it.
    pub recipient: Arc<str>,
    /// Street, house, floor.
    pub lines: Arc<[Arc<str>]>,
    /// City.
    pub city: Arc<str>,
    /// Empty where the country has none.
    pub postal_code: Arc<str>,
    /// Two capital letters, as in ISO 3166-1 alpha-2.
    pub country: Arc<str>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(personal)")
    }
}

/// Customers' answer to "where is that?".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lookup {
    /// Not asked yet: as news is decoded. Prepare replaces it.
    #[default]
    NotAsked,
    /// There is no such address, or not any more.
    Missing,
    /// There.
    Found(Address),
}
