//! What a node's questions are answered, and what its actors decide.
//!
//! Deliberately absent: when a question takes effect, and what becomes of an answer.

use std::time::Duration;

use holdfast_core::{
    AggregateId, PartitionId,
    dedup::Answer,
    disposition::DeadLetterReason,
    port::store::{CommitError, StoreError},
};
use holdfast_machine::lane::{
    Arrival, Claimed, Content, Delivery, Disposal, Failure, Found, Input, Mail, Number, Origin, Part, Verdict,
};

use super::{Asked, Body, Decided, Node, Question, Said, message};
use crate::{
    Dice,
    simulator::{
        Fault, Nature,
        faults::Faults,
        store::{Store, Write},
    },
};

impl Node {
    /// What a plan writes.
    pub(super) fn write(&mut self, parts: Vec<Part>) -> (Vec<Write>, Vec<Option<usize>>) {
        let (mut writes, mut places) = (Vec::new(), Vec::new());
        for part in parts {
            places.push(Some(writes.len()));
            match part {
                Part::Decided { delivery, messages } => {
                    let Some(decided) = self.decided.get_mut(&delivery) else {
                        places.pop();
                        places.push(None);
                        continue;
                    };
                    let empty = || Write::new(decided.partition, decided.key.clone());
                    let mut write = decided.write.clone().unwrap_or_else(empty);
                    for number in messages {
                        let mail = self.bodies.get(&number).and_then(|body| body.mail);
                        write.removed.extend(mail.map(|(position, _)| position));
                    }
                    writes.push(write);
                }
                Part::Disposed { message, disposal } => {
                    let Some(Body { letter: Some(letter), partition, mail, offset, .. }) = self.bodies.get(&message)
                    else {
                        continue;
                    };
                    let mut write = Write::new(*partition, letter.key.clone());
                    let keeps_mail = matches!(disposal, Disposal::Put { .. } | Disposal::Defer { .. });
                    write.removed.extend(mail.map(|(position, _)| position).filter(|_| !keeps_mail));
                    write.is_refused = letter.nature == Nature::Refused;
                    write.offset = offset.filter(|_| disposal != Disposal::Repeat);
                    match disposal {
                        Disposal::Put { attempts, after, .. } => {
                            write.put = Some((letter.clone(), attempts, after.unwrap_or_default()));
                        }
                        Disposal::Defer { attempts, after, .. } => {
                            write.deferred = mail.map(|(position, _)| (position, attempts, after));
                        }
                        Disposal::Dead { reason, .. } => {
                            write.dead = Some(letter.id);
                            write.is_refused &= reason != DeadLetterReason::UnknownType;
                        }
                        Disposal::Refuse => write.dead = Some(letter.id),
                        Disposal::Unfiled { .. } => {
                            write.dead = Some(letter.id);
                            write.is_refused = false;
                        }
                        Disposal::Repeat => write.is_refused = false,
                        Disposal::PutOff { .. } => {}
                    }
                    writes.push(write);
                }
            }
        }
        (writes, places)
    }

