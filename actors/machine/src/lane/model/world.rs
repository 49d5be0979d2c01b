//! The world of a lane in the model: the store, the questions and their answers, and the promises.
//!
//! Deliberately absent: which comes next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use holdfast_core::{
    AggregateId, KeyHash,
    batch::Fence,
    dedup::{Answer, Claim, ClaimKey, Fingerprint},
    epoch::{Generation, PartitionRow, Token},
    port::store::{CommitError, Committed, StoreError, Wanted},
    ring::{Pushed, Ring},
};
use stateright::Model as _;
use uuid::Uuid;

use super::{Kind, Lane, Letter, Move, P, TOPIC};
use crate::{
    Ask, Now,
    lane::{
        Action, Arrival, Claims, Content, Disposal, Failure, Found, Input, Machine, Mail, Message, Number, Origin, Own,
        Part, Reply, Report, Stored, Verdict,
    },
};

/// The other context that a message may need.
const CONTEXT: &str = "prices";

/// What a commit does to the store.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// A message is applied: its place among the letters, and which sending of it.
    Apply(usize, Number),
    /// What stands of an aggregate's claims from then on.
    Claim(&'static str, Pushed),
    Remove(i64),
    Put(usize, u32),
    Defer(i64, u32),
    Dead(usize),
}

/// What was asked and is not answered.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    Find {
        ask: Ask,
        wanted: Vec<Wanted>,
        claimants: Vec<Number>,
        unprepared: Vec<Number>,
    },
    Elsewhere {
        ask: Ask,
        messages: Vec<Number>,
    },
    Decide {
        delivery: u64,
        messages: Vec<Number>,
    },
    Commit {
        ask: Ask,
        fences: Vec<Fence>,
        effects: Vec<Effect>,
    },
    /// A commit that was answered with `CommitError::Unknown`, and may still happen.
    Ghost {
        fences: Vec<Fence>,
        effects: Vec<Effect>,
    },
    /// The answer to a question, which its lane has not received.
    Answered(Input),
    Retoken {
        ask: Ask,
        token: Token,
    },
    Compare {
        ask: Ask,
    },
    Look {
        ask: Ask,
    },
}

/// How a question is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Well,
    /// The question is carried out now, and its lane gets the answer later.
    Quietly,
    Away,
    Refused,
    Slow,
    LostAfter,
    LostBefore,
    LostOnItsWay,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub consumed: u64,
    pub applied: Vec<usize>,
    /// The rings of aggregates, what stands outside of them, and of whom something was pushed out.
    pub rings: BTreeMap<&'static str, Ring>,
    pub outside: BTreeMap<ClaimKey, Claim>,
    pub spilled: BTreeSet<&'static str>,
    pub mail: BTreeMap<i64, (usize, u32)>,
    pub dead: Vec<usize>,
    pub batch: u64,
    pub token: u128,
    pub positions: i64,
}

#[derive(Clone, Debug)]
pub(super) struct Body {
    pub letter: usize,
    /// Its row, and its failures so far, if it is mail.
    pub mail: Option<(i64, u32)>,
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub machine: Machine,
    pub now: Duration,
    pub read: usize,
    pub faults: u8,
    pub store: Store,
    pub pending: Vec<Pending>,
    pub bodies: BTreeMap<Number, Body>,
    /// What the commit in flight does.
    pub effects: Vec<Effect>,
    /// Calls that were answered as not done.
    pub refused: BTreeSet<Number>,
    pub number: u64,
    /// The ownership under which the lane serves the partition.
    pub term: u64,
    /// Deliveries whose verdict was given and that have not ended.
    pub decided: BTreeMap<u64, Vec<Number>>,
    /// Calls that have an answer.
    pub answered: BTreeSet<Number>,
    pub wrong: Vec<String>,
    /// The supervisor was stopped, and the lane has to get `Input::Own` again.
    pub is_stopped: bool,
}

fn id_of(letter: Letter) -> AggregateId {
    AggregateId { kind: "counter", key: letter.aggregate.into() }
}

