//! A build without its lease check: the node's clock for leases stands still, so a lease that was once granted never runs out.
//!
//! Upholds I9 for I5: the linearizability check must find it out. Deliberately absent from every product binary.

use std::{fmt, sync::Arc, time::Duration};

use holdfast::compose::Wrap;
use holdfast_core::{Timestamp, port::clock::Clock};
use holdfast_runtime::Ports;

/// Which rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// None: the product as it is.
    None,
    /// Strong reads are answered under leases that ran out.
    NoLeaseCheck,
}

impl Sabotage {
    pub fn named(name: &str) -> Option<Self> {
        [Self::None, Self::NoLeaseCheck].into_iter().find(|sabotage| sabotage.to_string() == name)
    }

    /// What it does to a node.
    pub fn wrap(self) -> Wrap {
        match self {
            Self::None => |_, ports| ports,
            Self::NoLeaseCheck => |_, ports| {
                let clock = Arc::new(Standstill { at: ports.clock.boot(), real: ports.clock.clone() });
                Ports { clock, ..ports }
            },
        }
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::NoLeaseCheck => "no-lease-check",
        })
    }
}

struct Standstill {
    at: Duration,
    real: Arc<dyn Clock>,
}

impl Clock for Standstill {
    fn now(&self) -> Timestamp {
        self.real.now()
    }

    fn boot(&self) -> Duration {
        self.at
    }
}
