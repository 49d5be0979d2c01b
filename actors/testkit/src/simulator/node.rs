//! A node of a simulation: a lane's machine, its actors and its readers; the shell, with every question an entry in a list.
//!
//! Deliberately absent: any order of its own. What takes effect when, and which answer comes first, is the world's to say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    AggregateId, PartitionId,
    batch::Fence,
    dedup::{Answer, ClaimKey},
    disposition::DeadLetterReason,
    epoch::{Generation, Token},
    growth::Growth,
    port::store::{CommitError, StoreError},
    retry::RetryPolicy,
};
use holdfast_machine::{
    Ask, Now, Rules,
    lane::{
        Action, Arrival, Branch, Claimed, Content, Delivery, Disposal, Failure, Found, Input, Machine, Mail, Message,
        Number, Origin, Part, Reply, Report, Settings, Source, Verdict,
    },
};
use uuid::Uuid;

use super::{
    Letter, Nature,
    store::{Store, TOPIC, Write},
};
use crate::Dice;

const KIND: &str = "counter";

/// A question that is under way, and its answer once it has taken effect.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub node: usize,
    pub question: Question,
    pub answer: Option<Input>,
}

#[derive(Clone, Debug)]
pub(super) enum Question {
    Find { ask: Ask, aggregates: Vec<AggregateId>, claimants: Vec<Number>, unprepared: Vec<Number> },
    Ask { ask: Ask, messages: Vec<Number> },
    Decide(Delivery),
    Commit { ask: Ask, fences: Vec<Fence>, writes: Vec<Write>, parts: Vec<Option<usize>> },
    Compare { ask: Ask },
    Retoken { ask: Ask, held: Vec<(PartitionId, Token)> },
    Look { ask: Ask, partitions: Vec<(PartitionId, u64)>, count: u32 },
    Acknowledge { ask: Ask, partition: PartitionId, token: Token, generation: Generation },
}

/// What a node has done with an input.
#[derive(Default)]
pub(super) struct Happened {
    pub actions: Vec<Action>,
    pub asked: Vec<Question>,
    pub lost: Vec<(PartitionId, u64)>,
    pub wants_counts: bool,
    pub violations: Vec<(&'static str, String)>,
}

/// What an actor decided, until it is settled.
#[derive(Clone, Debug)]
struct Decided {
    key: Arc<str>,
    partition: PartitionId,
    after: Vec<u64>,
    after_refused: Vec<u64>,
    write: Option<Write>,
    callers: Vec<Number>,
}

/// What arrived, as the shell keeps it.
#[derive(Clone, Debug)]
struct Body {
    letter: Option<Letter>,
    partition: PartitionId,
    offset: Option<u64>,
    mail: Option<(i64, u32)>,
    is_call: bool,
    is_answered: bool,
}

#[derive(Clone, Debug)]
struct Reader {
    term: u64,
    next: u64,
    is_serving: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub is_alive: bool,
    machine: Machine,
    number: u64,
    bodies: BTreeMap<Number, Body>,
    decided: BTreeMap<u64, Decided>,
    /// Committed states in memory.
    actors: BTreeMap<(PartitionId, Arc<str>), Vec<u64>>,
    /// States that were looked up for the batch, and the look-up that counts.
    cold: BTreeMap<Arc<str>, Vec<u64>>,
    finding: Option<Ask>,
    readers: BTreeMap<PartitionId, Reader>,
    terms: BTreeMap<PartitionId, u64>,
    writes: Vec<Write>,
    parts: Vec<Option<usize>>,
}

/// The kind of an input.
pub(super) const fn name(input: &Input) -> &'static str {
    match input {
        Input::Arrived(_) => "arrived",
        Input::Turn => "turn",
        Input::Found { found: Ok(_), .. } => "found",
        Input::Found { .. } => "find failed",
        Input::Asked { .. } => "asked",
        Input::Decided(_) => "decided",
        Input::SupervisorDied { .. } => "supervisor died",
        Input::Committed { result: Ok(_), .. } => "committed",
        Input::Committed { result: Err(error), .. } => match error {
            CommitError::Unavailable(_) => "commit unavailable",
            CommitError::Data { .. } => "commit refused",
            CommitError::Conflict => "commit conflict",
            CommitError::Slow(_) => "commit slow",
            CommitError::Unknown(_) => "commit unknown",
        },
        Input::Compared { .. } => "compared",
        Input::Retokened { rows: Some(_), .. } => "retokened",
        Input::Retokened { .. } => "retoken failed",
        Input::Due { .. } => "due",
        Input::Counted(_) => "counted",
        Input::Acknowledged { .. } => "acknowledged",
        Input::Own(_) => "own",
        Input::Drop { .. } => "drop",
        Input::Release { .. } => "release",
    }
}