fn fingerprint_of(letter: Letter) -> Fingerprint {
    let id = Uuid::from_u128(u128::from(letter.id));
    Fingerprint { key: ClaimKey { id, scope: Uuid::nil() }, body: Uuid::nil() }
}

fn claim_of(letter: Letter) -> Claim {
    let Fingerprint { key, body } = fingerprint_of(letter);
    Claim { key, body, answer: Answer::Applied { version: 0, reply: Vec::new().into() } }
}

impl State {
    pub fn tell(&mut self, lane: &Lane, input: Input) {
        let mut actions = Vec::new();
        let now = Now { boot: self.now, awake: self.now };
        self.machine.handle(input, now, &mut actions);
        self.machine.handle(Input::Turn, now, &mut actions);
        for action in actions {
            self.perform(lane, action);
        }
        self.wrong.extend(self.machine.audit().into_iter().map(|wrong| format!("{wrong:?}")));
        if std::mem::take(&mut self.is_stopped) {
            self.own(lane);
        }
    }

    /// The lane is the owner again, under a new token, and reads on from what is consumed.
    pub fn own(&mut self, lane: &Lane) {
        self.term += 1;
        self.store.token += 1;
        self.read = (0..self.read).find(|at| lane.offset(*at) == self.store.consumed).unwrap_or(self.read);
        let own = Own {
            partition: P,
            term: self.term,
            token: Token(Uuid::from_u128(self.store.token)),
            generation: Generation(1),
            count: 1,
            is_serving: true,
            batch: self.store.batch,
            outbox_head: self.store.batch,
        };
        self.tell(lane, Input::Own(own));
    }

    fn perform(&mut self, lane: &Lane, action: Action) {
        match action {
            Action::Find { ask, wanted, claimants, unprepared } => {
                self.pending.push(Pending::Find { ask, wanted, claimants, unprepared });
            }
            Action::Ask { ask, messages } => self.pending.push(Pending::Elsewhere { ask, messages }),
            Action::Decide { deliveries } => self.pending.extend(
                deliveries.into_iter().map(|of| Pending::Decide { delivery: of.delivery, messages: of.messages }),
            ),
            Action::Commit { ask, fences, parts, .. } => {
                self.effects = parts.into_iter().flat_map(|part| self.effects_of(lane, part)).collect();
                self.pending.push(Pending::Commit { ask, fences, effects: self.effects.clone() });
            }
            Action::CommitAgain { ask, fences } => {
                self.pending.push(Pending::Commit { ask, fences, effects: self.effects.clone() });
            }
            Action::Compare { ask } => self.pending.push(Pending::Compare { ask }),
            Action::Retoken { ask, held } => {
                self.pending.extend(held.first().map(|(_, token)| Pending::Retoken { ask, token: *token }));
            }

            Action::Look { ask, .. } => self.pending.push(Pending::Look { ask }),
            Action::Answer { message, reply } => {
                self.answered.insert(message);
                let is_call = |body: &Body| lane.letters[body.letter].kind == Kind::Call;
                if self.bodies.get(&message).is_some_and(is_call) && !matches!(reply, Reply::Known(_)) {
                    self.refused.insert(message);
                }
            }
            Action::Done { message } => {
                let letter = self.bodies.remove(&message).map(|body| lane.letters[body.letter]);
                let is_answered = self.answered.remove(&message);
                if letter.is_some_and(|letter| letter.kind == Kind::Call) && !is_answered {
                    self.wrong.push(format!("I1: {letter:?} is done with, and its caller got no answer"));
                }
            }
            Action::Undo { delivery } => _ = self.decided.remove(&delivery),
            Action::Conclude { delivery, .. } => {
                for number in self.decided.remove(&delivery).unwrap_or_default() {
                    self.answered.insert(number);
                    let letter = self.bodies[&number].letter;
                    let is_same = |other: &usize| lane.letters[*other].id == lane.letters[letter].id;
                    if !self.store.applied.iter().any(is_same) {
                        self.wrong.push(format!("I1: {:?} is answered, and not stored", lane.letters[letter]));
                    }
                }
            }
            Action::Note { next, .. } if next > self.store.consumed => {
                self.wrong.push(format!("I7: {next} is noted, and {} is stored", self.store.consumed));
            }
            Action::Report(Report::Violated(invariant, detail)) => self.wrong.push(format!("{invariant}: {detail}")),
            Action::Stop { .. } => self.is_stopped = true,
            _ => {}
        }
    }

