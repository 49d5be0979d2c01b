//! The limits and periods of one node. Every queue and every wait in this crate has its bound here.

use std::time::Duration;

use holdfast_core::retry::RetryPolicy;
use holdfast_machine::Rules;

/// See the field docs; [`Default`] is what production starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where other nodes can call this one; written into the partition rows it owns.
    pub address: String,
    /// Messages in one batch, at most.
    pub batch_items_max: usize,
    /// Committers of this context on this node. A partition is always served by the same one.
    pub lanes: usize,
    /// Bytes of records held in memory by this node and context, at most (I11).
    pub memory_bytes_max: usize,
    /// Callers' commands and reads in flight, at most; further ones get `RESOURCE_EXHAUSTED`.
    pub calls_max: usize,
    /// Bytes of callers' commands and reads in flight, at most; beyond them as beyond `calls_max` (I11).
    pub calls_bytes_max: usize,
    /// Attempts at a message whose handler fails.
    pub retry: RetryPolicy,
    /// How long after a renewal this node may answer strong reads.
    pub lease: Duration,
    /// How often leases are renewed.
    pub renew_every: Duration,
    /// What a taker adds to the lease it waits out, for clocks that drift.
    pub drift: Duration,
    /// How long a taker hopes for the last owner's release before it takes the partition without.
    pub release_grace: Duration,
    /// An actor idle for this long is dropped from memory.
    pub passivate_after: Duration,
    /// Live actors, at most, about; the idlest go first. An order takes 12 to 15 KB, the process's own share
    /// included.
    pub live_max: usize,
    /// How often timers and mailboxes are looked through for what is due.
    pub poll_every: Duration,
    /// Attempts at effects under way, at most.
    pub effects_max: usize,
    /// How long one attempt at an effect may take.
    pub effect_timeout: Duration,
    /// Outbox rows on their way to the broker, at most, for each lane.
    pub relay_rows_max: usize,
    /// Bytes of outbox rows on their way to the broker, at most, for each lane; a single commit's, or one
    /// record's, may be more (I11).
    pub relay_bytes_max: usize,
    /// An input that delivered nothing for so long, though its log goes on, is opened again.
    pub stall_after: Duration,
    /// How long a graceful stop may take.
    pub drain: Duration,
    /// How long a producer may go on sending by a partition count that has changed: the age of its metadata
    /// and its delivery timeout together. A transition lasts at least that long. Too short a time can cost
    /// order across growth.
    pub producers_max_age: Duration,
    /// Which rules are kept: all, but in a test.
    #[doc(hidden)]
    pub rules: Rules,
}

impl Config {
    /// How long after an attempt began it counts as lost.
    pub(crate) fn effect_hold(&self) -> Duration {
        self.effect_timeout + self.effect_timeout / 2
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: String::new(),
            batch_items_max: 512,
            lanes: 2,
            memory_bytes_max: 64 * 1024 * 1024,
            calls_max: 4096,
            calls_bytes_max: 64 * 1024 * 1024,
            retry: RetryPolicy::default(),
            lease: Duration::from_secs(5),
            renew_every: Duration::from_secs(1),
            drift: Duration::from_millis(250),
            release_grace: Duration::from_secs(1),
            passivate_after: Duration::from_mins(5),
            live_max: 20_000,
            poll_every: Duration::from_millis(200),
            effects_max: 256,
            effect_timeout: Duration::from_secs(10),
            relay_rows_max: 8192,
            relay_bytes_max: 16 * 1024 * 1024,
            stall_after: Duration::from_secs(10),
            drain: Duration::from_secs(30),
            producers_max_age: Duration::from_mins(7),
            rules: Rules::SOUND,
        }
    }
}
