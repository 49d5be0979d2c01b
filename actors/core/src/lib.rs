//! The pure vocabulary of the Holdfast runtime, and the ports through which its loop meets the world.
//!
//! Everything here is synchronous data and pure functions, except the port traits in [`port`], whose methods
//! are async because their adapters are. Deliberately absent: tokio, sqlx, rdkafka, any clock (time arrives
//! as a [`time::Timestamp`]) and any domain (no order, no stock).

pub mod aggregate;
pub mod batch;
pub mod call;
pub mod codec;
pub mod dedup;
pub mod disposition;
pub mod door;
pub mod envelope;
pub mod epoch;
pub mod growth;
pub mod invariant;
pub mod origin;
pub mod partition;
pub mod pool;
pub mod port;
pub mod retry;
pub mod ring;
pub mod seal;
pub mod size;
pub mod stuck;
pub mod time;
pub mod watermark;

pub use aggregate::{Aggregate, AggregateId, Context, Decision, Effects, TimerChange};
pub use call::CallEnvelope;
pub use envelope::{Headers, Message, Record};
pub use partition::{KeyHash, PartitionId};
pub use time::Timestamp;
