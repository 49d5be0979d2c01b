//! A node of a simulation: its machines (takers, a lane, gates), its actors, readers and relay; the shell,
//! with every question an entry in a list.
//!
//! A node may die before or after anything that a machine has said is to be done. Deliberately absent: any
//! order of its own. What takes effect when, which answer comes first, and when a machine hears of what
//! another has said, is the world's to say.

mod answers;
mod kept;
mod perform;
mod readers;
mod relay;
mod takers;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    AggregateId, PartitionId,
    dedup::{ClaimKey, Fingerprint},
    growth::Growth,
    retry::RetryPolicy,
};
use holdfast_machine::{
    gate,
    lane::{self, Arrival, Message, Number, Origin},
    ownership,
};
use uuid::Uuid;

use self::kept::{Body, Clock, Held, InFlight, Listener, Memory, Order, Owned, Reader};
pub(super) use self::relay::{Flight, Relay};
use super::{
    Letter, Setup,
    coverage::{Death, States},
    log::{COMMANDS, Input},
    question::{Answer, Question},
    store::Store,
    surroundings::Surroundings,
};

const KIND: &str = "counter";

/// A node looks at the counts this often.
const COUNT_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub number: usize,
    pub is_alive: bool,
    pub clock: Clock,
    /// Until then it reaches neither the store nor the group, and clients reach it.
    pub cut_off_until: Duration,
    /// Where it can be called: one that starts again may have the address of one that died.
    pub address: usize,
    setup: Setup,
    takers: ownership::Machine,
    lane: lane::Machine,
    readers: BTreeMap<Input, Reader>,
    pub relay: Relay,
    /// Rows of mail in one look, at most.
    mail_max: usize,
    /// The counts as last heard.
    growth: Arc<Growth>,
    /// Who has not heard of them yet.
    unheard: BTreeSet<Listener>,
    counted_at: Duration,
    is_counting: bool,
    pub wants_counts: bool,
    held: BTreeMap<PartitionId, Held>,
    owned: BTreeMap<PartitionId, Owned>,
    /// The last batch that was committed to each partition.
    remembered: BTreeMap<PartitionId, u64>,
    /// Orders of the takers that the lane has not heard, and losses and ends that the takers have not.
    to_lane: VecDeque<Order>,
    to_takers: VecDeque<ownership::Input>,
    memory: Memory,
    in_flight: InFlight,
    bodies: BTreeMap<Number, Body>,
    numbers: u64,
    states: States,
    /// The lane has heard of something since its last turn.
    has_heard: bool,
}

impl Node {
    pub fn new(number: usize, address: usize, lease: Duration, setup: &Setup, around: &mut Surroundings) -> Self {
        let settings = lane::Settings {
            batch_items_max: around.dice.pick(&[1, 3, 32]),
            retry: RetryPolicy { budget: 3, base: Duration::from_millis(100), max: Duration::from_secs(5) },
            poll_every: Duration::from_millis(200),
            passivate_after: Duration::from_secs(20),
            live_max: around.dice.pick(&[2, 100]),
            ring_max: around.dice.pick(&[1, 2, 32]),
            rules: setup.rules,
        };
        let owning = ownership::Settings {
            address: address.to_string(),
            run: Uuid::from_u64_pair(around.dice.next(), around.dice.next()),
            commands_topic: COMMANDS.into(),
            lease,
            drift: Duration::from_millis(100),
            renew_every: Duration::from_millis(300),
            release_grace: around.dice.pick(&[Duration::ZERO, Duration::from_millis(300)]),
            drain: Duration::from_secs(1),
            rules: setup.rules,
        };
        let growth = Arc::new(around.store.growth(around.now));
        Self {
            number,
            is_alive: true,
            clock: Clock::default(),
            cut_off_until: Duration::ZERO,
            address,
            setup: setup.clone(),
            takers: ownership::Machine::new(owning, growth.clone()),
            lane: lane::Machine::new(settings, growth.clone()),
            readers: BTreeMap::new(),
            relay: Relay::default(),
            mail_max: around.dice.pick(&[1, 2, 1_000]),
            growth,
            unheard: BTreeSet::new(),
            counted_at: around.now,
            is_counting: false,
            wants_counts: false,
            held: BTreeMap::new(),
            owned: BTreeMap::new(),
            remembered: BTreeMap::new(),
            to_lane: VecDeque::new(),
            to_takers: VecDeque::new(),
            memory: Memory::default(),
            in_flight: InFlight::default(),
            bodies: BTreeMap::new(),
            numbers: 0,
            states: States::new(),
            has_heard: false,
        }
    }

    /// Whether it hears anything.
    pub fn is_awake(&self, now: Duration) -> bool {
        self.is_alive && self.clock.wakes_at <= now
    }

