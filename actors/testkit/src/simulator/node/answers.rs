//! What a node's questions are answered, and what its actors decide.
//!
//! Deliberately absent: when a question takes effect, and what becomes of an answer.

use std::{collections::BTreeSet, sync::Arc};

use holdfast_core::{
    AggregateId, KeyHash, PartitionId,
    dedup::{Answer as Known, Claim, ClaimKey, Fingerprint},
    disposition::DeadLetterReason,
    epoch::Token,
    growth::{Act, Topics},
    port::store::{CommitError, StoreError, Wanted},
    ring::Ring,
};
use holdfast_machine::{
    Ask,
    lane::{
        Arrival, Claims, Content, Delivery, Disposal, Failure, Found, Input, Mail, Number, Origin, Part, Stored,
        Verdict,
    },
};

use super::{
    Node, fingerprint,
    kept::{Body, Decided, Said},
    message,
};
use crate::simulator::{
    Fault, Letter, Nature, PRODUCERS_MAX_AGE, Sabotage,
    log::{COMMANDS, OUTPUTS},
    question::{Answer, Asked, Question},
    store::{Store, Timer, Write},
    surroundings::Surroundings,
};

pub(super) fn away() -> StoreError {
    StoreError::Unavailable("away".into())
}

impl Node {
    /// A question takes effect: what its answer will be.
    pub fn take_effect(&mut self, asked: &Asked, around: &mut Surroundings) -> Answer {
        let input = match &asked.question {
            Question::Own(action) => return self.own_takes_effect(action, around),
            Question::Measure { input, term, ask, partitions } => {
                return Self::measure(*input, *term, *ask, partitions, around);
            }
            Question::Count if around.fails(Fault::CountFailed) => return Answer::NotCounted,
            Question::Count => return self.read_counts(around),
            Question::Act(act) => return Self::act(act, around),
            Question::Attempt { partition, term, key, effect } => {
                return self.attempt(*partition, *term, key, *effect, around);
            }
            Question::Find { ask, .. } if around.fails(Fault::FindFailed) => {
                Input::Found { ask: *ask, found: Err(away()) }
            }
            Question::Find { ask, wanted, claimants, unprepared } => {
                let counts = self.memory.finding == Some(*ask);
                let found = self.found(wanted, claimants, unprepared, counts, around);
                Input::Found { ask: *ask, found: Ok(found) }
            }
            Question::Ask { ask, messages } => {
                let failed = messages.iter().filter(|_| {
                    let fails = around.dice.one_in(3);
                    around.faults.inject(Fault::AskFailed, fails)
                });
                let failures = failed.map(|number| (*number, Failure::LookUp("away".into()))).collect();
                Input::Asked { ask: *ask, failures }
            }
            Question::Decide { delivery, term } => {
                let dies = around.dice.one_in(150);
                if around.faults.inject(Fault::SupervisorDied, dies) {
                    Input::SupervisorDied { partition: delivery.partition, term: *term }
                } else {
                    Input::Decided(self.decide(delivery, *term))
                }
            }
            Question::Commit { .. } => self.commit_takes_effect(&asked.question, around),
            Question::Compare { ask } => {
                let rows = if around.fails(Fault::CompareFailed) { Err(away()) } else { Ok(around.store.rows()) };
                Input::Compared { ask: *ask, rows }
            }
            Question::Retoken { ask, held } => {
                let fails = around.fails(Fault::RetokenFailed);
                let takes_effect = !fails || !around.is_away() && around.dice.one_in(2);
                let rows = takes_effect.then(|| around.store.retoken(held, &mut around.dice));
                for row in rows.iter().flatten() {
                    self.add_token(row.partition, row.token);
                }
                Input::Retokened { ask: *ask, rows: rows.filter(|_| !fails) }
            }
            Question::Acknowledge { ask, partition, token, generation } => {
                let fails = around.fails(Fault::AcknowledgeFailed);
                let takes_effect = !fails || !around.is_away() && around.dice.one_in(2);
                let row = takes_effect.then(|| around.store.acknowledge(*partition, *token, *generation));
                Input::Acknowledged { ask: *ask, row: if fails { Err(away()) } else { row.ok_or_else(away) } }
            }
            Question::Look { ask, .. } if around.fails(Fault::LookFailed) => Input::Due { ask: *ask, due: Vec::new() },
            Question::Look { ask, partitions, count } => self.look(*ask, partitions, *count, around),
        };
        Answer::Lane(input)
    }