    fn effects_of(&self, lane: &Lane, part: Part) -> Vec<Effect> {
        let body = |number: &Number| self.bodies[number].clone();
        match part {
            Part::Decided { messages, claims: [claims, _], .. } => {
                let effects = |number: &Number| {
                    let Body { letter, mail } = body(number);
                    let removal = mail.map(|(row, _)| Effect::Remove(row)).into_iter();
                    removal.chain([Effect::Apply(letter, *number)])
                };
                let of = messages.first().map(|number| lane.letters[body(number).letter].aggregate);
                let claims = of.map(|aggregate| Effect::Claim(aggregate, claims));
                messages.iter().flat_map(effects).chain(claims).collect()
            }
            Part::Disposed { message, disposal } => {
                let Body { letter, mail } = body(&message);
                let removal = mail.map(|(row, _)| Effect::Remove(row)).into_iter();
                match disposal {
                    Disposal::Put { attempts, .. } => vec![Effect::Put(letter, attempts)],
                    Disposal::Defer { attempts, .. } => {
                        mail.map(|(row, _)| Effect::Defer(row, attempts)).into_iter().collect()
                    }
                    Disposal::Dead { .. } | Disposal::Refuse | Disposal::Unfiled { .. } => {
                        removal.chain([Effect::Dead(letter)]).collect()
                    }
                    Disposal::Repeat | Disposal::PutOff { .. } => removal.collect(),
                }
            }
        }
    }

    /// Commits, if the fence holds. `None` if it is stale.
    fn commit(&mut self, lane: &Lane, fences: &[Fence], effects: &[Effect]) -> Option<Committed> {
        let [fence] = fences else { return None };
        if fence.token.0.as_u128() != self.store.token || fence.number != self.store.batch + 1 {
            return None;
        }
        self.store.batch += 1;
        for effect in effects {
            match effect {
                Effect::Apply(letter, number) => self.apply(lane, *letter, *number),
                Effect::Claim(aggregate, Pushed { ring, out, spills }) => {
                    self.store.rings.insert(*aggregate, ring.clone());
                    self.store.outside.extend(out.iter().map(|claim| (claim.key, claim.clone())));
                    self.store.spilled.extend(spills.then_some(*aggregate));
                }
                Effect::Remove(row) => _ = self.store.mail.remove(row),
                Effect::Put(letter, attempts) => {
                    self.store.positions += 1;
                    self.store.mail.insert(self.store.positions, (*letter, *attempts));
                }
                Effect::Defer(row, attempts) => {
                    if let Some((_, counted)) = self.store.mail.get_mut(row) {
                        *counted = *attempts;
                    }
                }
                Effect::Dead(letter) => self.store.dead.push(*letter),
            }
        }
        for (_, next) in &fence.consumed {
            self.store.consumed = *next;
        }
        let vanished = lane.records().take(usize::try_from(self.store.consumed).expect("few"));
        for (at, letter) in vanished {
            if !self.is_settled(lane, at) {
                self.wrong.push(format!("I7: {letter:?} is consumed, and nothing came of it"));
            }
        }
        Some(Committed { granted: vec![true; 8], heads: [(P, self.store.batch)].into(), ..Committed::default() })
    }

    /// Whether a letter, or its twin, is applied, dead, or in the mailbox.
    fn is_settled(&self, lane: &Lane, at: usize) -> bool {
        let is_same = |other: &usize| lane.letters[*other].id == lane.letters[at].id;
        let mut mail = self.store.mail.values().map(|(letter, _)| letter);
        self.store.applied.iter().any(is_same) || self.store.dead.iter().any(is_same) || mail.any(is_same)
    }