impl Node {
    pub fn new(batch_items_max: usize, live_max: usize, rules: Rules, growth: Arc<Growth>) -> Self {
        let settings = Settings {
            batch_items_max,
            retry: RetryPolicy { budget: 3, base: Duration::from_millis(100), max: Duration::from_secs(5) },
            poll_every: Duration::from_millis(200),
            passivate_after: Duration::from_secs(20),
            live_max,
            rules,
        };
        Self {
            is_alive: true,
            machine: Machine::new(settings, growth),
            number: 0,
            bodies: BTreeMap::new(),
            decided: BTreeMap::new(),
            actors: BTreeMap::new(),
            cold: BTreeMap::new(),
            finding: None,
            readers: BTreeMap::new(),
            terms: BTreeMap::new(),
            writes: Vec::new(),
            parts: Vec::new(),
        }
    }

    pub fn due(&self) -> Option<Duration> {
        self.machine.due()
    }

    pub fn term(&self, partition: PartitionId) -> Option<u64> {
        self.terms.get(&partition).copied()
    }

    pub fn read_from(&mut self, partition: PartitionId, term: u64, next: Option<u64>, is_serving: bool) {
        self.terms.insert(partition, term);
        self.readers.insert(partition, Reader { term, next: next.unwrap_or(0), is_serving });
    }

    pub fn forget(&mut self, partition: PartitionId) {
        self.terms.remove(&partition);
    }

    pub fn stop_reading(&mut self, partition: PartitionId) {
        self.readers.remove(&partition);
    }

    pub fn is_serving(&self, partition: PartitionId) -> bool {
        self.readers.get(&partition).is_some_and(|reader| reader.is_serving)
    }

    pub fn readers(&self) -> Vec<PartitionId> {
        self.readers.keys().copied().collect()
    }

    pub fn waits_for_nothing(&self) -> bool {
        self.bodies.is_empty()
    }

    pub fn left_over(&self) -> String {
        let states = self.machine.states();
        format!("{states:?}, {:?}", self.machine.doing())
    }

    fn number(&mut self) -> Number {
        self.number += 1;
        Number(self.number)
    }

    fn keep(&mut self, partition: PartitionId, letter: Option<Letter>, is_call: bool) -> Number {
        let number = self.number();
        let body = Body { letter, partition, offset: None, mail: None, is_call, is_answered: false };
        self.bodies.insert(number, body);
        number
    }

    pub fn called(&mut self, partition: PartitionId, letter: Letter) -> Arrival {
        let content = Content::Message(message(&letter, Origin::Call));
        let number = self.keep(partition, Some(letter), true);
        Arrival { number, partition, term: self.term(partition).unwrap_or(0), content }
    }

    pub fn asked_for(&mut self, partition: PartitionId, key: &Arc<str>) -> Arrival {
        let hash = holdfast_core::KeyHash::of(key.as_bytes());
        let content = Content::Read { aggregate: id(key), hash };
        let number = self.keep(partition, None, false);
        Arrival { number, partition, term: self.term(partition).unwrap_or(0), content }
    }

    pub fn fetch(&mut self, partition: PartitionId, records: &[Letter]) -> Option<Arrival> {
        if !self.machine.takes_more() {
            return None;
        }
        let reader = self.readers.get_mut(&partition)?;
        let letter = records.get(usize::try_from(reader.next).expect("small"))?.clone();
        let (term, offset, place) = (reader.term, reader.next, (TOPIC.into(), reader.next));
        reader.next += 1;
        let content = match letter.nature {
            Nature::Junk => Content::Refused(Source::Log(place)),
            Nature::Ignored => Content::Ignored(place),
            _ => Content::Message(message(&letter, Origin::Log(place))),
        };
        let number = self.keep(partition, Some(letter), false);
        if let Some(body) = self.bodies.get_mut(&number) {
            body.offset = Some(offset);
        }
        Some(Arrival { number, partition, term, content })
    }