    /// A token is known here before the store knows it.
    fn add_token(&mut self, partition: PartitionId, token: Option<Token>) {
        let Some(owned) = self.owned.get_mut(&partition) else { return };
        owned.tokens.extend(token);
        if let Some(held) = self.held.get_mut(&partition).filter(|held| held.term == owned.term) {
            held.tokens.extend(token);
        }
    }

    fn commit_takes_effect(&mut self, question: &Question, around: &mut Surroundings) -> Input {
        let Question::Commit { ask, fences, writes, parts } = question else { unreachable!("a commit") };
        let (ill, now, mut violations) = (around.dice.below(30), around.now, Vec::new());
        let result = if around.is_away() || around.faults.inject(Fault::Unavailable, ill == 3) {
            Err(CommitError::Unavailable("away".into()))
        } else if around.faults.inject(Fault::LostBefore, ill == 0) {
            Err(CommitError::Unknown("lost before it took effect".into()))
        } else if around.faults.inject(Fault::LostAfter, ill == 1) {
            let _ = around.store.commit(fences, writes, now, &mut violations);
            Err(CommitError::Unknown("lost after it took effect".into()))
        } else if around.faults.inject(Fault::Slow, ill == 2) {
            Err(CommitError::Slow("slow".into()))
        } else {
            around.store.commit(fences, writes, now, &mut violations)
        };
        around.fail_all(violations);
        self.in_flight.has_happened = result.is_ok();
        let result = result.map(|mut committed| {
            let is_granted = |place: &Option<usize>| {
                place.is_none_or(|place| committed.granted.get(place).copied().unwrap_or(false))
            };
            committed.granted = parts.iter().map(is_granted).collect();
            self.in_flight.heads = committed.heads.clone();
            committed
        });
        Input::Committed { ask: *ask, result }
    }

    /// What is due in the store: mail and timers arrive, effects are attempted.
    fn look(&mut self, ask: Ask, partitions: &[(PartitionId, u64)], count: u32, around: &mut Surroundings) -> Input {
        let now = around.now;
        let home = |key: &str| {
            let home = KeyHash::of(key.as_bytes()).home(count);
            partitions.iter().find(|(partition, _)| *partition == home).copied()
        };
        let is_here = |key: &str| home(key).is_some();
        let mut due = Vec::new();
        for (position, row) in around.store.due_mail(is_here, self.mail_max, now) {
            let Some((partition, term)) = home(&row.letter.key) else { continue };
            let waited = (now + around.store.is_ahead).saturating_sub(row.since);
            let mail = Mail { position, attempts: row.attempts, waited };
            let content = Content::Message(message(&row.letter, Origin::Mail(mail)));
            let (number, body) = self.keep(partition, term, Some(row.letter));
            body.mail = Some((position, row.attempts));
            due.push(Arrival { number, partition, term, content });
        }
        for (key, serial) in around.store.due_timers(is_here, now) {
            let Some((partition, term)) = home(&key) else { continue };
            let letter = Letter::firing(key, serial);
            let content = Content::Message(message(&letter, Origin::Timer { name: "timer".to_owned() }));
            let (number, body) = self.keep(partition, term, Some(letter));
            body.firing = Some(serial);
            due.push(Arrival { number, partition, term, content });
        }
        for (key, effect) in around.store.due_effects(is_here, now) {
            let Some((partition, term)) = home(&key) else { continue };
            around.ask(self.number, Question::Attempt { partition, term, key, effect });
        }
        Input::Due { ask, due }
    }

