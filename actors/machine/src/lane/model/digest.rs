//! A state of the lane's model as text, by which two states are one.
//!
//! Invariant: what a later input can meet is in it. Numbers of messages stand for their order, and times
//! count from now. Deliberately absent: numbers of questions and deliveries, and whatever is not looked at
//! any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use super::world::{Pending, State};
use crate::{
    Ask,
    lane::{Batch, Entry, Input, Machine, Number, Slot, plan::InFlight},
};

impl State {
    /// All that will be looked at again, with questions and deliveries numbered by their order, and times
    /// from now.
    pub fn digest(&self) -> String {
        let Self { read, faults, store, bodies, effects, refused, wrong, answered, .. } = self;
        let decided: Vec<_> = self.decided.values().collect();
        let mut text =
            format!("{read} {faults} {store:?} {effects:?} {refused:?} {wrong:?} {bodies:?} {decided:?} {answered:?}");
        self.machine.describe(self.now, &mut text);
        for pending in &self.pending {
            let _ = match pending {
                Pending::Find { ask, claimants, unprepared, wanted } => {
                    let is_awaited = self.machine.awaits_find(*ask);
                    write!(text, " find {is_awaited} {claimants:?} {unprepared:?} {wanted:?}")
                }
                Pending::Elsewhere { messages, .. } => write!(text, " ask {messages:?}"),
                Pending::Decide { messages, .. } => write!(text, " decide {messages:?}"),
                Pending::Commit { ask, fences, effects } => {
                    write!(text, " commit {} {fences:?} {effects:?}", self.machine.awaits_commit(*ask))
                }
                Pending::Ghost { fences, effects } => write!(text, " ghost {fences:?} {effects:?}"),
                Pending::Answered(input) => {
                    let is_awaited = match input {
                        Input::Found { ask, .. } => self.machine.awaits_find(*ask),
                        Input::Committed { ask, .. } => self.machine.awaits_commit(*ask),
                        Input::Due { ask, .. } => self.machine.looks.contains(ask),
                        _ => true,
                    };
                    write!(text, " answered {is_awaited} {input:?}")
                }
                Pending::Retoken { ask, token } => {
                    write!(text, " retoken {} {token:?}", self.machine.awaits_commit(*ask))
                }
                Pending::Compare { ask } => write!(text, " compare {}", self.machine.awaits_commit(*ask)),
                Pending::Look { ask } => write!(text, " look {}", self.machine.looks.contains(ask)),
            };
        }
        renamed(&text.replace(&format!("term: {}", self.term), "term: current"))
    }
}

/// The text with each `Number(n)` by its rank among those in it, and no number of a question or a delivery.
pub(in crate::lane) fn renamed(text: &str) -> String {
    let digits = |after: &str| after.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(after.len());
    let numbers = text.split("Number(").skip(1).filter_map(|after| after[..digits(after)].parse::<u64>().ok());
    let numbers: BTreeSet<u64> = numbers.collect();
    let ranks: BTreeMap<u64, usize> = numbers.into_iter().enumerate().map(|(rank, number)| (number, rank)).collect();
    let mut to = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, name)) =
        ["Number(", "Ask(", "delivery: ", "term: "].iter().filter_map(|name| Some((rest.find(name)?, *name))).min()
    {
        let (before, after) = rest.split_at(at + name.len());
        let digits = digits(after);
        to.push_str(before);
        if name == "Number(" {
            let rank = after[..digits].parse().ok().and_then(|number: u64| ranks.get(&number));
            let _ = write!(to, "{rank:?}");
        }
        rest = &after[digits..];
    }
    to.push_str(rest);
    to
}

