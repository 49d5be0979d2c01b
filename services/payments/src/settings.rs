//! What the shop decides about payments, the same for all of them.
//!
//! Invariant: only a command that begins a payment reads it, so that a payment under way does not change its
//! course with the configuration. Deliberately absent: how the provider is reached (each provider's own
//! settings), and where rates come from.

/// How payments are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether an amount is authorized first and captured by a call of its own. A payment keeps what was set
    /// when it began.
    pub authorize_first: bool,
}
