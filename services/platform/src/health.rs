//! Liveness and readiness as registries of named checks.
//!
//! Invariant: ready means every registered check is ready *and* the process is not leaving; live never
//! depends on anything outside the process, or a broker outage would restart every replica.
//!
//! Deliberately absent: I/O. A check answers from what a loop noted last; it is asked on each probe and must
//! not wait.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use serde::Serialize;

/// What a check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// In order.
    Ok,
    /// Not in order, and why, in words for an operator.
    Not(String),
}

impl Verdict {
    /// In order if `fine`, else the reason.
    pub fn when(fine: bool, otherwise: impl Into<String>) -> Self {
        if fine { Self::Ok } else { Self::Not(otherwise.into()) }
    }
}

type Check = Arc<dyn Fn() -> Verdict + Send + Sync>;

/// The process's health; clones share it.
#[derive(Clone, Default)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    liveness: RwLock<Vec<(String, Check)>>,
    readiness: RwLock<Vec<(String, Check)>>,
    leaving: AtomicBool,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("ready", &self.ready()).field("live", &self.live()).finish()
    }
}

/// The answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every check is in order.
    pub ok: bool,
    /// Each check, in the order of registration.
    pub checks: Vec<Line>,
}

/// One check's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Whether it is in order.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Health {
    /// Nothing to check yet: live and ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a liveness check, such as "orders: the loop moved within 30 s". A name that is taken is replaced.
    pub fn live_when(&self, name: impl Into<String>, check: impl Fn() -> Verdict + Send + Sync + 'static) {
        register(&self.shared.liveness, name.into(), Arc::new(check));
    }

    /// Adds a readiness check, such as "orders: joined the group". A name that is taken is replaced.
    pub fn ready_when(&self, name: impl Into<String>, check: impl Fn() -> Verdict + Send + Sync + 'static) {
        register(&self.shared.readiness, name.into(), Arc::new(check));
    }

    /// From now on unready, for good: the process is leaving.
    pub fn leave(&self) {
        self.shared.leaving.store(true, Ordering::Release);
    }

    /// Liveness now.
    pub fn live(&self) -> Report {
        report(&self.shared.liveness)
    }

    /// Readiness now.
    pub fn ready(&self) -> Report {
        let mut report = report(&self.shared.readiness);
        if self.shared.leaving.load(Ordering::Acquire) {
            report.ok = false;
            report.checks.push(Line {
                name: "shutdown".to_owned(),
                ok: false,
                reason: Some("the process is shutting down".to_owned()),
            });
        }
        report
    }
}

fn register(list: &RwLock<Vec<(String, Check)>>, name: String, check: Check) {
    let mut list = list.write().unwrap_or_else(PoisonError::into_inner);
    match list.iter_mut().find(|(taken, _)| *taken == name) {
        Some((_, old)) => *old = check,
        None => list.push((name, check)),
    }
}

fn report(list: &RwLock<Vec<(String, Check)>>) -> Report {
    let checks: Vec<_> = list.read().unwrap_or_else(PoisonError::into_inner).clone();
    let checks: Vec<Line> = checks
        .into_iter()
        .map(|(name, check)| match check() {
            Verdict::Ok => Line { name, ok: true, reason: None },
            Verdict::Not(reason) => Line { name, ok: false, reason: Some(reason) },
        })
        .collect();
    Report { ok: checks.iter().all(|line| line.ok), checks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_every_check() {
        let health = Health::new();
        assert!(health.ready().ok);
        health.ready_when("db", || Verdict::Ok);
        health.ready_when("group", || Verdict::Not("not joined".into()));
        let report = health.ready();
        assert!(!report.ok);
        assert_eq!(report.checks[1].reason.as_deref(), Some("not joined"));
        health.ready_when("group", || Verdict::Ok);
        assert!(health.ready().ok && health.ready().checks.len() == 2);
    }

    #[test]
    fn leaving_is_unready_but_live() {
        let health = Health::new();
        health.live_when("loop", || Verdict::Ok);
        health.leave();
        assert!(!health.ready().ok && health.live().ok);
    }
}
