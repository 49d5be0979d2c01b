//! Time, as the loop reads it.

use std::time::Duration;

use crate::time::Timestamp;

/// Two clocks: one for people, one for leases.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. May jump; never compared with the database's.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point of this machine, which goes on while the machine sleeps (`CLOCK_BOOTTIME`)
    /// and never goes back.
    fn boot(&self) -> Duration;
}