    /// Whether it hears of the store and of the group.
    pub fn is_connected(&self, now: Duration) -> bool {
        self.is_awake(now) && self.cut_off_until <= now
    }

    /// When something of it is due, by the time of the simulation.
    pub fn due(&self) -> Duration {
        let gates = self.readers.values().filter_map(Reader::due).min();
        let of_machines = [self.takers.due(), self.lane.due(), gates].into_iter().flatten().min();
        let of_machines = of_machines.map_or(Duration::MAX, |due| due + self.clock.slept);
        of_machines.min(self.counted_at + COUNT_EVERY).max(self.clock.wakes_at)
    }

    /// What is due happens, and the lane goes on in any case.
    pub fn pass_time(&mut self, around: &mut Surroundings) {
        let now = self.clock.now(around.now);
        if self.takers.due().is_some_and(|due| due <= now.awake) {
            self.tell_takers(ownership::Input::Tick, around);
        }
        for input in self.readers.keys().copied().collect::<Vec<_>>() {
            if self.readers.get(&input).and_then(Reader::due).is_some_and(|due| due <= now.awake) {
                self.tell_gate(input, gate::Input::Tick, around);
            }
        }
        if around.now >= self.counted_at + COUNT_EVERY {
            self.count(around);
        }
        if self.has_heard || self.lane.due().is_some_and(|due| due <= now.awake) || around.dice.one_in(8) {
            self.tell_lane(lane::Input::Turn, around);
        }
    }

    /// Whether the lane has heard of something since its last turn.
    pub const fn wants_turn(&self) -> bool {
        self.has_heard
    }

    /// Reads the counts, unless it does.
    pub fn count(&mut self, around: &mut Surroundings) {
        self.wants_counts = false;
        self.counted_at = around.now;
        if !std::mem::replace(&mut self.is_counting, true) {
            around.ask(self.number, Question::Count);
        }
    }

    /// Takes in an answer.
    pub fn hear(&mut self, answer: Answer, around: &mut Surroundings) {
        match answer {
            Answer::Lane(mut input) => {
                // Whatever arrives is numbered as it does.
                match &mut input {
                    lane::Input::Due { due, .. } => due.iter_mut().for_each(|arrival| self.number_again(arrival)),
                    lane::Input::Arrived(arrival) => self.number_again(arrival),
                    _ => {}
                }
                self.tell_lane(input, around);
            }
            Answer::Takers(input) => self.tell_takers(input, around),
            Answer::Gate(input, term, happened) => {
                // Of an earlier reader nothing is waited for any more.
                if self.readers.get(&input).is_some_and(|reader| reader.term == term) {
                    self.tell_gate(input, happened, around);
                }
            }
            Answer::Counts(growth, acts) => {
                self.is_counting = false;
                self.growth = growth;
                self.unheard = BTreeSet::from([Listener::Takers, Listener::Lane, Listener::Gates]);
                for act in acts {
                    around.ask(self.number, Question::Act(act));
                }
            }
            Answer::NotCounted => self.is_counting = false,
            Answer::Nothing => {}
        }
    }

    /// Whether one of its parts has said what another has not heard.
    pub fn has_news(&self) -> bool {
        !(self.unheard.is_empty() && self.to_lane.is_empty() && self.to_takers.is_empty())
    }

    /// One of its parts hears what another has said, or of the counts.
    pub fn pass_on(&mut self, around: &mut Surroundings) {
        let unheard: Vec<Listener> = self.unheard.iter().copied().collect();
        let (orders, losses) = (usize::from(!self.to_lane.is_empty()), usize::from(!self.to_takers.is_empty()));
        let at = around.dice.index(unheard.len() + orders + losses);
        match unheard.get(at) {
            Some(listener) => {
                self.unheard.remove(listener);
                let growth = self.growth.clone();
                match listener {
                    Listener::Takers => self.tell_takers(ownership::Input::Counted(growth), around),
                    Listener::Lane => self.tell_lane(lane::Input::Counted(growth), around),
                    Listener::Gates => self.tell_gates(around),
                }
            }
            None if at < unheard.len() + orders => self.obey(around),
            None => {
                if let Some(input) = self.to_takers.pop_front() {
                    self.tell_takers(input, around);
                }
            }
        }
    }

    /// What the machines wait for, and what they hold.
    pub fn left_over(&self) -> String {
        let waits: Vec<_> = self.takers.phases().collect();
        format!("{:?}, {:?}, {waits:?}, {:?}", self.states, self.lane.doing(), self.readers)
    }

    pub fn waits_for_nothing(&self) -> bool {
        self.bodies.is_empty() && !self.has_news()
    }

    /// Deliveries and reads that have not ended, although nothing is under way.
    pub fn never_ended(&self) -> Option<String> {
        let Memory { decided, busy, awaiting, .. } = &self.memory;
        let is_empty = decided.is_empty() && busy.is_empty() && awaiting.is_empty();
        (!is_empty).then(|| format!("{decided:?}, {busy:?}, {awaiting:?}"))
    }