impl Machine {
    /// Whether this look-up is the one that the batch waits for.
    fn awaits_find(&self, ask: Ask) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.step.ask == Some(ask))
    }

    /// Whether this answer is awaited about the first plan.
    fn awaits_commit(&self, ask: Ask) -> bool {
        let in_flight = self.plans.front().and_then(|plan| plan.in_flight.as_ref());
        in_flight.is_some_and(|in_flight| in_flight.step.ask == Some(ask))
    }

    /// What a later input can meet, as text. Aggregates stand in it by their keys, whatever their slots are.
    pub(in crate::lane) fn describe(&self, now: Duration, to: &mut String) {
        let in_time = |due: Duration| due.saturating_sub(now);
        let key = |slot: Slot| self.backlog.holds(slot).map(|aggregate| &aggregate.id.key);
        for (number, entry) in self.backlog.entries() {
            let Entry { slot, state, remains, mail, need, claim, message, .. } = entry;
            let (key, state) = (slot.map(key), state.name());
            let failure = message.as_ref().and_then(|message| message.failure.as_ref());
            let is_held = self.is_held(entry.partition, entry.term);
            let _ = write!(
                to,
                "\n{number:?} {key:?} {state} {remains:?} {mail:?} {need:?} {claim:?} {failure:?} {is_held}"
            );
        }
        let slots = self.partitions.keys().flat_map(|partition| self.backlog.slots_of(*partition));
        let aggregates: BTreeMap<_, _> = slots.map(|slot| (key(slot), slot)).collect();
        for (key, slot) in aggregates {
            let queue: Vec<Number> = self.backlog.queue(slot).map(|(number, _)| number).collect();
            let knows_mail = self.backlog.live.knows_mail(slot, self.growth.ended_steps());
            let (waiting, claims) = (self.backlog.live.waiting(slot), self.backlog.live.claims(slot));
            let _ = write!(to, "\n{key:?} {waiting:?} {claims:?} {knows_mail} {queue:?}");
        }
        if let Some(batch) = &self.batch {
            let Batch { messages, phase, step, as_of, open, plain, .. } = batch;
            let cold: BTreeMap<_, _> = batch.cold.iter().map(|(slot, cold)| (key(*slot), cold)).collect();
            let waits: BTreeMap<_, _> = batch.waits.iter().map(|(slot, wait)| (key(*slot), wait)).collect();
            let stale: BTreeSet<_> = batch.stale.iter().map(|slot| key(*slot)).collect();
            let open: Vec<_> = open.values().map(|open| &open.messages).collect();
            let step = (step.ask.is_some(), in_time(step.due));
            let plain = (&plain.parts, &plain.messages, &plain.waiting, &plain.deferred);
            let _ =
                write!(to, "\n{messages:?} {phase:?} {step:?} {as_of} {cold:?} {stale:?} {open:?} {plain:?} {waits:?}");
        }
        for plan in &self.plans {
            let _ = write!(to, "\n{:?} {:?} {:?} {:?}", plan.messages, plan.waiting, plan.deferred, plan.parts);
            if let Some(InFlight { step, phase, is_last, fences }) = &plan.in_flight {
                let step = (step.ask.is_some(), in_time(step.due));
                let _ = write!(to, " {step:?} {phase:?} {is_last} {fences:?}");
            }
        }
        for owned in self.partitions.values() {
            let _ = write!(to, "\n{} {} {:?} {}", owned.batch, owned.outbox_head, owned.marks, owned.is_closing);
            let (moving, outdated) = (owned.moving.is_some(), owned.outdated_until.map(in_time));
            let _ = write!(to, " {:?} {} {} {moving} {outdated:?}", owned.generation, owned.count, owned.is_serving);
        }
        let questions: Vec<_> = self.questions.values().collect();
        let (late, pushed_out, parts) = (&self.late, &self.pushed_out, self.backlog.parts());
        let look = (self.looks.len(), in_time(self.look_due), self.has_decided, self.is_late_due);
        let _ = write!(
            to,
            "\n{questions:?} {late:?} {pushed_out:?} {parts:?} {:?} {look:?} {}",
            self.held,
            self.lingering.len()
        );
    }
}

/// Two states are one if their digests are.
macro_rules! same_by_digest {
    ($state:ty) => {
        impl std::hash::Hash for $state {
            fn hash<H: std::hash::Hasher>(&self, to: &mut H) {
                self.digest().hash(to);
            }
        }

        impl PartialEq for $state {
            fn eq(&self, other: &Self) -> bool {
                self.digest() == other.digest()
            }
        }
    };
}
pub(in crate::lane) use same_by_digest;

same_by_digest!(State);
