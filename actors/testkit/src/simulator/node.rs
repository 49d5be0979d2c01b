//! A node of a simulation: a lane's machine, its actors and its readers; the shell, with every question an
//! entry in a list.
//!
//! Checked here is the order of what the machine says (I5): an actor advances or stays as it was before its
//! next delivery, callers are answered after that and as the store granted it, and rows go to the relay last.
//! Deliberately absent: any order of its own. What takes effect when, and which answer comes first, is the
//! world's to say.

mod answers;
mod perform;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    AggregateId, KeyHash, PartitionId,
    batch::Fence,
    dedup::ClaimKey,
    epoch::{Generation, Token},
    growth::Growth,
    retry::RetryPolicy,
};
use holdfast_machine::{
    Ask, Now,
    lane::{Action, Arrival, Content, Delivery, Input, Machine, Message, Number, Origin, Own, Settings, Source},
};
use uuid::Uuid;

use super::{
    Letter, Nature, Setup,
    coverage::{Coverage, States},
    journal::Journal,
    store::{Store, TOPIC, Write},
};

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
    pub asked: Vec<Question>,
    pub lost: Vec<(PartitionId, u64)>,
    pub wants_counts: bool,
    pub violations: Vec<(&'static str, String)>,
    /// Reads that were answered with a state.
    pub reads: u64,
    /// Calls that were sent elsewhere.
    denied: Vec<Body>,
}

/// What a caller is told once its message is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Applied,
    Rejected,
    AppliedIfGranted,
}

/// What an actor decided, until it is concluded or undone.
#[derive(Clone, Debug)]
struct Decided {
    key: Arc<str>,
    partition: PartitionId,
    after: Vec<u64>,
    after_refused: Vec<u64>,
    write: Option<Write>,
    callers: Vec<(Number, Said)>,
    has_advanced: bool,
}

/// What arrived, as the shell keeps it.
#[derive(Clone, Debug)]
struct Body {
    letter: Option<Letter>,
    partition: PartitionId,
    term: u64,
    offset: Option<u64>,
    mail: Option<(i64, u32)>,
    is_call: bool,
    is_answered: bool,
    /// The version that the store had when a strong read began.
    at_least: usize,
}

#[derive(Clone, Debug)]
struct Reader {
    next: u64,
    is_serving: bool,
}

/// A partition as the shell knows it.
#[derive(Clone, Debug)]
struct Held {
    term: u64,
    /// The count by which keys are at home there.
    count: u32,
    is_closing: bool,
}

type ActorPlace = (PartitionId, Arc<str>);

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub is_alive: bool,
    machine: Machine,
    setup: Setup,
    number: u64,
    bodies: BTreeMap<Number, Body>,
    decided: BTreeMap<u64, Decided>,
    /// Committed states in memory.
    actors: BTreeMap<ActorPlace, Vec<u64>>,
    /// Actors with a delivery that has not ended.
    busy: BTreeMap<ActorPlace, u64>,
    /// Strong reads that wait for it, with the version that each has to show.
    awaiting: BTreeMap<ActorPlace, Vec<usize>>,
    /// States that were looked up for the batch, and the look-up that counts.
    cold: BTreeMap<Arc<str>, Vec<u64>>,
    finding: Option<Ask>,
    readers: BTreeMap<PartitionId, Reader>,
    held: BTreeMap<PartitionId, Held>,
    /// The commit in flight, for when it is sent again; its deliveries; whether it has happened.
    writes: Vec<Write>,
    parts: Vec<Option<usize>>,
    committing: BTreeSet<u64>,
    has_committed: bool,
    states: States,
    /// The newest generation that it was told of.
    heard: Generation,
}

impl Node {
    pub fn new(batch_items_max: usize, live_max: usize, setup: &Setup, growth: Arc<Growth>) -> Self {
        let settings = Settings {
            batch_items_max,
            retry: RetryPolicy { budget: 3, base: Duration::from_millis(100), max: Duration::from_secs(5) },
            poll_every: Duration::from_millis(200),
            passivate_after: Duration::from_secs(20),
            live_max,
            rules: setup.rules,
        };
        let heard = growth.current().0;
        Self {
            heard,
            is_alive: true,
            machine: Machine::new(settings, growth),
            setup: setup.clone(),
            number: 0,
            bodies: BTreeMap::new(),
            decided: BTreeMap::new(),
            actors: BTreeMap::new(),
            busy: BTreeMap::new(),
            awaiting: BTreeMap::new(),
            cold: BTreeMap::new(),
            finding: None,
            readers: BTreeMap::new(),
            held: BTreeMap::new(),
            writes: Vec::new(),
            parts: Vec::new(),
            committing: BTreeSet::new(),
            has_committed: false,
            states: States::new(),
        }
    }

    pub fn due(&self) -> Option<Duration> {
        self.machine.due()
    }

    pub fn term(&self, partition: PartitionId) -> Option<u64> {
        self.held.get(&partition).map(|held| held.term)
    }

