//! One suite of laws per port. Each adapter of a port runs its suite: a law that holds in memory and not in
//! Postgres, or the other way round, is a bug in one of them or in the contract.
//!
//! A suite is called through its macro, which makes one test per law, each on a fresh harness. Laws that need
//! something that not every adapter can do ask the harness's features first; an adapter says what it lacks in
//! one place.

pub mod log;
pub mod publisher;
pub mod store;
