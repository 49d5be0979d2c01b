//! The runtime's logic as pure state machines.
//!
//! A machine gets what happened (an *input*) and answers with what to do (*actions*); the shell,
//! `holdfast-runtime`, turns actions into IO and the ends of IO into inputs. A machine never waits, and its
//! work per input is bounded. It holds no channel and no clock, draws nothing at random, and writes no log:
//! time comes with each input, and what a log is to say is an action. So a model checker and a simulator can
//! drive the very code that runs in production. Invariant: an action that asks for something carries an
//! [`Ask`], and only the answer to the ask that is waited for counts; any other is void (but a beat's answer,
//! whichever node asked, tells of the other nodes). Deliberately absent: IO, and retries of its own IO: a
//! failure is an input like another.

#[cfg(test)]
mod explore;
pub mod gate;
pub mod lane;
pub mod ownership;
pub mod rules;
mod step;
mod table;

use std::time::Duration;

pub use rules::Rules;

/// The time at which an input is handled, by the node's three clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME`: goes on while the machine is suspended. Leases count by it.
    pub boot: Duration,
    /// A monotonic clock that stands still while the machine is suspended. Waits and memories of others count
    /// by it, so that a suspended node waits too long rather than too short.
    pub awake: Duration,
}

/// Numbers what a machine has asked for. An answer to another number than the one that is waited for is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ask(u64);

/// Hands out ask numbers.
#[derive(Clone, Debug, Default)]
struct Asks(u64);

impl Asks {
    fn next(&mut self) -> Ask {
        self.0 += 1;
        Ask(self.0)
    }
}
