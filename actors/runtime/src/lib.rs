//! The core loop of Holdfast: supervised aggregate actors over the ports of [`holdfast_core::port`].
//!
//! A [`node::Node`] runs one bounded context on one machine. Records come in per owned partition ([`fetch`]),
//! are gathered into batches ([`lane`]), decided by one actor per aggregate ([`entity`], supervised by
//! [`partition`]), committed as one transaction, and what they caused is published in order ([`relay`]).
//! Calls reach the node that owns their aggregate from any other ([`routing`]). `actors/README.md` states
//! what that promises.
//!
//! Deliberately absent: SQL, Kafka, protobuf, and any domain.

pub mod clock;
pub mod config;
pub mod context;
pub mod lease;
pub mod node;
pub mod peers;
pub mod recover;
pub mod router;
pub mod routing;
pub mod telemetry;

mod activation;
mod admission;
mod backoff;
mod chores;
mod dead_letter;
mod delivery;
mod effects;
mod emit;
mod entity;
mod environment;
mod fetch;
mod gate;
mod gauges;
mod growth;
mod guard;
mod handles;
mod history;
mod ids;
mod kind;
mod lane;
mod limits;
mod local;
mod owned;
mod owners;
mod ownership;
mod partition;
mod prepare;
mod progress;
mod relay;
mod spans;
mod stages;
mod stretch;
mod waiting;
mod work;

pub use clock::SystemClock;
pub use config::Config;
pub use context::BoundedContext;
#[doc(hidden)]
pub use holdfast_machine::Rules;
pub use node::{Node, Ports};
pub use peers::{Local, PeerError, Peers};
pub use progress::{STUCK_AFTER, Stalled};
pub use router::{Consistency, ReadAnswer, RouteError, Router};
pub use routing::Routed;