    /// A question takes effect: what its answer will be.
    pub fn take_effect(
        &mut self,
        asked: &Asked,
        store: &mut Store,
        dice: &mut Dice,
        faults: &mut Faults,
        is_away: bool,
        now: Duration,
    ) -> (Input, Vec<(&'static str, String)>) {
        let mut violations = Vec::new();
        let away = || StoreError::Unavailable("away".into());
        let is_ill = dice.one_in(20);
        let fails = match &asked.question {
            Question::Find { .. } => faults.inject(Fault::FindFailed, is_ill),
            Question::Compare { .. } => faults.inject(Fault::CompareFailed, is_ill),
            Question::Retoken { .. } => faults.inject(Fault::RetokenFailed, is_ill),
            Question::Acknowledge { .. } => faults.inject(Fault::AcknowledgeFailed, is_ill),
            Question::Look { .. } => faults.inject(Fault::LookFailed, is_ill),
            Question::Ask { .. } | Question::Decide(_) | Question::Commit { .. } => false,
        };
        let input = match &asked.question {
            Question::Find { ask, .. } if is_away || fails => Input::Found { ask: *ask, found: Err(away()) },
            Question::Find { ask, aggregates, claimants, unprepared } => {
                let counts = self.finding == Some(*ask);
                let found = self.found(aggregates, claimants, unprepared, counts, store);
                Input::Found { ask: *ask, found: Ok(found) }
            }
            Question::Ask { ask, messages } => {
                let failure = |number: &Number| (*number, Failure::LookUp("away".into()));
                let failures =
                    messages.iter().filter(|_| faults.inject(Fault::AskFailed, dice.one_in(3))).map(failure).collect();
                Input::Asked { ask: *ask, failures }
            }
            Question::Decide(delivery) => {
                if faults.inject(Fault::SupervisorDied, dice.one_in(400)) {
                    let (partition, term) = (delivery.partition, self.term(delivery.partition).unwrap_or(0));
                    Input::SupervisorDied { partition, term }
                } else {
                    Input::Decided(self.decide(delivery))
                }
            }
            Question::Commit { ask, .. } if is_away => {
                Input::Committed { ask: *ask, result: Err(CommitError::Unavailable("away".into())) }
            }
            Question::Commit { ask, fences, writes, parts } => {
                let ill = dice.below(30);
                let result = if faults.inject(Fault::LostBefore, ill == 0) {
                    Err(CommitError::Unknown("lost before it took effect".into()))
                } else if faults.inject(Fault::LostAfter, ill == 1) {
                    let _ = store.commit(fences, writes, now, &mut violations);
                    Err(CommitError::Unknown("lost after it took effect".into()))
                } else if faults.inject(Fault::Slow, ill == 2) {
                    Err(CommitError::Slow("slow".into()))
                } else if faults.inject(Fault::Unavailable, ill == 3) {
                    Err(CommitError::Unavailable("away".into()))
                } else {
                    store.commit(fences, writes, now, &mut violations)
                };
                self.has_committed = result.is_ok();
                let result = result.map(|mut committed| {
                    let is_granted = |place: &Option<usize>| {
                        place.is_none_or(|place| committed.granted.get(place).copied().unwrap_or(false))
                    };
                    committed.granted = parts.iter().map(is_granted).collect();
                    committed
                });
                Input::Committed { ask: *ask, result }
            }
            Question::Compare { ask } => {
                let rows = if is_away || fails { Err(away()) } else { Ok(store.rows()) };
                Input::Compared { ask: *ask, rows }
            }
            Question::Retoken { ask, held } => {
                let rows = (!is_away && !fails).then(|| store.retoken(held, dice));
                Input::Retokened { ask: *ask, rows }
            }
            Question::Acknowledge { ask, .. } if is_away || fails => {
                Input::Acknowledged { ask: *ask, row: Err(away()) }
            }
            Question::Acknowledge { ask, partition, token, generation } => {
                Input::Acknowledged { ask: *ask, row: Ok(store.acknowledge(*partition, *token, *generation)) }
            }
            Question::Look { ask, .. } if is_away || fails => Input::Due { ask: *ask, due: Vec::new() },
            Question::Look { ask, partitions, count } => {
                let of: Vec<PartitionId> = partitions.iter().map(|(partition, _)| *partition).collect();
                let mut due = Vec::new();
                for (position, row) in store.due_mail(&of, *count, now) {
                    let partition = row.letter.hash().home(*count);
                    let Some((_, term)) = partitions.iter().find(|(of, _)| *of == partition) else { continue };
                    let mail = Mail { position, attempts: row.attempts, waited: now.saturating_sub(row.since) };
                    let content = Content::Message(message(&row.letter, Origin::Mail(mail)));
                    let (number, body) = self.keep(partition, Some(row.letter), false);
                    body.mail = Some((position, row.attempts));
                    due.push(Arrival { number, partition, term: *term, content });
                }
                Input::Due { ask: *ask, due }
            }
        };
        (input, violations)
    }

    fn found(
        &mut self,
        aggregates: &[AggregateId],
        claimants: &[Number],
        unprepared: &[Number],
        counts: bool,
        store: &Store,
    ) -> Found {
        if counts {
            self.cold.clear();
        }
        let mut found = Found::default();
        for aggregate in aggregates {
            let state = store.aggregates.get(&aggregate.key).cloned().unwrap_or_default();
            if counts {
                self.cold.insert(aggregate.key.clone(), state);
            }
            found.aggregates.push((Ok(()), store.waiting(&aggregate.key)));
        }
        let letter = |number: &Number| self.bodies.get(number).and_then(|body| body.letter.as_ref());
        for number in claimants {
            let claim = letter(number).and_then(|letter| store.claims.get(&letter.id));
            if let Some(is_applied) = claim {
                // A version that says which answer it was.
                let answer = Answer::Applied { version: u64::from(*is_applied), reply: bytes::Bytes::new() };
                found.claims.push((*number, Claimed::Repeat(answer)));
            }
        }
        for number in unprepared {
            if letter(number).is_some_and(|letter| letter.nature == Nature::NeedsLookUp) {
                found.needs.push((*number, Ok("prices")));
            }
        }
        found
    }

    /// What an actor makes of its messages.
    fn decide(&mut self, delivery: &Delivery) -> Verdict {
        let key = delivery.aggregate.key.clone();
        let state = self.actors.get(&(delivery.partition, key.clone())).cloned().unwrap_or_default();
        let mut write = Write::new(delivery.partition, key.clone());
        let (mut after, mut decided, mut failed) = (state.clone(), 0, None);
        let (mut callers, mut refused) = (Vec::new(), None);
        for number in &delivery.messages {
            let Some(Body { letter: Some(letter), mail, is_call, .. }) = self.bodies.get(number) else { break };
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
            decided += 1;
            let said = match letter.nature {
                Nature::Rejected => Said::Rejected,
                Nature::Conditional => Said::AppliedIfGranted,
                _ => Said::Applied,
            };
            callers.extend(is_call.then_some((*number, said)));
            write.claims.push((letter.id, said != Said::Rejected));
            write.is_refused |= letter.nature == Nature::Refused;
            match letter.nature {
                Nature::Rejected => {}
                Nature::Conditional => {
                    refused = Some(after.clone());
                    after.push(letter.id);
                    break;
                }
                _ => after.push(letter.id),
            }
        }
        let version = state.len();
        let is_conditional = refused.is_some();
        let after_refused = refused.unwrap_or_else(|| after.clone());
        write.applied = Some((version as u64, after[version..].to_vec()));
        write.refused = is_conditional.then(|| after_refused[version..].to_vec());
        let is_changed = decided > 0;
        let partition = delivery.partition;
        let write = is_changed.then_some(write);
        self.decided.insert(
            delivery.delivery,
            Decided { key, partition, after, after_refused, write, callers, has_advanced: false },
        );
        let timers = [Vec::new(), Vec::new()];
        Verdict {
            delivery: delivery.delivery,
            decided,
            is_changed,
            is_conditional,
            timers,
            failed,
            is_unreadable: false,
        }
    }
}