    /// An attempt at an effect ends, with an outcome or without.
    fn attempt(
        &mut self,
        partition: PartitionId,
        term: u64,
        key: &Arc<str>,
        effect: u64,
        around: &mut Surroundings,
    ) -> Answer {
        if !around.store.has_intended(key, effect) {
            around.fail("I1", format!("{effect} is attempted for {key}, and not intended"));
        }
        let fails = around.dice.one_in(3);
        if around.faults.inject(Fault::AttemptFailed, fails) {
            let after = around.dice.millis(500);
            around.store.put_off_effect(effect, around.now, after);
            return Answer::Nothing;
        }
        let letter = Letter::end_of(key.clone(), effect);
        let content = Content::Message(message(&letter, Origin::Effect));
        let (number, body) = self.keep(partition, term, Some(letter));
        body.is_end = true;
        Answer::Lane(Input::Arrived(Arrival { number, partition, term, content }))
    }

    /// The counts as they are, and what this node will do about them.
    fn read_counts(&self, around: &Surroundings) -> Answer {
        let growth = around.store.growth(around.now);
        let topics = Topics { commands: COMMANDS, outputs: OUTPUTS };
        let mut acts = growth.next(topics, &around.log.counts(), PRODUCERS_MAX_AGE);
        if !self.setup.rules.transition_ends_when_consumed {
            for (topic, counts) in &growth.topics {
                let old = counts.steps.iter().filter(|step| step.age >= PRODUCERS_MAX_AGE && !step.ended);
                acts.extend(old.map(|step| Act::End { topic: topic.clone(), count: step.count }));
            }
        }
        Answer::Counts(Arc::new(growth), acts)
    }

    fn act(act: &Act, around: &mut Surroundings) -> Answer {
        if around.is_away() {
            return Answer::Nothing;
        }
        let (store, log) = (&mut around.store, &around.log);
        match act {
            Act::Note { topic, count } => store.note_count(topic, *count, around.now),
            Act::Bump { from, count } => store.bump(*from, *count),
            Act::Measure { topic, count } => {
                let topic = log.name(topic);
                let ends = (0..log.count(topic)).map(|n| log.end((topic, PartitionId(n)))).collect();
                store.note_ends(topic, *count, ends);
            }
            Act::End { topic, count } => store.end_transition(topic, *count),
        }
        Answer::Nothing
    }

    fn found(
        &mut self,
        wanted: &[Wanted],
        claimants: &[Number],
        unprepared: &[Number],
        counts: bool,
        around: &mut Surroundings,
    ) -> Found {
        if counts {
            self.memory.cold.clear();
        }
        let forgets_spills = self.setup.sabotage == Some(Sabotage::ForgetsSpills);
        let claims_of = |store: &Store, id: &AggregateId| {
            let claims = store.claims_of(&id.key);
            Claims { has_spilled: claims.has_spilled && !forgets_spills, ..claims }
        };
        let mut found = Found::default();
        for Wanted { id, state, .. } in wanted {
            if !state {
                found.aggregates.push(Stored::default());
                continue;
            }
            let is_ill = around.dice.one_in(400);
            let (waiting, mut claims) = (around.store.waiting(&id.key), claims_of(&around.store, id));
            if self.setup.sabotage == Some(Sabotage::ForgetsRings) {
                claims.ring = Ring::default();
            }
            if around.faults.inject(Fault::Unreadable, is_ill) {
                let unusable = Some(Failure::Unreadable("of another build".into()));
                found.aggregates.push(Stored { unusable, waiting, claims });
                continue;
            }
            let state = around.store.aggregates.get(&id.key).cloned().unwrap_or_default();
            if counts {
                self.memory.cold.insert(id.key.clone(), state);
            }
            found.aggregates.push(Stored { unusable: None, waiting, claims });
        }
        let letter = |number: &Number| self.bodies.get(number).and_then(|body| body.letter.as_ref());
        // With a state claims are looked for only if it says that there may be some.
        let mut asked: BTreeSet<ClaimKey> = BTreeSet::new();
        for Wanted { id, state, claims } in wanted {
            let Claims { ring, has_spilled } = claims_of(&around.store, id);
            asked.extend(claims.iter().filter(|key| !state || has_spilled || ring.is_elsewhere(key)));
        }
        for number in claimants {
            let claim = letter(number).filter(|letter| asked.contains(&fingerprint(letter).key));
            let claim = claim.and_then(|letter| around.store.pushed_out.get(&letter.id));
            found.claims.extend(claim.map(|claim| (*number, Ok(claim.clone()))));
        }
        for number in unprepared {
            if letter(number).is_some_and(|letter| letter.nature == Nature::NeedsLookUp) {
                found.needs.push((*number, Ok("prices")));
            }
        }
        found
    }

