//! Commands without end: new orders, a few that live through every build, and repeats of what any build got.
//!
//! Deterministic but for the times inside the ids. Deliberately absent: Kafka, and when it is enough.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use holdfast_load_tests::{
    faults::load::Crowd,
    random::Random,
    work::{Mix, Planned, now_ms},
};

/// New orders in a window, whose commands are interleaved.
const WINDOW: u32 = 40;
/// Orders that live on.
const LONG_LIVED: u32 = 40;
/// Their commands, at most.
const LONG: u32 = 60_000;
/// One command of long-lived orders in this number of records of new orders.
const LONG_EVERY: usize = 2;
/// One repeat in this number.
const REPEAT_EVERY: usize = 6;
/// Repeats in the end, of all that was ever sent.
const LAST_REPEATS: usize = 2_000;

/// How far the load is, and whether it may end.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    orders: Arc<AtomicU32>,
    is_over: Arc<AtomicBool>,
    is_cut: Arc<AtomicBool>,
}

impl Progress {
    /// New orders sent so far.
    pub fn orders(&self) -> u32 {
        self.orders.load(Ordering::Relaxed)
    }

    /// Lets the load end behind the window that is being sent, with repeats of everything.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Lets it end there without them.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }
}

/// The windows of the load.
pub struct Windows {
    seed: u64,
    round: u64,
    random: Random,
    long: std::vec::IntoIter<Planned>,
    /// What was sent, once each, but for bad records: those have no id to be known by.
    past: Vec<Planned>,
    progress: Progress,
    has_ended: bool,
}

impl Windows {
    pub fn new(seed: u64, progress: Progress) -> Self {
        let crowd = Crowd { commands: LONG, orders: LONG_LIVED, hot: 3, repeated: 20, seed, time_ms: now_ms() };
        let long = crowd.records().into_iter();
        Self { seed, round: 0, random: Random(seed), long, past: Vec::new(), progress, has_ended: false }
    }

    fn repeat(&mut self) -> Option<Planned> {
        let again = self.random.one_of(&self.past)?;
        Some(Planned { is_repeat: true, ..again.clone() })
    }

    fn window(&mut self) -> Vec<Planned> {
        self.round += 1;
        let seed = self.seed.wrapping_add(self.round << 40);
        let shares = Mix { unknown_sku: 50, empty: 30, bad: 30, repeated: 50, ..Mix::demo(WINDOW, seed) };
        let mix = Mix { window: WINDOW, ..shares };
        let mut all = Vec::new();
        for (n, record) in mix.windows().flatten().enumerate() {
            all.push(record);
            if n.is_multiple_of(LONG_EVERY) {
                all.extend(self.long.next());
            }
            if n.is_multiple_of(REPEAT_EVERY) {
                all.extend(self.repeat());
            }
        }
        let firsts = all.iter().filter(|record| !record.is_repeat && !is_bad(record)).cloned();
        self.past.extend(firsts);
        self.progress.orders.fetch_add(WINDOW, Ordering::Relaxed);
        all
    }
}

fn is_bad(record: &Planned) -> bool {
    matches!(record.expect, holdfast_load_tests::work::Expect::DeadLetter(_))
}

impl Iterator for Windows {
    type Item = Vec<Planned>;

    fn next(&mut self) -> Option<Vec<Planned>> {
        if self.progress.is_cut.load(Ordering::Relaxed) {
            return None;
        }
        if !self.progress.is_over.load(Ordering::Relaxed) {
            return Some(self.window());
        }
        if std::mem::replace(&mut self.has_ended, true) {
            return None;
        }
        Some((0..LAST_REPEATS).filter_map(|_| self.repeat()).collect())
    }
}
