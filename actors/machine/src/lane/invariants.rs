//! Invariants of a lane's machine, checked while it runs.
//!
//! Each check names the invariant that its violation would break. The cheap ones are made in production where
//! they can fail first, and a violation is reported, never mended ([`Report::Violated`]). [`Machine::audit`]
//! compares everything with everything, for tests and simulation. Deliberately absent: I9, which is about
//! tests; what only the store or the log can tell; any reaction.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::{PartitionId, invariant::Invariant};

use super::{
    Action, Machine, Owned, Report,
    batch::Phase,
    message::{Number, State},
};

/// What is wrong, by the invariant that it breaks.
pub type Violations = Vec<(Invariant, String)>;

/// Reports a violation, unless it `holds`.
pub(super) fn check(invariant: Invariant, holds: bool, detail: impl FnOnce() -> String, actions: &mut Vec<Action>) {
    if !holds {
        actions.push(Action::Report(Report::Violated(invariant, detail())));
    }
}

impl Machine {
    /// I8: a lane that waits for nothing leaves nothing that is ready.
    pub(super) fn check_turn(&self, actions: &mut Vec<Action>) {
        let is_idle = self.batch.is_none() && self.plans.is_empty();
        let what = || "messages are ready, and nothing is begun with them".to_owned();
        check(Invariant::Convergence, !(is_idle && self.backlog.has_ready()), what, actions);
    }

    /// Compares everything with everything.
    pub fn audit(&self) -> Violations {
        let mut violations = self.backlog.audit();
        self.audit_places(&mut violations);
        for (partition, owned) in self.partitions.iter().filter(|(_, owned)| !owned.is_closing) {
            self.audit_marks(*partition, owned, &mut violations);
            self.audit_actors(*partition, owned, &mut violations);
        }
        violations
    }

    /// I7: each message is where its state says, and nowhere else; I4: only what is being committed outlives
    /// its ownership.
    fn audit_places(&self, violations: &mut Violations) {
        let mut places: BTreeMap<Number, &'static str> = BTreeMap::new();
        let plans = self.plans.iter().chain(self.batch.iter().flat_map(|batch| [&batch.plain, &batch.conditional]));
        for number in plans.flat_map(|plan| &plan.messages) {
            if let Some(other) = places.insert(*number, "Committing") {
                violations.push((Invariant::Once, format!("{number:?} is in a plan, and {other}")));
            }
        }
        if let Some(batch) = &self.batch {
            let deciding = batch.open.values().flat_map(|open| &open.messages).map(|number| (*number, "Deciding"));
            let gathered = batch.messages.iter().filter(|_| batch.phase != Phase::Deciding);
            let looked_up = gathered.map(|number| (*number, "LookingUp"));
            places.extend(deciding.chain(looked_up));
        }
        for number in self.questions.values().flatten() {
            places.insert(*number, "Asking");
        }
        places.extend(self.late.keys().map(|number| (*number, "Late")));
        places.extend(self.held.values().flatten().map(|number| (*number, "Held")));
        for (number, entry) in self.backlog.entries() {
            let state = entry.state.name();
            if entry.state != State::Ready && places.get(&number) != Some(&state) {
                let place = places.get(&number).copied().unwrap_or("nowhere");
                violations.push((Invariant::NothingVanishes, format!("{number:?} is {state}, and {place}")));
            }
            if entry.state != State::Committing && !self.is_held(entry.partition, entry.term) {
                let detail = format!("{number:?} is {state} under an ownership of {} that has ended", entry.partition);
                violations.push((Invariant::OneOwner, detail));
            }
        }
    }

    /// I7: an offset is unfinished as long as its message is here, and no longer.
    fn audit_marks(&self, partition: PartitionId, owned: &Owned, violations: &mut Violations) {
        let mut here: BTreeSet<(&str, u64)> = BTreeSet::new();
        for (_, entry) in self.backlog.entries() {
            if entry.partition == partition
                && entry.term == owned.term
                && let Some((topic, offset)) = &entry.place
            {
                here.insert((topic, *offset));
            }
        }
        let marks = owned.marks.iter();
        let unfinished: BTreeSet<(&str, u64)> =
            marks.flat_map(|(topic, mark)| mark.unfinished().map(move |offset| (&**topic, offset))).collect();
        if let Some((topic, offset)) = here.symmetric_difference(&unfinished).next() {
            let detail = format!("offset {offset} of {topic}-{partition} is unfinished or here, and not both");
            violations.push((Invariant::NothingVanishes, detail));
        }
    }

