//! The ways in which the simulator fails, and its dice.

use std::hash::{Hash, Hasher};

/// One way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// 402 with a decline code.
    Declined,
    /// 402 without one.
    PaymentRequired,
    /// 409: another request with this key is said to be under way.
    Conflict,
    /// 429 with `Retry-After`.
    RateLimited,
    /// 500, nothing happened, and nothing is stored.
    FailsUnstored,
    /// 500, nothing happened, and that is stored for the key.
    FailsBefore,
    /// It happens, and 500 is stored for the key.
    FailsAfter,
    /// No answer, and nothing happened.
    TimeoutBefore,
    /// It happens, and there is no answer.
    TimeoutAfter,
    /// No answer; it happens a while after the caller has given up.
    Late,
    /// It happens, and the answer is cut off.
    Malformed,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Declined,
        Self::PaymentRequired,
        Self::Conflict,
        Self::RateLimited,
        Self::FailsUnstored,
        Self::FailsBefore,
        Self::FailsAfter,
        Self::TimeoutBefore,
        Self::TimeoutAfter,
        Self::Late,
        Self::Malformed,
    ];

    /// Those that leave no mark in the ledger, so that they can also strike a question, or an answer that is
    /// repeated.
    pub(super) const HARMLESS: [Self; 5] =
        [Self::Conflict, Self::RateLimited, Self::FailsUnstored, Self::TimeoutBefore, Self::Malformed];

    /// Whether a request that fails so keeps its key, since it comes to something.
    pub(super) const fn keeps_key(self) -> bool {
        !matches!(self, Self::Conflict | Self::RateLimited | Self::FailsUnstored | Self::TimeoutBefore)
    }

    /// Its name in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Declined => "declined",
            Self::PaymentRequired => "payment_required",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate_limited",
            Self::FailsUnstored => "fails_unstored",
            Self::FailsBefore => "fails_before",
            Self::FailsAfter => "fails_after",
            Self::TimeoutBefore => "timeout_before",
            Self::TimeoutAfter => "timeout_after",
            Self::Late => "late",
            Self::Malformed => "malformed",
        }
    }
}

/// How often it fails, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    /// Never.
    #[default]
    None,
    /// A share of all requests fails, in all ways alike.
    Random {
        /// Of 1,000.
        per_mille: u32,
    },
    /// For each thing that is asked for, the first requests fail in this way; repeats and questions don't.
    First {
        /// How.
        fault: Fault,
        /// How many of them.
        times: u64,
    },
}

/// What is decided by chance: by a hash over the seed and what it is about, so that it is the same in every
/// run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dice {
    seed: u64,
}

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// A number below `sides`, which is not 0.
    pub(super) fn roll(self, about: &impl Hash, sides: u64) -> u64 {
        let mut hash = Mixed(self.seed ^ 0x9e37_79b9_7f4a_7c15);
        about.hash(&mut hash);
        hash.finish() % sides.max(1)
    }

    pub(super) fn strikes(self, about: &impl Hash, per_mille: u32) -> bool {
        self.roll(&("strikes", about), 1_000) < u64::from(per_mille)
    }
}

/// A hash that is the same in every build.
struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Plan {
    /// How the `nth` request about `subject`, from 0, fails, if it does.
    pub(super) fn strikes_new(&self, dice: Dice, subject: &str, nth: u64) -> Option<Fault> {
        match self {
            Self::None => None,
            Self::First { fault, times } => (nth < *times).then_some(*fault),
            Self::Random { per_mille } => random(dice, subject, nth, *per_mille, &Fault::ALL),
        }
    }

    /// The same for a question, and for an answer that is repeated.
    pub(super) fn strikes_known(&self, dice: Dice, subject: &str, nth: u64) -> Option<Fault> {
        match self {
            Self::None | Self::First { .. } => None,
            Self::Random { per_mille } => random(dice, subject, nth, *per_mille, &Fault::HARMLESS),
        }
    }
}

fn random(dice: Dice, subject: &str, nth: u64, per_mille: u32, ways: &[Fault]) -> Option<Fault> {
    let sides = u64::try_from(ways.len()).unwrap_or(u64::MAX);
    let way = usize::try_from(dice.roll(&("way", subject, nth), sides)).unwrap_or_default();
    dice.strikes(&(subject, nth), per_mille).then(|| ways.get(way).copied()).flatten()
}
