//! Every command of the ledger has exactly one effect, the expected one (I2, I7), and in the order they were
//! sent (I3).
//!
//! An effect is an event that the command caused, a rejection that a claim keeps, or a dead letter.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{Answer, Breach, ContextEvidence, Report, history::History, report::count};
use crate::{
    producer::{Ledger, Sent},
    work::Expect,
};

/// What became of one message.
#[derive(Default)]
struct Effects<'a> {
    events: usize,
    /// Different claims, and whether one of them was written twice.
    scopes: HashSet<Uuid>,
    claimed_twice: bool,
    applied: usize,
    rejections: Vec<&'a str>,
    /// Dead letters by their ids, and the reason of the last.
    letters: HashSet<&'a str>,
    reason: &'a str,
}

impl Effects<'_> {
    fn number(&self) -> usize {
        self.events + self.rejections.len() + self.letters.len()
    }

    fn words(&self) -> String {
        let mut words = Vec::new();
        if self.events > 0 {
            words.push(format!("{} events", self.events));
        }
        if !self.rejections.is_empty() {
            words.push(format!("rejected {}", self.rejections.join(", ")));
        }
        if !self.letters.is_empty() {
            words.push(format!("{} dead letters {}", self.letters.len(), self.reason));
        }
        if self.applied > 0 {
            words.push("claimed as applied".into());
        }
        if words.is_empty() { "no trace".into() } else { words.join(", ") }
    }
}

pub(super) fn check(ledger: &Ledger, evidence: &ContextEvidence, history: &History<'_>, report: &mut Report) {
    let mut effects: HashMap<Uuid, Effects<'_>> = HashMap::with_capacity(ledger.commands.len());
    let ours = |id: &Uuid| ledger.commands.contains_key(id);
    for id in history.events().filter_map(|event| event.causation).filter(ours) {
        effects.entry(id).or_default().events += 1;
    }
    for claim in evidence.claims.iter().filter(|claim| ours(&claim.id)) {
        let effects = effects.entry(claim.id).or_default();
        effects.claimed_twice |= !effects.scopes.insert(claim.scope);
        match &claim.answer {
            Answer::Applied => effects.applied += 1,
            Answer::Rejected(code) => effects.rejections.push(code),
            Answer::Unreadable => report.breach(Breach::Unexpected, claim.id, "its claim can't be read"),
        }
    }
    let mut letters = HashSet::new();
    for letter in &evidence.dead {
        if letters.insert(letter.letter.as_str()) {
            count(&mut report.dead_letters, &letter.reason);
        }
        if let Some(id) = letter.id.filter(ours) {
            let effects = effects.entry(id).or_default();
            effects.letters.insert(&letter.letter);
            effects.reason = &letter.reason;
        }
    }
    for (id, sent) in &ledger.commands {
        judge(*id, sent, &effects.remove(id).unwrap_or_default(), report);
    }
    bad_records(ledger, evidence, history, report);
    overtaken(ledger, history, report);
}

fn judge(id: Uuid, sent: &Sent, effects: &Effects<'_>, report: &mut Report) {
    let number = effects.number();
    let may_be_idle = matches!(sent.expect, Expect::Nothing | Expect::Whatever);
    if number == 0 && effects.applied > 0 && may_be_idle {
        report.idle += 1;
        if effects.claimed_twice {
            report.breach(Breach::Doubled, id, "claimed twice");
        }
        return;
    }
    if number == 0 {
        report.breach(Breach::Lost, id, format!("sent {} times: {}", sent.copies, effects.words()));
        return;
    }
    if number > 1 || effects.claimed_twice {
        let words = if number > 1 { effects.words() } else { "claimed twice".into() };
        report.breach(Breach::Doubled, id, format!("sent {} times: {words}", sent.copies));
        let extra = (number as u64).saturating_sub(1).min(u64::from(sent.copies.saturating_sub(1)));
        report.repeats_dropped = report.repeats_dropped.saturating_sub(extra);
    }
    if effects.events > 0 {
        report.applied += 1;
        if effects.scopes.is_empty() {
            report.breach(Breach::Unclaimed, id, effects.words());
        }
    }
    for code in &effects.rejections {
        count(&mut report.rejected, code);
    }
    let is_expected = match sent.expect {
        Expect::Event => effects.events > 0,
        Expect::Rejection(code) => effects.rejections.contains(&code),
        Expect::DeadLetter(reason) => !effects.letters.is_empty() && effects.reason == reason,
        Expect::Any | Expect::Whatever => true,
        Expect::Nothing => false,
    };
    if !is_expected {
        report.breach(Breach::Unexpected, id, format!("{:?} was due: {}", sent.expect, effects.words()));
    }
}

/// Each bad record has a key of its own: exactly one dead letter under it, and no event.
fn bad_records(ledger: &Ledger, evidence: &ContextEvidence, history: &History<'_>, report: &mut Report) {
    let mut letters: HashMap<&str, HashMap<&str, &str>> = HashMap::new();
    for letter in evidence.dead.iter().filter(|letter| ledger.bad.contains_key(&letter.key)) {
        letters.entry(&letter.key).or_default().insert(&letter.letter, &letter.reason);
    }
    for (key, reason) in &ledger.bad {
        let found: Vec<&str> = letters.get(key.as_str()).into_iter().flat_map(HashMap::values).copied().collect();
        match found[..] {
            [] => report.breach(Breach::Lost, key, format!("bad record without a dead letter {reason}")),
            [found] if found == *reason => {}
            [found] => report.breach(Breach::Unexpected, key, format!("dead letter {found} where {reason} was due")),
            _ => report.breach(Breach::Doubled, key, format!("{} dead letters", found.len())),
        }
        if history.get("order", key).is_some() {
            report.breach(Breach::Unexpected, key, "a bad record had events");
        }
    }
}

/// Events of one order, by version, were caused by its commands in the order of their first sending.
fn overtaken(ledger: &Ledger, history: &History<'_>, report: &mut Report) {
    for ((_, key), events) in &history.of {
        let mut last = None;
        for event in events.values() {
            let Some(sent) = event.causation.and_then(|id| ledger.commands.get(&id)) else { continue };
            if last.is_some_and(|last| sent.number < last) {
                let what = format!("version {} is by a command sent before that of an earlier version", event.sequence);
                report.breach(Breach::Overtaken, key, what);
            }
            last = last.max(Some(sent.number));
        }
    }
}

/// Events of orders that neither the ledger nor another context explains: calls by gRPC, timers, or another
/// producer.
pub(super) fn caused_by_others(ledger: &Ledger, orders: &History<'_>, others: &[History<'_>], report: &mut Report) {
    let known: HashSet<Uuid> = others.iter().flat_map(History::events).map(|event| event.id).collect();
    let explained = |id: &Uuid| ledger.commands.contains_key(id) || known.contains(id);
    let others = orders.events().filter(|event| !event.causation.as_ref().is_some_and(explained));
    report.caused_by_others = others.count() as u64;
}
