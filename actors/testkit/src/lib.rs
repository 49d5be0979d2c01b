//! In-memory ports and the conformance suites of the Holdfast runtime.
//!
//! Everything here is for tests: ports that can be broken on purpose, a simulator of the machines, one suite
//! of laws per port that the in-memory and the real adapters both pass, and checkers that share no code with
//! the runtime. Deliberately absent: Kafka, Postgres, and the runtime itself.

pub mod checker;
pub mod clock;
pub mod conformance;
pub mod dice;
pub mod gate;
pub mod given;
pub mod group;
pub mod log;
pub mod origins;
pub mod publisher;
pub mod sample;
pub mod simulator;
pub mod store;

pub use checker::{Checker, Watch};
pub use clock::{ManualClock, VirtualClock};
pub use dice::Dice;
pub use gate::Gate;
pub use given::Given;
pub use group::{MemoryGroup, MemoryMembership};
pub use log::MemoryLog;
pub use publisher::MemoryPublisher;
pub use store::MemoryStore;