    fn apply(&mut self, lane: &Lane, at: usize, number: Number) {
        let letter = lane.letters[at];
        for other in self.store.applied.iter().map(|other| lane.letters[*other]) {
            if other.id == letter.id {
                self.wrong.push(format!("I2: {letter:?} is applied twice"));
            }
        }
        let is_later = |other: &&usize| {
            let of = lane.letters[**other];
            of.aggregate == letter.aggregate && of.kind != Kind::Call && **other > at
        };
        if letter.kind != Kind::Call && self.store.applied.iter().any(|other| is_later(&other)) {
            self.wrong.push(format!("I3: {letter:?} is applied after a later one"));
        }
        if self.refused.contains(&number) {
            self.wrong.push(format!("I1: {letter:?} is done, and its caller was answered that it is not"));
        }
        self.store.applied.push(at);
    }

    pub fn arrival(&mut self, lane: &Lane, at: usize, origin: Origin, mail: Option<(i64, u32)>) -> Arrival {
        let letter = lane.letters[at];
        self.number += 1;
        let number = Number(self.number);
        self.bodies.insert(number, Body { letter: at, mail });
        let hash = KeyHash::of(letter.aggregate.as_bytes());
        let (aggregate, fingerprint) = (id_of(letter), Some(fingerprint_of(letter)));
        let message = Message { aggregate, hash, origin, fingerprint, seed: 0, failure: None };
        Arrival { number, partition: P, term: self.term, content: Content::Message(message) }
    }

