//! The invariants of the system, each with an id that code, tests and checkers cite.
//!
//! [`Invariant::check`] always evaluates; a violation is counted and reported through a hook that a process
//! installs once (a metric and an error log in production, a panic in tests). Deliberately absent: any
//! reaction of its own.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// What must hold, whatever fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invariant {
    /// I1: what was acknowledged is in the database.
    Durable,
    /// I2: one effect per message, however often it is delivered; shared quantities conserve exactly.
    Once,
    /// I3: versions are contiguous, and events are published in version order (first occurrences).
    Order,
    /// I4: only the current owner of a partition commits to it.
    OneOwner,
    /// I5: a strong read of one aggregate is linearizable.
    TruthfulReads,
    /// I6: a poisoned or waiting aggregate slows nobody else.
    Isolation,
    /// I7: every consumed offset is applied, a repeat, dead-lettered or in a durable mailbox.
    NothingVanishes,
    /// I8: after faults heal, outbox, database, topic and actors agree.
    Convergence,
    /// I9: a test of these fails on a sabotaged build.
    NoVacuousProof,
    /// I10: never two different events at one version of an aggregate.
    OneHistory,
    /// I11: memory is bounded under any input rate.
    Bounded,
}

impl Invariant {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::Durable,
        Self::Once,
        Self::Order,
        Self::OneOwner,
        Self::TruthfulReads,
        Self::Isolation,
        Self::NothingVanishes,
        Self::Convergence,
        Self::NoVacuousProof,
        Self::OneHistory,
        Self::Bounded,
    ];

    /// `I1` to `I11`.
    pub const fn id(self) -> &'static str {
        ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11"][self as usize]
    }

    /// Reports a violation if `holds` is false; returns `holds`.
    pub fn check(self, holds: bool, detail: impl FnOnce() -> String) -> bool {
        if !holds {
            VIOLATIONS[self as usize].fetch_add(1, Ordering::Relaxed);
            if let Some(report) = REPORT.get() {
                report(self, &detail());
            }
        }
        holds
    }

    /// How often this one was violated in this process.
    pub fn violations(self) -> u64 {
        VIOLATIONS[self as usize].load(Ordering::Relaxed)
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

type Report = fn(Invariant, &str);
static REPORT: OnceLock<Report> = OnceLock::new();
static VIOLATIONS: [AtomicU64; 11] = [const { AtomicU64::new(0) }; 11];

/// Installs what happens on a violation. The first call wins.
pub fn on_violation(report: Report) {
    let _ = REPORT.set(report);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_order_and_violations_are_counted() {
        for (n, invariant) in Invariant::ALL.iter().enumerate() {
            assert_eq!(invariant.id(), format!("I{}", n + 1));
        }
        let before = Invariant::Bounded.violations();
        assert!(Invariant::Bounded.check(true, String::new));
        assert!(!Invariant::Bounded.check(false, || "too much".into()));
        assert_eq!(Invariant::Bounded.violations(), before + 1);
    }
}
