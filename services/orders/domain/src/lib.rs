//! The Order aggregate.