    /// The relay goes on with a partition.
    pub fn publish_on(&mut self, partition: PartitionId, around: &mut Surroundings) {
        if let Some((ask, token)) = self.relay.go_on(partition, around) {
            self.to_takers.push_back(ownership::Input::HandedOver { ask, token: Some(token) });
        }
    }

    /// Whether it holds a partition, or believes so.
    pub fn holds(&self, partition: PartitionId) -> bool {
        self.held.contains_key(&partition)
    }

    fn is_serving(&self, partition: PartitionId) -> bool {
        self.held.get(&partition).is_some_and(|held| held.is_serving)
    }

    /// Partitions whose strong reads it may answer.
    pub fn leased(&self, now: Duration) -> impl Iterator<Item = PartitionId> {
        let is_leased = move |(_, held): &(&PartitionId, &Held)| held.lease_until > now;
        self.held.iter().filter(is_leased).map(|(partition, _)| *partition)
    }

    /// Actors in memory of partitions that the store says are another's.
    pub fn outlived(&self, store: &Store) -> Vec<(PartitionId, Arc<str>)> {
        let is_fenced = |(partition, held): &(&PartitionId, &Held)| {
            !store.token(**partition).is_some_and(|token| held.tokens.contains(&token))
        };
        let of = |(partition, held): (&PartitionId, &Held)| {
            let (partition, term) = (*partition, held.term);
            let actors = self.memory.actors.keys().filter(move |(of, _)| *of == term);
            actors.map(move |(_, key)| (partition, key.clone())).collect::<Vec<_>>()
        };
        self.held.iter().filter(is_fenced).flat_map(of).collect()
    }

    /// The ownerships that it has.
    pub fn terms(&self) -> Vec<(PartitionId, u64)> {
        self.held.iter().map(|(partition, held)| (*partition, held.term)).collect()
    }

    /// An ownership ends without an order of the takers.
    pub fn lose(&mut self, partition: PartitionId, term: u64, cause: ownership::Loss) {
        self.to_takers.push_back(ownership::Input::Lost { partition, term, cause });
    }

    /// Does what a machine, one `of` these, says, unless the node dies before it. Returns whether it lives
    /// on.
    fn lives_through<A: Debug>(
        &mut self,
        of: &'static str,
        action: A,
        around: &mut Surroundings,
        perform: impl FnOnce(&mut Self, A, &mut Surroundings),
    ) -> bool {
        let death = around.death(self.number, of, &action);
        if death != Some(Death::Before) {
            perform(self, action, around);
        }
        self.is_alive &= death.is_none();
        death.is_none()
    }

    fn keep(&mut self, partition: PartitionId, term: u64, letter: Option<Letter>) -> (Number, &mut Body) {
        self.numbers += 1;
        let number = Number(self.numbers);
        let body = Body {
            letter,
            partition,
            term,
            record: None,
            mail: None,
            firing: None,
            is_end: false,
            is_call: false,
            is_answered: false,
            at_least: 0,
        };
        (number, self.bodies.entry(number).insert_entry(body).into_mut())
    }

    fn number_again(&mut self, arrival: &mut Arrival) {
        self.numbers += 1;
        let number = Number(self.numbers);
        let body = self.bodies.remove(&std::mem::replace(&mut arrival.number, number));
        self.bodies.extend(body.map(|body| (number, body)));
    }

    /// A call arrives; a node that does not serve the partition answers that it is not the owner.
    pub fn call(&mut self, partition: PartitionId, letter: Letter, around: &mut Surroundings) {
        let Some(&Held { term, is_serving: true, .. }) = self.held.get(&partition) else { return };
        let content = lane::Content::Message(message(&letter, Origin::Call));
        let (number, body) = self.keep(partition, term, Some(letter));
        body.is_call = true;
        self.tell_lane(lane::Input::Arrived(Arrival { number, partition, term, content }), around);
    }
}

fn id(key: &Arc<str>) -> AggregateId {
    AggregateId { kind: KIND, key: key.clone() }
}

/// What a letter is recognised by: bodies are all alike.
fn fingerprint(letter: &Letter) -> Fingerprint {
    let key = ClaimKey { id: Uuid::from_u128(u128::from(letter.id)), scope: Uuid::nil() };
    Fingerprint { key, body: Uuid::nil() }
}

fn message(letter: &Letter, origin: Origin) -> Message {
    let [seed, ..] = letter.id.to_le_bytes();
    let (aggregate, hash) = (id(&letter.key), letter.hash());
    let fingerprint = letter.is_claimed().then(|| fingerprint(letter));
    Message { aggregate, hash, origin, fingerprint, seed, failure: None }
}
