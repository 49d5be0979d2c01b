//! The ports through which the loop meets the log, the store and the clock.
//!
//! Each has an in-memory adapter (testkit) and a real one, and both pass the same conformance suite.

pub mod clock;
pub mod log;
pub mod store;