    /// I5: an actor is in memory only at its home.
    fn audit_actors(&self, partition: PartitionId, owned: &Owned, violations: &mut Violations) {
        for slot in self.backlog.slots_of(partition) {
            let aggregate = self.backlog.aggregate(slot);
            if self.backlog.live.contains(slot) && !owned.is_home(partition, aggregate.hash) {
                let detail =
                    format!("the actor of {} is in memory at {partition}, which is not its home", aggregate.id);
                violations.push((Invariant::TruthfulReads, detail));
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{sync::Arc, time::Duration};

    use holdfast_core::{
        AggregateId, KeyHash,
        epoch::{Generation, Token},
        growth::Growth,
        retry::RetryPolicy,
        ring::Ring,
    };

    use uuid::Uuid;

    use super::*;
    use crate::{
        Now, Rules,
        lane::{Arrival, Content, Disposal, Input, Message, Origin, Own, Settings, plan::Plan},
    };

    const P: PartitionId = PartitionId(0);
    pub(in crate::lane) const N: Number = Number(1);

    pub(in crate::lane) fn growth() -> Growth {
        Growth { generations: BTreeMap::from([(Generation(1), 1)]), ..Growth::default() }
    }

    /// A lane that serves one partition, with one record that is ready.
    pub(in crate::lane) fn machine() -> Machine {
        let settings = Settings {
            batch_items_max: 8,
            retry: RetryPolicy::default(),
            poll_every: Duration::from_secs(1),
            passivate_after: Duration::from_mins(1),
            live_max: 8,
            ring_max: Ring::CLAIMS_MAX,
            rules: Rules::SOUND,
        };
        let mut machine = Machine::new(settings, Arc::new(growth()));
        let own = Own {
            partition: P,
            term: 1,
            token: Token(Uuid::nil()),
            generation: Generation(1),
            count: 1,
            is_serving: true,
            batch: 0,
            outbox_head: 0,
        };
        let aggregate = AggregateId { kind: "counter", key: "a".into() };
        let hash = KeyHash::of(b"a");
        let origin = Origin::Log(("t".into(), 5));
        let message = Message { aggregate, hash, origin, fingerprint: None, seed: 0, failure: None };
        let arrival = Arrival { number: N, partition: P, term: 1, content: Content::Message(message) };
        for input in [Input::Own(own), Input::Arrived(arrival)] {
            machine.handle(input, Now::default(), &mut Vec::new());
        }
        assert_eq!(machine.audit(), []);
        machine
    }

    fn audited(harm: impl FnOnce(&mut Machine)) -> BTreeSet<&'static str> {
        let mut machine = machine();
        harm(&mut machine);
        machine.audit().into_iter().map(|(invariant, _)| invariant.id()).collect()
    }

    #[test]
    fn audit_finds_what_was_broken() {
        let slot = |machine: &Machine| machine.backlog.get(N).unwrap().slot.unwrap();
        assert_eq!(
            audited(|machine| machine.backlog.get_mut(N).unwrap().state = State::Late { keeps_back: false }),
            ["I3", "I6", "I7"].into()
        );
        assert_eq!(audited(|machine| machine.backlog.set(N, State::Held)), ["I7"].into());
        assert_eq!(audited(|machine| _ = machine.partitions.remove(&P)), ["I4"].into());
        assert_eq!(audited(|machine| machine.partitions.get_mut(&P).unwrap().marks.clear()), ["I7"].into());
        assert_eq!(audited(|machine| _ = machine.backlog.remove(N)), ["I7"].into());
        let twice = audited(|machine| {
            for _ in 0..2 {
                let mut plan = Plan::default();
                plan.dispose(N, Disposal::Repeat, &mut machine.backlog);
                machine.plans.push_back(plan);
            }
        });
        assert_eq!(twice, ["I2"].into());
        let strayed = audited(|machine| {
            let slot = slot(machine);
            machine.backlog.live.touch(slot, Duration::ZERO, 0, Default::default);
            let hash = machine.backlog.aggregate(slot).hash;
            machine.partitions.get_mut(&P).unwrap().count = (2..100).find(|count| hash.home(*count) != P).unwrap();
        });
        assert_eq!(strayed, ["I5"].into());
    }

    #[test]
    fn lane_that_stands_still_with_work_is_reported() {
        let (machine, mut actions) = (machine(), Vec::new());
        machine.check_turn(&mut actions);
        assert!(matches!(actions[..], [Action::Report(Report::Violated(Invariant::Convergence, _))]), "{actions:?}");
    }

    #[test]
    fn offset_noted_too_early_is_reported() {
        let (mut machine, mut actions) = (machine(), Vec::new());
        let mut plan = Plan::default();
        plan.add(N, &mut machine.backlog);
        machine.check_note(&plan, P, "t", 5, &mut actions);
        assert!(actions.is_empty(), "5 is the first that is not done");
        machine.check_note(&plan, P, "t", 6, &mut actions);
        assert!(
            matches!(actions[..], [Action::Report(Report::Violated(Invariant::NothingVanishes, _))]),
            "{actions:?}"
        );
    }
}
