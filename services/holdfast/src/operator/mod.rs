//! What operators see of a running system: facts ([`survey`]), and what is wrong with them ([`doctor`]).
//!
//! Invariant: looking changes nothing. Postgres is read on read-only connections, Kafka without a group, and
//! no offset is noted. Deliberately absent: repairing; every finding says what a person can do.

pub mod books;
pub mod doctor;
pub mod story;
pub mod survey;

#[cfg(test)]
mod tests;
