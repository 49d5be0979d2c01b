//! The parts of the `holdfast` binary, as a library so that test binaries can put the same process together with other ports.
//!
//! Deliberately absent: anything about orders or stock.

pub mod address;
pub mod admin;
pub mod cli;
pub mod compose;
pub mod contexts;
pub mod failure;
pub mod infrastructure;
mod loops;
pub mod operator;
pub mod people;
pub mod shelves;
pub mod simulated;
pub mod verbs;