    /// Hands an input to the machine, and does what it says as far as that takes no time.
    pub fn handle(
        &mut self,
        input: Input,
        now: Duration,
        store: &Store,
        edges: &mut BTreeSet<(&'static str, &'static str)>,
    ) -> Happened {
        let before: BTreeMap<Number, &'static str> = self.machine.states();
        let mut happened = Happened::default();
        self.machine.handle(input, Now { boot: now, awake: now }, &mut happened.actions);
        let after: BTreeMap<Number, &'static str> = self.machine.states();
        for (number, state) in &after {
            let from = before.get(number).copied().unwrap_or("[*]");
            if from != *state {
                edges.insert((from, state));
            }
        }
        edges.extend(before.iter().filter(|(number, _)| !after.contains_key(number)).map(|(_, from)| (*from, "[*]")));
        for action in happened.actions.clone() {
            self.perform(action, store, &mut happened);
        }
        let wrong = self.machine.audit().into_iter().map(|(invariant, detail)| (invariant.id(), detail));
        happened.violations.extend(wrong);
        happened
    }

    fn perform(&mut self, action: Action, store: &Store, happened: &mut Happened) {
        match action {
            Action::Find { ask, wanted, claimants, unprepared } => {
                self.finding = Some(ask);
                happened.asked.push(Question::Find { ask, aggregates: wanted.aggregates, claimants, unprepared });
            }
            Action::Report(Report::Violated(invariant, detail)) => happened.violations.push((invariant.id(), detail)),
            Action::Ask { ask, messages } => happened.asked.push(Question::Ask { ask, messages }),
            Action::Decide { deliveries } => {
                for delivery in deliveries {
                    let key = (delivery.partition, delivery.aggregate.key.clone());
                    if let Some(state) = self.cold.remove(&delivery.aggregate.key) {
                        self.actors.entry(key.clone()).or_insert(state);
                    }
                    if !self.actors.contains_key(&key) {
                        let detail = format!("{key:?} is to decide, and is neither in memory nor looked up");
                        happened.violations.push(("actors", detail));
                    }
                    happened.asked.push(Question::Decide(delivery));
                }
            }
            Action::Commit { ask, fences, parts, .. } => {
                (self.writes, self.parts) = self.write(parts);
                let (writes, parts) = (self.writes.clone(), self.parts.clone());
                happened.asked.push(Question::Commit { ask, fences, writes, parts });
            }
            Action::CommitAgain { ask, fences } => {
                let (writes, parts) = (self.writes.clone(), self.parts.clone());
                happened.asked.push(Question::Commit { ask, fences, writes, parts });
            }
            Action::Compare { ask } => happened.asked.push(Question::Compare { ask }),
            Action::Retoken { ask, held } => happened.asked.push(Question::Retoken { ask, held }),
            Action::Look { ask, partitions, count } => happened.asked.push(Question::Look { ask, partitions, count }),
            Action::Advance { delivery, branch } => {
                let Some(decided) = self.decided.get(&delivery) else { return };
                let state = if branch == Branch::Granted { &decided.after } else { &decided.after_refused };
                if let Some(actor) = self.actors.get_mut(&(decided.partition, decided.key.clone())) {
                    actor.clone_from(state);
                }
            }
            Action::Conclude { delivery, .. } => {
                let Some(decided) = self.decided.remove(&delivery) else { return };
                for number in decided.callers {
                    self.answer(number, None, store, happened);
                }
            }
            Action::Undo { delivery } => _ = self.decided.remove(&delivery),
            Action::Answer { message, reply } => self.answer(message, Some(&reply), store, happened),
            Action::Done { message } => {
                if let Some(body) = self.bodies.remove(&message)
                    && body.is_call
                    && !body.is_answered
                {
                    happened.violations.push(("answers", format!("{body:?} is gone and was never answered")));
                }
            }
            Action::Passivate { partition, aggregates } => {
                for id in aggregates {
                    self.actors.remove(&(partition, id.key));
                }
            }
            Action::Stop { partition, term } => {
                self.actors.retain(|(of, _), _| *of != partition);
                happened.lost.push((partition, term));
            }
            Action::Acknowledge { ask, partition, token, generation, .. } => {
                happened.asked.push(Question::Acknowledge { ask, partition, token, generation });
            }
            Action::Serve { partition, is_serving } => {
                if let Some(reader) = self.readers.get_mut(&partition) {
                    reader.is_serving = is_serving;
                }
            }
            Action::HurryCounts => happened.wants_counts = true,
            Action::Publish
            | Action::Note { .. }
            | Action::Home { .. }
            | Action::Reload { .. }
            | Action::Remember { .. }
            | Action::Released { .. }
            | Action::Report(_) => {}
        }
    }

