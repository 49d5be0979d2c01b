//! Our own codes of declined payments.
//!
//! Invariant: events and states keep them, so a code never changes and is never given another meaning.
//! Deliberately absent: the codes of a provider and of its adapter, which arrive in commands.

/// The order has no payment method.
pub const NO_PAYMENT_METHOD: &str = "NO_PAYMENT_METHOD";
/// There is no rate from the order's currency to the books'.
pub const NO_RATE: &str = "NO_RATE";
/// The amount does not fit the books.
pub const AMOUNT_TOO_LARGE: &str = "AMOUNT_TOO_LARGE";
/// It was called off at the provider, or the authorization lapsed.
pub const CALLED_OFF: &str = "CALLED_OFF";
