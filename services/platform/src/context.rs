//! The bounded contexts by name: the words that appear in configuration keys, labels and span attributes.
//!
//! Invariant: a name is a single lower-case word, so that it serves as topic prefix, schema name and metric
//! label alike.
//!
//! Deliberately absent: what a context does.

use std::{fmt, str::FromStr};

/// A bounded context, or the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Context {
    /// Orders.
    Orders,
    /// Inventory.
    Inventory,
    /// Payments.
    Payments,
    /// Fulfillment.
    Fulfillment,
    /// Customers.
    Customers,
    /// The REST edge; owns no data.
    Gateway,
}

impl Context {
    /// Every context.
    pub const ALL: [Self; 6] =
        [Self::Orders, Self::Inventory, Self::Payments, Self::Fulfillment, Self::Customers, Self::Gateway];

    /// The name, as in `orders.commands`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Inventory => "inventory",
            Self::Payments => "payments",
            Self::Fulfillment => "fulfillment",
            Self::Customers => "customers",
            Self::Gateway => "gateway",
        }
    }

    /// Whether the context owns a schema and topics.
    pub const fn owns_data(self) -> bool {
        !matches!(self, Self::Gateway)
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no context.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no context is called `{0}` (orders, inventory, payments, fulfillment, customers, gateway)")]
pub struct Unknown(String);

impl FromStr for Context {
    type Err = Unknown;

    fn from_str(word: &str) -> Result<Self, Unknown> {
        Self::ALL.into_iter().find(|context| context.as_str() == word).ok_or_else(|| Unknown(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_as_itself() {
        for context in Context::ALL {
            assert_eq!(context.as_str().parse(), Ok(context));
        }
        assert!("order".parse::<Context>().is_err());
    }
}
