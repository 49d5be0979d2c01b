//! Benchmarks, fault scenarios and checkers.
//!
//! [`work`] makes the load, [`producer`] sends it, [`floor`] does what a warehouse, a carrier and customers
//! do meanwhile, [`checkers`] account for every command of it, [`scenarios`] measure, [`counter`] counts for
//! them, [`findings`] hold what they found, [`report`] shows it, [`baseline`] and [`rivals`] are the designs
//! to be measured against, [`faults`] break what runs. The checkers read Kafka and Postgres by themselves:
//! they share no code with the runtime, so a mistake there is not repeated here. Deliberately absent:
//! anything a product process needs.

pub mod backup;
pub mod baseline;
pub mod by_hand;
pub mod checkers;
pub mod counter;
pub mod faults;
pub mod findings;
pub mod floor;
mod java;
pub mod kafka;
pub mod producer;
pub mod random;
pub mod report;
pub mod rivals;
pub mod scenarios;
pub mod tail;
pub mod trespass;
pub mod work;
