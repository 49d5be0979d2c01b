//! The payment provider's own books, as it publishes them: what was really charged and given back, whatever
//! anybody believes.
//!
//! Pure. Deliberately absent: asking for them.

use std::collections::BTreeMap;

use serde::Deserialize;

/// All that the provider has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// Every charge that was ever begun, declined ones included.
    pub charges: Vec<Charge>,
    /// Everything that was given back.
    pub refunds: Vec<Refund>,
    /// How often it failed, and in which way.
    #[serde(default)]
    pub faults: BTreeMap<String, u64>,
    /// How often it was asked for something.
    #[serde(default)]
    pub requests: u64,
}

/// One charge. Amounts are in minor units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Charge {
    /// The provider's name for it.
    pub id: String,
    /// For which order.
    pub order_id: String,
    /// `succeeded` once money has moved.
    pub status: String,
    /// How much.
    pub amount: i64,
    /// How much of that was given back.
    pub refunded: i64,
}

/// One refund.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Refund {
    /// Of which charge.
    pub charge: String,
    /// How much, in minor units.
    pub amount: i64,
}

impl Charge {
    /// Whether money has moved.
    pub fn is_taken(&self) -> bool {
        self.status == "succeeded"
    }

    /// Whether money is held that was neither taken nor let go.
    pub fn is_open(&self) -> bool {
        matches!(self.status.as_str(), "requires_capture" | "processing")
    }
}

impl Account {
    /// Reads them as the provider says them.
    ///
    /// # Errors
    /// If they don't read as such books.
    pub fn read(said: serde_json::Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(said)
    }
}