    /// What a plan writes.
    pub(super) fn write(&mut self, parts: Vec<Part>) -> (Vec<Write>, Vec<Option<usize>>) {
        let (mut writes, mut places) = (Vec::new(), Vec::new());
        for part in parts {
            places.push(Some(writes.len()));
            match part {
                Part::Decided { delivery, messages, claims } => {
                    let Some(decided) = self.memory.decided.get_mut(&delivery) else {
                        places.pop();
                        places.push(None);
                        continue;
                    };
                    let empty = || Write::new(decided.partition, decided.place.1.clone());
                    let mut write = decided.write.clone().unwrap_or_else(empty);
                    let is_refusal = write.applied.as_ref().is_some_and(|(_, applied)| applied.is_empty());
                    let is_forgotten = is_refusal && self.setup.sabotage == Some(Sabotage::ForgetsRefusals);
                    write.kept = decided.write.as_ref().filter(|_| !is_forgotten).map(|_| claims);
                    for number in messages {
                        let mail = self.bodies.get(&number).and_then(|body| body.mail);
                        write.removed.extend(mail.map(|(position, _)| position));
                    }
                    writes.push(write);
                }
                Part::Disposed { message, disposal } => {
                    writes.extend(self.bodies.get(&message).and_then(|body| dispose(body, disposal)));
                }
            }
        }
        (writes, places)
    }

