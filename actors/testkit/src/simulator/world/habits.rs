//! What can happen in a step, and how often each does in one run.
//!
//! Deliberately absent: what comes of it.

use std::time::Duration;

use crate::Dice;

/// What can happen in a step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Happening {
    Send,
    SendTheirs,
    Call,
    Read,
    Trouble,
    Grow,
    Assign,
    ArriveLate,
    Fetch,
    Relay,
    PassOn,
    PassTime,
    Answer,
}

/// How a run is, throughout.
#[derive(Debug)]
pub(super) struct Habits {
    weights: Vec<(Happening, u64)>,
    /// What the topics grow to, at most.
    pub grows_to: u32,
    /// How long a lease lasts. A node may be cut off, or stopped, for longer.
    pub lease: Duration,
    /// Whether owners contend for partitions, and little else goes wrong.
    pub is_contended: bool,
    /// Whether time passes to what is due, for the most part.
    pub leaps: bool,
    /// A question hangs once in this many times that something could come of it.
    pub hangs: u64,
    /// A node that wants the counts reads them once in this many times that it could.
    pub hurries: u64,
}

impl Habits {
    pub fn any(dice: &mut Dice) -> Self {
        if dice.one_in(3) {
            return Self::contended(dice);
        }
        let weights = vec![
            (Happening::Send, dice.pick(&[4, 9])),
            (Happening::SendTheirs, dice.pick(&[0, 2, 4])),
            (Happening::Call, dice.pick(&[3, 3, 10])),
            (Happening::Read, dice.pick(&[2, 8])),
            (Happening::Trouble, dice.pick(&[0, 1, 1, 4])),
            (Happening::Grow, dice.pick(&[1, 3])),
            (Happening::Assign, dice.pick(&[1, 4])),
            (Happening::ArriveLate, 2),
            (Happening::Fetch, dice.pick(&[8, 25, 25])),
            (Happening::Relay, dice.pick(&[5, 25])),
            (Happening::PassOn, dice.pick(&[8, 25])),
            (Happening::PassTime, dice.pick(&[1, 4, 7])),
            (Happening::Answer, 70),
        ];
        Self {
            weights,
            grows_to: dice.pick(&[2, 4, 4, 8]),
            lease: Duration::from_secs(1),
            is_contended: false,
            leaps: !dice.one_in(4),
            hangs: dice.pick(&[200, 60, 10]),
            hurries: dice.pick(&[1, 5, 50]),
        }
    }

    /// Partitions move all the time, to and from nodes that are cut off or stopped, and these are read.
    fn contended(dice: &mut Dice) -> Self {
        let weights = vec![
            (Happening::Send, dice.pick(&[1, 3])),
            (Happening::Call, dice.pick(&[6, 15])),
            (Happening::Grow, dice.pick(&[0, 12])),
            (Happening::Read, dice.pick(&[15, 40])),
            (Happening::Trouble, dice.pick(&[2, 5])),
            (Happening::Assign, dice.pick(&[4, 12])),
            (Happening::ArriveLate, 2),
            (Happening::Fetch, 5),
            (Happening::Relay, 10),
            (Happening::PassOn, 25),
            (Happening::PassTime, dice.pick(&[1, 3])),
            (Happening::Answer, 70),
        ];
        Self {
            weights,
            grows_to: dice.pick(&[2, 4]),
            lease: Duration::from_secs(dice.pick(&[1, 5])),
            is_contended: true,
            leaps: dice.one_in(4),
            hangs: dice.pick(&[60, 20]),
            hurries: dice.pick(&[1, 5]),
        }
    }

    /// Nothing new comes, and all of it comes to its end.
    pub fn at_the_end() -> Self {
        let weights = vec![
            (Happening::Grow, 2),
            (Happening::Assign, 4),
            (Happening::ArriveLate, 2),
            (Happening::Fetch, 25),
            (Happening::Relay, 25),
            (Happening::PassOn, 25),
            (Happening::PassTime, 7),
            (Happening::Answer, 70),
        ];
        let lease = Duration::from_secs(1);
        Self { weights, grows_to: 0, lease, is_contended: false, leaps: true, hangs: 60, hurries: 1 }
    }

    pub fn any_happening(&self, dice: &mut Dice) -> Happening {
        let total = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = dice.below(total);
        let is_it = |(_, weight): &&(Happening, u64)| {
            let is_below = at < *weight;
            at = at.saturating_sub(*weight);
            is_below
        };
        let (happening, _) = self.weights.iter().find(is_it).expect("what is below the sum");
        *happening
    }
}