    fn answer(&mut self, number: Number, reply: Option<&Reply>, store: &Store, happened: &mut Happened) {
        let Some(body) = self.bodies.get_mut(&number) else { return };
        if !body.is_call {
            return;
        }
        if std::mem::replace(&mut body.is_answered, true) {
            happened.violations.push(("answers", format!("{body:?} is answered twice")));
        }
        let says_done = matches!(reply, None | Some(Reply::Known(_)));
        let id = body.letter.as_ref().map_or(0, |letter| letter.id);
        if says_done && !store.claims.contains(&id) {
            happened.violations.push(("I1", format!("{body:?} is answered, and nothing of it is committed")));
        }
    }

    /// What a plan writes.
    fn write(&mut self, parts: Vec<Part>) -> (Vec<Write>, Vec<Option<usize>>) {
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
        has_faults: bool,
        is_away: bool,
        now: Duration,
    ) -> (Input, Vec<(&'static str, String)>) {
        let mut violations = Vec::new();
        let away = || StoreError::Unavailable("away".into());
        let fails = has_faults && dice.one_in(20);
        let input = match &asked.question {
            Question::Find { ask, .. } if is_away || fails => Input::Found { ask: *ask, found: Err(away()) },
            Question::Find { ask, aggregates, claimants, unprepared } => {
                let counts = self.finding == Some(*ask);
                let found = self.found(aggregates, claimants, unprepared, counts, store);
                Input::Found { ask: *ask, found: Ok(found) }
            }
            Question::Ask { ask, messages } => {
                let failure = |number: &Number| (*number, Failure::LookUp("away".into()));
                let failures = messages.iter().filter(|_| has_faults && dice.one_in(3)).map(failure).collect();
                Input::Asked { ask: *ask, failures }
            }
            Question::Decide(delivery) => {
                if has_faults && dice.one_in(400) {
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
                let result = match dice.below(30) {
                    0 if has_faults => Err(CommitError::Unknown("lost before it took effect".into())),
                    1 if has_faults => {
                        // It happened, and nobody hears of it.
                        let _ = store.commit(fences, writes, now, &mut violations);
                        Err(CommitError::Unknown("lost after it took effect".into()))
                    }
                    2 if has_faults => Err(CommitError::Slow("slow".into())),
                    3 if has_faults => Err(CommitError::Unavailable("away".into())),
                    _ => store.commit(fences, writes, now, &mut violations),
                };
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
                    let number = self.keep(partition, Some(row.letter), false);
                    if let Some(body) = self.bodies.get_mut(&number) {
                        body.mail = Some((position, row.attempts));
                    }
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
            if letter(number).is_some_and(|letter| store.claims.contains(&letter.id)) {
                let answer = Answer::Applied { version: 0, reply: bytes::Bytes::new() };
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
            callers.extend(is_call.then_some(*number));
            write.claims.push(letter.id);
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
        self.decided.insert(delivery.delivery, Decided { key, partition, after, after_refused, write, callers });
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

fn id(key: &Arc<str>) -> AggregateId {
    AggregateId { kind: KIND, key: key.clone() }
}

fn message(letter: &Letter, origin: Origin) -> Message {
    let claim = ClaimKey { id: Uuid::from_u128(u128::from(letter.id)), scope: Uuid::nil() };
    let [seed, ..] = letter.id.to_le_bytes();
    let (aggregate, hash) = (id(&letter.key), letter.hash());
    Message { aggregate, hash, origin, claim: Some(claim), seed, failure: None }
}
