//! The other nodes' beats, and for how long each node has been silent.
//!
//! Invariant (I5): a lease is begun and renewed only by a look at the row that came after a beat of this run,
//! so a taker that heard a node's last beat a full lease ago, by its own clock, knows that none of that
//! node's leases still runs. What is remembered is when an answer came, never when it was asked for, on a
//! clock that stands still while this machine sleeps: both only make a node seem less silent than it was.
//! Deliberately absent: judging which node is dead, which is the group's.

use std::{collections::BTreeMap, time::Duration};

use holdfast_core::epoch::Beat;

/// What a node has heard of each address.
#[derive(Clone, Debug, Default)]
pub(super) struct Beats(pub(super) BTreeMap<String, Heard>);

/// The last beat that was heard of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub beat: Beat,
    /// When it was first heard, and when last.
    pub first: Duration,
    pub last: Duration,
}

impl Beats {
    /// Notes the last beats of all nodes, heard at `awake`.
    pub fn hear(&mut self, said: BTreeMap<String, Beat>, awake: Duration) {
        self.0.retain(|address, _| said.contains_key(address));
        for (address, beat) in said {
            match self.0.get_mut(&address) {
                Some(known) if known.beat == beat => known.last = awake,
                _ => _ = self.0.insert(address, Heard { beat, first: awake, last: awake }),
            }
        }
    }

    /// For how long the same beat of the node at `address` was heard. The node may have written others since.
    pub fn silence(&self, address: &str) -> Duration {
        self.0.get(address).map_or(Duration::ZERO, |heard| heard.last.saturating_sub(heard.first))
    }

    /// For how long the node at `address` has been silent at `awake`, if `beat` is its last.
    pub fn silence_since(&self, address: &str, beat: Beat, awake: Duration) -> Duration {
        let heard = self.0.get(address).filter(|heard| heard.beat == beat);
        heard.map_or(Duration::ZERO, |heard| awake.saturating_sub(heard.first))
    }

    /// The last beat that was heard of the node at `address`.
    pub fn last(&self, address: &str) -> Option<Beat> {
        self.0.get(address).map(|heard| heard.beat)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn silence_counts_from_first_hearing_of_last_beat() {
        let mut beats = Beats::default();
        let run = Uuid::from_u128(1);
        let beat = |count| Beat { run, count };
        let at = Duration::from_secs;
        let said = |count| BTreeMap::from([("there".to_owned(), beat(count))]);
        let silences = |beats: &Beats, count, now| {
            (beats.silence("there").as_secs(), beats.silence_since("there", beat(count), at(now)).as_secs())
        };
        assert_eq!(silences(&beats, 1, 9), (0, 0), "never heard of");
        beats.hear(said(1), at(10));
        beats.hear(said(1), at(11));
        assert_eq!(silences(&beats, 1, 12), (1, 2));
        assert_eq!(silences(&beats, 2, 12), (1, 0), "a later beat was written since");
        beats.hear(said(2), at(12));
        assert_eq!(silences(&beats, 2, 12), (0, 0));
        beats.hear(BTreeMap::new(), at(13));
        assert_eq!(silences(&beats, 2, 13), (0, 0), "forgotten");
    }
}
