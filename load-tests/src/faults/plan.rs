//! What is done to which node, when and for how long: everything follows from a seed.
//!
//! Invariant: the same seed, scale and number of nodes give the same steps, and every round of them holds
//! each kind of fault once. Deliberately absent: doing it.

use std::{collections::VecDeque, time::Duration};

use serde::Serialize;

use crate::random::Random;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Fault {
    /// SIGKILL, and a new process in its place at once.
    Kill,
    /// SIGSTOP for a while, then SIGCONT.
    Pause,
    /// The same while a request with a commit is held between the node and its database.
    PauseBeforeCommit,
    /// The same while the answer to a commit is held.
    PauseInCommit,
    /// A pause, from which the node wakes cut off from its database: it can't learn that it was replaced.
    WakeWithoutDatabase,
    /// The answer to a commit never comes: all connections to the database are cut while it is under way.
    CutInCommit,
    /// Node and database: nothing passes.
    HoldDatabase,
    /// Node and database: connections are reset.
    CutDatabase,
    /// Node and database: everything takes longer.
    SlowDatabase,
    /// Node and broker: nothing passes.
    HoldBroker,
    /// Node and broker: connections are reset.
    CutBroker,
    /// Nobody reaches the node's gRPC port, other nodes included.
    HoldCalls,
    /// The same by resets.
    CutCalls,
    /// SIGTERM, and a new process in its place: it leaves and joins in good order.
    Restart,
    /// One node more joins and leaves again every few seconds, while the next steps are taken.
    Churn,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Kill,
        Self::Pause,
        Self::PauseBeforeCommit,
        Self::PauseInCommit,
        Self::WakeWithoutDatabase,
        Self::CutInCommit,
        Self::HoldDatabase,
        Self::CutDatabase,
        Self::SlowDatabase,
        Self::HoldBroker,
        Self::CutBroker,
        Self::HoldCalls,
        Self::CutCalls,
        Self::Restart,
        Self::Churn,
    ];

    /// Whether it stops the process.
    pub const fn is_pause(self) -> bool {
        matches!(self, Self::Pause | Self::PauseBeforeCommit | Self::PauseInCommit | Self::WakeWithoutDatabase)
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its place in the plan, from 1.
    pub number: u32,
    /// How long nothing is done before it, ms.
    pub after_ms: u64,
    /// What is done.
    pub fault: Fault,
    /// To which node, from 0.
    pub node: usize,
    /// For how long, ms; 0 for what has no length.
    pub lasts_ms: u64,
}

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Nodes that things are done to.
    pub nodes: usize,
    /// Pauses.
    pub pause: Duration,
    /// Everything else, at most; at least a tenth of it.
    pub partition: Duration,
    /// Between steps, at most.
    pub calm: Duration,
}

/// The steps of a seed, without end.
#[derive(Clone, Debug)]
pub struct Plan {
    random: Random,
    scale: Scale,
    number: u32,
    round: VecDeque<Fault>,
}

impl Plan {
    /// The plan of `seed`.
    pub fn new(seed: u64, scale: Scale) -> Self {
        Self { random: Random(seed), scale, number: 0, round: VecDeque::new() }
    }

    /// Steps in which every fault comes once.
    pub const fn round_len() -> usize {
        Fault::ALL.len()
    }

    fn between(&mut self, least: Duration, most: Duration) -> u64 {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        ms(least) + self.random.below(ms(most).saturating_sub(ms(least)) + 1)
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.round.is_empty() {
            let mut round = Fault::ALL;
            self.random.shuffle(&mut round);
            self.round = round.into();
        }
        let fault = self.round.pop_front()?;
        let scale = self.scale;
        self.number += 1;
        let after_ms = self.between(scale.calm / 10, scale.calm);
        let node = usize::try_from(self.random.below(scale.nodes as u64)).unwrap_or(0);
        let lasts_ms = match fault {
            Fault::Kill | Fault::Restart | Fault::CutInCommit => 0,
            fault if fault.is_pause() => self.between(scale.pause, scale.pause),
            Fault::Churn => self.between(scale.partition * 2, scale.partition * 2),
            _ => self.between(scale.partition / 10, scale.partition),
        };
        Some(Step { number: self.number, after_ms, fault, node, lasts_ms })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SCALE: Scale = Scale {
        nodes: 3,
        pause: Duration::from_secs(30),
        partition: Duration::from_secs(10),
        calm: Duration::from_secs(2),
    };

    fn steps(seed: u64) -> Vec<Step> {
        Plan::new(seed, SCALE).take(3 * Plan::round_len()).collect()
    }

    #[test]
    fn a_seed_gives_one_plan() {
        assert_eq!(steps(1), steps(1));
        assert_ne!(steps(1), steps(2));
    }

    #[test]
    fn every_round_has_each_fault_once_and_every_node_its_share() {
        let all = steps(3);
        for round in all.chunks(Plan::round_len()) {
            assert_eq!(round.iter().map(|step| step.fault).collect::<BTreeSet<_>>(), Fault::ALL.into());
        }
        assert_eq!(all.iter().map(|step| step.node).collect::<BTreeSet<_>>(), [0, 1, 2].into());
        assert!(all.iter().filter(|step| step.fault.is_pause()).all(|step| step.lasts_ms == 30_000));
        assert!(all.iter().all(|step| (200..=2_000).contains(&step.after_ms)));
    }
}