    /// What an actor makes of its messages.
    fn decide(&mut self, delivery: &Delivery, term: u64) -> Verdict {
        let (key, partition) = (delivery.aggregate.key.clone(), delivery.partition);
        let place = (term, key.clone());
        let state = self.memory.actors.get(&place).cloned().unwrap_or_default();
        let mut write = Write::new(partition, key);
        let (mut after, mut decided, mut failed) = (state.clone(), 0, None);
        let (mut callers, mut refused, mut is_changed) = (Vec::new(), None, false);
        for number in &delivery.messages {
            let Some(Body { letter: Some(letter), mail, is_call, firing, is_end, .. }) = self.bodies.get(number) else {
                break;
            };
            let attempts = mail.map_or(0, |(_, attempts)| attempts);
            let fails = match letter.nature {
                Nature::Poison => true,
                Nature::Flaky(times) => attempts < times && !is_call,
                _ => false,
            };
            if fails {
                failed = Some(Failure::Handler("it fails".into()));
                break;
            }
            if letter.nature == Nature::TooLarge && after.len() % 2 == 1 && !after.contains(&letter.id) {
                failed = Some(Failure::TooLarge("more than its topic takes".into()));
                break;
            }
            decided += 1;
            // An event that a later one has passed, the end of an effect that has ended, the firing of a
            // timer that a message before it has set again.
            let is_repeat = letter.is_event() && after.iter().any(|id| letter.is_passed_by(*id))
                || *is_end && after.contains(&letter.id)
                || firing.is_some() && write.timers.iter().any(|timer| matches!(timer, Timer::Set(_)));
            write.ended.extend(is_end.then(|| letter.effect()));
            is_changed |= !is_repeat || *is_end;
            if is_repeat {
                continue;
            }
            write.timers.extend(firing.map(Timer::Fired));
            let said = match letter.nature {
                Nature::Rejected => Said::Rejected,
                Nature::Conditional => Said::AppliedIfGranted,
                _ => Said::Applied,
            };
            callers.extend(is_call.then_some((*number, said)));
            write.claims.extend(letter.is_claimed().then_some((letter.id, said != Said::Rejected)));
            write.is_refused |= letter.nature == Nature::Refused;
            match letter.nature {
                Nature::Rejected => {}
                Nature::Conditional => {
                    refused = Some(after.clone());
                    after.push(letter.id);
                    break;
                }
                Nature::SetsTimer(after_this) => {
                    write.timers.retain(|timer| !matches!(timer, Timer::Set(_)));
                    write.timers.push(Timer::Set(after_this));
                    after.push(letter.id);
                }
                Nature::Intends => {
                    write.intended.push(letter.id);
                    after.push(letter.id);
                }
                _ => after.push(letter.id),
            }
        }
        let version = state.len();
        let is_conditional = refused.is_some();
        let after_refused = refused.unwrap_or_else(|| after.clone());
        write.applied = Some((version as u64, after[version..].to_vec()));
        write.refused = is_conditional.then(|| after_refused[version..].to_vec());
        let sets = write.timers.iter().any(|timer| matches!(timer, Timer::Set(_)));
        let timers = if sets { vec!["timer".to_owned()] } else { Vec::new() };
        let intended = write.intended.clone();
        // A version that says which answer it was.
        let claim = |(id, is_applied): (u64, bool)| {
            let Fingerprint { key, body } =
                fingerprint(&Letter { id, ..Letter::end_of(delivery.aggregate.key.clone(), 0) });
            // Some are too long for a ring.
            let reply = vec![0; if id % 3 == 0 { 200 } else { 0 }].into();
            Claim { key, body, answer: Known::Applied { version: u64::from(is_applied), reply } }
        };
        let claims: Vec<Claim> = write.claims.iter().copied().map(claim).collect();
        let mut if_refused = if is_conditional { claims.clone() } else { Vec::new() };
        if let (Some(last), Some((id, _))) = (if_refused.last_mut(), write.claims.last()) {
            *last = claim((*id, false));
        }
        let write = is_changed.then_some(write);
        self.memory.decided.insert(
            delivery.delivery,
            Decided { place, partition, after, after_refused, write, callers, intended, has_advanced: false },
        );
        Verdict {
            delivery: delivery.delivery,
            decided,
            is_changed,
            is_conditional,
            timers: [timers.clone(), timers],
            claims: [claims, if_refused],
            failed,
            is_unreadable: false,
        }
    }
}

/// What becomes of a message that no actor has decided.
fn dispose(body: &Body, disposal: Disposal) -> Option<Write> {
    let letter = body.letter.as_ref()?;
    let mut write = Write::new(body.partition, letter.key.clone());
    let keeps_mail = matches!(disposal, Disposal::Put { .. } | Disposal::Defer { .. });
    write.removed.extend(body.mail.map(|(position, _)| position).filter(|_| !keeps_mail));
    write.is_refused = letter.nature == Nature::Refused;
    match disposal {
        Disposal::Put { attempts, after, .. } => {
            write.put = Some((letter.clone(), attempts, after.unwrap_or_default()));
            write.source = body.source();
        }
        Disposal::Defer { attempts, after, .. } => {
            write.deferred = body.mail.map(|(position, _)| (position, attempts, after));
        }
        Disposal::Dead { reason, .. } => {
            (write.dead, write.source) = (Some(letter.id), body.source());
            write.is_refused &= reason != DeadLetterReason::UnknownType;
        }
        Disposal::Refuse => (write.dead, write.source) = (Some(letter.id), body.source()),
        Disposal::Unfiled { .. } => {
            (write.dead, write.source) = (Some(letter.id), body.source());
            write.is_refused = false;
        }
        Disposal::Repeat => write.is_refused = false,
        Disposal::PutOff { after } => write.timers.extend(body.firing.map(|serial| Timer::PutOff(serial, after))),
    }
    Some(write)
}