    pub fn has_heard_of(&self, generation: Generation) -> bool {
        self.heard >= generation
    }

    pub fn own(&mut self, own: &Own, next: Option<u64>) {
        let &Own { partition, term, count, is_serving, .. } = own;
        self.held.insert(partition, Held { term, count, is_closing: false });
        self.readers.insert(partition, Reader { next: next.unwrap_or(0), is_serving });
    }

    pub fn forget(&mut self, partition: PartitionId) {
        self.held.remove(&partition);
        self.readers.remove(&partition);
    }

    pub fn close(&mut self, partition: PartitionId) {
        self.readers.remove(&partition);
        if let Some(held) = self.held.get_mut(&partition) {
            held.is_closing = true;
        }
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
        format!("{:?}, {:?}", self.states, self.machine.doing())
    }

    /// Deliveries and reads that have not ended, although nothing is under way.
    pub fn never_ended(&self) -> Option<String> {
        let is_empty = self.decided.is_empty() && self.busy.is_empty() && self.awaiting.is_empty();
        (!is_empty).then(|| format!("{:?}, {:?}, {:?}", self.decided, self.busy, self.awaiting))
    }

    fn number(&mut self) -> Number {
        self.number += 1;
        Number(self.number)
    }

    fn keep(&mut self, partition: PartitionId, letter: Option<Letter>, is_call: bool) -> (Number, &mut Body) {
        let (number, term) = (self.number(), self.term(partition).unwrap_or(0));
        let (offset, mail, is_answered, at_least) = (None, None, false, 0);
        let body = Body { letter, partition, term, offset, mail, is_call, is_answered, at_least };
        (number, self.bodies.entry(number).insert_entry(body).into_mut())
    }

    pub fn called(&mut self, partition: PartitionId, letter: Letter) -> Arrival {
        let content = Content::Message(message(&letter, Origin::Call));
        let (number, body) = self.keep(partition, Some(letter), true);
        Arrival { number, partition, term: body.term, content }
    }

    /// A strong read: its actor answers it, at once or once its delivery has ended, or it goes to the
    /// machine.
    pub fn read(
        &mut self,
        partition: PartitionId,
        key: &Arc<str>,
        store: &Store,
        happened: &mut Happened,
    ) -> Option<Arrival> {
        let (term, at_least) = (self.term(partition)?, store.version(key));
        if !self.is_serving(partition) {
            return None;
        }
        let place = (partition, key.clone());
        if self.actors.contains_key(&place) {
            if self.busy.contains_key(&place) && self.setup.rules.reads_wait_for_commits {
                self.awaiting.entry(place).or_default().push(at_least);
            } else {
                self.show(&place, at_least, store, happened);
            }
            return None;
        }
        let content = Content::Read { aggregate: id(key), hash: KeyHash::of(key.as_bytes()) };
        let (number, body) = self.keep(partition, None, false);
        body.at_least = at_least;
        Some(Arrival { number, partition, term, content })
    }

    pub fn fetch(&mut self, partition: PartitionId, records: &[Letter]) -> Option<Arrival> {
        if !self.machine.takes_more() {
            return None;
        }
        let term = self.term(partition)?;
        let reader = self.readers.get_mut(&partition)?;
        let letter = records.get(usize::try_from(reader.next).expect("small"))?.clone();
        let (offset, place) = (reader.next, (TOPIC.into(), reader.next));
        reader.next += 1;
        let content = match letter.nature {
            Nature::Junk => Content::Refused(Source::Log(place)),
            Nature::Ignored => Content::Ignored(place),
            _ => Content::Message(message(&letter, Origin::Log(place))),
        };
        let (number, body) = self.keep(partition, Some(letter), false);
        body.offset = Some(offset);
        Some(Arrival { number, partition, term, content })
    }

    /// Hands an input to the machine, and does what it says as far as that takes no time.
    pub fn handle(
        &mut self,
        input: Input,
        now: Duration,
        store: &Store,
        coverage: &mut Coverage,
        journal: &mut Journal,
    ) -> Happened {
        if let Input::Counted(growth) = &input {
            self.heard = growth.current().0;
        }
        coverage.met(&input, &self.states);
        let mut happened = Happened::default();
        let mut actions: Vec<Action> = Vec::new();
        self.machine.handle(input, Now { boot: now, awake: now }, &mut actions);
        let after: States = self.machine.states().into_iter().collect();
        coverage.changed(&self.states, &after);
        self.states = after;
        journal.note(format_args!("-> {actions:?}"));
        if let Some(sabotage) = self.setup.sabotage {
            sabotage.change(&mut actions);
        }
        for action in actions {
            self.perform(action, store, &mut happened);
        }
        self.check_denied(store, &mut happened);
        let wrong = self.machine.audit().into_iter().map(|(invariant, detail)| (invariant.id(), detail));
        happened.violations.extend(wrong);
        happened
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