    pub fn answer(&mut self, lane: &Lane, at: usize, how: How) {
        let pending = self.pending.remove(at);
        let away = || StoreError::Unavailable("away".into());
        let letter = |state: &Self, number: &Number| state.bodies.get(number).map(|body| lane.letters[body.letter]);
        let input = match pending {
            Pending::Find { ask, .. } if how == How::Away => Input::Found { ask, found: Err(away()) },
            Pending::Find { ask, wanted, claimants, unprepared } => {
                let waiting = |id: &AggregateId| {
                    let is_of = |(letter, _): &&(usize, u32)| id_of(lane.letters[*letter]) == *id;
                    self.store.mail.values().filter(is_of).count() as u64
                };
                let known = |id: &AggregateId| {
                    let has_spilled = self.store.spilled.contains(&*id.key);
                    Claims { ring: self.store.rings.get(&*id.key).cloned().unwrap_or_default(), has_spilled }
                };
                let stored = |id| Stored { unusable: None, waiting: waiting(id), claims: known(id) };
                let aggregates = wanted.iter().map(|wanted| stored(&wanted.id)).collect();
                // With a state only claims of an aggregate that has spilled are looked for.
                let is_asked = |wanted: &&Wanted| !wanted.state || self.store.spilled.contains(&*wanted.id.key);
                let asked: BTreeSet<ClaimKey> =
                    wanted.iter().filter(is_asked).flat_map(|wanted| wanted.claims.clone()).collect();
                let claim = |number: &Number| {
                    let key = fingerprint_of(letter(self, number)?).key;
                    Some((*number, Ok(self.store.outside.get(&key).filter(|_| asked.contains(&key))?.clone())))
                };
                let claims = claimants.iter().filter_map(claim).collect();
                let lacking = |number: &&Number| letter(self, number).is_some_and(|of| of.kind == Kind::Lacking);
                let needs = unprepared.iter().filter(lacking).map(|number| (*number, Ok(CONTEXT))).collect();
                Input::Found { ask, found: Ok(Found { aggregates, claims, needs }) }
            }
            Pending::Elsewhere { ask, messages } => {
                let failures = messages.into_iter().filter(|_| how == How::Away);
                let failures = failures.map(|number| (number, Failure::LookUp("away".into()))).collect();
                Input::Asked { ask, failures }
            }
            Pending::Decide { delivery, messages } => {
                let is_good = |number: &&Number| {
                    let has_failed = self.bodies.get(number).is_some_and(|body| body.mail.is_some_and(|(_, n)| n > 0));
                    letter(self, number).is_none_or(|of| match of.kind {
                        Kind::Poison => false,
                        Kind::Flaky => has_failed,
                        _ => true,
                    })
                };
                let decided = messages.iter().take_while(is_good).count();
                let claims =
                    messages[..decided].iter().filter_map(|number| letter(self, number)).map(claim_of).collect();
                self.decided.insert(delivery, messages[..decided].to_vec());
                let failed = (decided < messages.len()).then(|| Failure::Handler("it fails".into()));
                Input::Decided(Verdict {
                    delivery,
                    decided,
                    is_changed: decided > 0,
                    is_conditional: false,
                    timers: [Vec::new(), Vec::new()],
                    claims: [claims, Vec::new()],
                    failed,
                    is_unreadable: false,
                })
            }
            Pending::Commit { ask, fences, effects } => {
                let unknown = || Err(CommitError::Unknown("lost".into()));
                let stale = || Committed { stale: vec![P], granted: vec![false; 8], ..Committed::default() };
                let result = match how {
                    How::Well | How::Quietly => Ok(self.commit(lane, &fences, &effects).unwrap_or_else(stale)),
                    How::Away => Err(CommitError::Unavailable("away".into())),
                    How::Refused => {
                        Err(CommitError::Data { sqlstate: "22000".into(), message: "a row was refused".into() })
                    }
                    How::Slow => Err(CommitError::Slow("too slow".into())),
                    How::LostAfter => {
                        self.commit(lane, &fences, &effects);
                        unknown()
                    }
                    How::LostBefore => unknown(),
                    How::LostOnItsWay => {
                        self.pending.push(Pending::Ghost { fences, effects });
                        unknown()
                    }
                };
                Input::Committed { ask, result }
            }
            Pending::Ghost { fences, effects } => {
                self.commit(lane, &fences, &effects);
                return;
            }
            Pending::Answered(input) => input,
            Pending::Retoken { ask, token } => {
                let is_held = token.0.as_u128() == self.store.token;
                self.store.token += u128::from(is_held);
                let rows = if is_held { vec![self.row()] } else { Vec::new() };
                Input::Retokened { ask, rows: (how == How::Well).then_some(rows) }
            }
            Pending::Compare { ask } => Input::Compared { ask, rows: Ok(vec![self.row()]) },
            Pending::Look { ask } => {
                let rows = self.store.mail.clone();
                let due = rows.into_iter().map(|(position, (letter, attempts))| {
                    let mail = Mail { position, attempts, waited: Duration::ZERO };
                    self.arrival(lane, letter, Origin::Mail(mail), Some((position, attempts)))
                });
                Input::Due { ask, due: due.collect() }
            }
        };
        if how == How::Quietly {
            self.pending.push(Pending::Answered(input));
        } else {
            self.tell(lane, input);
        }
    }

    fn row(&self) -> PartitionRow {
        PartitionRow {
            token: Some(Token(Uuid::from_u128(self.store.token))),
            batch: self.store.batch,
            outbox_head: self.store.batch,
            consumed: vec![(TOPIC.into(), self.store.consumed)],
            ..PartitionRow::new(P, Generation(1))
        }
    }

    /// Whether everything that was read comes to its end if nothing fails any more.
    pub fn ends(&self, lane: &Lane) -> bool {
        let mut state = self.clone();
        for _ in 0..100 {
            if state.is_done(lane) {
                return true;
            }
            let mut moves = Vec::new();
            lane.actions(&state, &mut moves);
            let goes_on = |way: &&Move| matches!(way, Move::Read | Move::Answer(_, How::Well) | Move::Tick);
            let Some(next) = moves.iter().find(goes_on).and_then(|way| lane.next_state(&state, *way)) else { break };
            state = next;
        }
        false
    }

    pub fn is_done(&self, lane: &Lane) -> bool {
        let is_settled = self.bodies.is_empty() && self.pending.is_empty();
        self.read == lane.letters.len() && is_settled && self.store.mail.is_empty()
    }
}
