//! The lowest offset not yet done, when work finishes out of order.
//!
//! Upholds I7: the mark never passes an offset that was admitted and is not done. Offsets may have gaps
//! (transaction markers, compaction); an offset that was never admitted holds nothing back.

use std::collections::BTreeSet;

/// Tracks one partition of one input.
#[derive(Clone, Debug, Default)]
pub struct Watermark {
    in_flight: BTreeSet<u64>,
    next: u64,
}

impl Watermark {
    /// Starts where `next` is the first offset that is not done.
    pub fn starting_at(next: u64) -> Self {
        Self { in_flight: BTreeSet::new(), next }
    }

    /// Notes that `offset` is being worked on. Offsets are admitted in rising order.
    pub fn admit(&mut self, offset: u64) {
        debug_assert!(offset >= self.next, "offset {offset} admitted twice or out of order (next is {})", self.next);
        self.in_flight.insert(offset);
        self.next = self.next.max(offset + 1);
    }

    /// Notes that `offset` is done.
    pub fn done(&mut self, offset: u64) {
        self.in_flight.remove(&offset);
    }

    /// Every admitted offset below this one is done.
    pub fn low(&self) -> u64 {
        self.in_flight.first().copied().unwrap_or(self.next)
    }

    /// What was admitted and is not done, in order.
    pub fn unfinished(&self) -> impl Iterator<Item = u64> {
        self.in_flight.iter().copied()
    }

    /// The mark as it would stand once all of `done` were done too.
    pub fn low_after(&self, done: &BTreeSet<u64>) -> u64 {
        self.in_flight.iter().find(|offset| !done.contains(offset)).copied().unwrap_or(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_mark_is_the_lowest_unfinished_offset(gaps in proptest::collection::vec(1..5_u64, 1..60), order in any::<u64>()) {
            let mut mark = Watermark::starting_at(7);
            let mut offsets: Vec<u64> = gaps.iter().scan(6, |at, gap| { *at += gap; Some(*at) }).collect();
            for offset in &offsets {
                mark.admit(*offset);
            }
            let end = offsets.last().copied().expect("at least one") + 1;
            let mut seed = order;
            while !offsets.is_empty() {
                prop_assert_eq!(mark.low(), *offsets.iter().min().expect("not empty"));
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let picked = offsets.swap_remove(usize::try_from(seed >> 33).expect("31 bits") % offsets.len());
                let after = mark.low_after(&BTreeSet::from([picked]));
                mark.done(picked);
                prop_assert_eq!(mark.low(), after);
            }
            prop_assert_eq!(mark.low(), end);
        }
    }
}
