//! Numbers that only look random: the same seed gives the same ones, on every machine.
//!
//! Deliberately absent: secrets; anybody can foretell them.

/// `SplitMix64`, from its seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and nobody iterates over it")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `bound`; 0 if there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// One of `from`, each as likely as the others; `None` if there is none.
    pub fn one_of<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let at = usize::try_from(self.below(from.len() as u64)).ok()?;
        from.get(at)
    }

    /// Puts them in any order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let with = usize::try_from(self.below(last as u64 + 1)).unwrap_or(0);
            all.swap(last, with);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence() {
        let first: Vec<u64> = (0..5).scan(Random(7), |random, _| Some(random.next())).collect();
        let again: Vec<u64> = (0..5).scan(Random(7), |random, _| Some(random.next())).collect();
        let other: Vec<u64> = (0..5).scan(Random(8), |random, _| Some(random.next())).collect();
        assert_eq!(first, again);
        assert_ne!(first, other);
    }

    #[test]
    fn shuffling_loses_nothing_and_moves_something() {
        let mut all: Vec<u32> = (0..100).collect();
        Random(1).shuffle(&mut all);
        assert_ne!(all, (0..100).collect::<Vec<_>>());
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert!((0..100).any(|n| Random(n).one_of(&[1, 2, 3]) == Some(&3)));
        assert_eq!(Random(1).one_of::<u32>(&[]), None);
    }
}
