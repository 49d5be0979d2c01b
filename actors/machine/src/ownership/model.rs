//! Take-over and lease, explored exhaustively: the machine itself, several nodes of it, one partition.
//!
//! The group may assign the partition to any node at any time and to several at once; any node may crash at
//! any moment and come back under its address. What a node asks of the store is done at any later moment, so
//! anything may come in between; a renewal's look is answered later still. Only a tick makes time pass, for
//! all nodes alike. A question that no taker waits for any more fails: that it was done just before is
//! another path, and done later it serves nobody, since it is conditional on the epoch or the token. Two
//! states are one if they differ in nothing that a machine compares: times count from now and up to a lease,
//! tokens, epochs and beats count as the store's own or not. Deliberately absent: clocks that drift, errors
//! of the store, growth, histories, commits, reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    epoch::{Beat, Epoch, Generation, PartitionRow, Token},
    growth::{Counts, Growth},
    port::store::{StoreError, Taken},
};
use stateright::{Checker as _, Model, Property};
use uuid::Uuid;

use super::{Action, Input, Loss, Machine, Renewal, Settings, Unsound, edges, taker::Phase};
use crate::{Now, Rules, explore::explore};

const P: PartitionId = PartitionId(0);
const TOPIC: &str = "t.commands";
const TICK: Duration = Duration::from_secs(1);

/// What the store does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    Sound,
    /// An owner counts as having begun from when it raised the epoch.
    BegunAtRaise,
    /// The last owner's beat is read before the epoch is raised, and no lock is held in between.
    ReadsBeatBeforeRaise,
}

#[derive(Clone, Debug)]
struct Leases {
    nodes: usize,
    /// In ticks.
    lease: u32,
    rules: Rules,
    store: Store,
    /// A look at the rows is answered later than it was done.
    answers_late: bool,
    /// Whatever is asked may fail, the counts become known late, and a lane may lose its partition.
    is_troubled: bool,
}

/// Something that a node has asked for and that has not been done, or is not known to be.
#[derive(Clone, Debug)]
enum Pending {
    Asked { action: Action, beat: Option<Beat> },
    Answered(Input),
}

#[derive(Clone, Debug)]
struct Node {
    machine: Machine,
    pending: Vec<Pending>,
    /// What it serves, and until when it may answer.
    serving: Option<(u64, Token)>,
    lease: Duration,
    is_assigned: bool,
}

#[derive(Clone, Debug)]
struct State {
    now: Duration,
    nodes: Vec<Node>,
    row: PartitionRow,
    beats: BTreeMap<String, Beat>,
    /// Numbers tokens and runs.
    drawn: u128,
    lease: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Tick,
    Assign(usize),
    Unassign(usize),
    Crash(usize),
    Do(usize, usize),
    Fail(usize, usize),
    /// A check of the history finds it lost.
    Halt(usize, usize),
    Count(usize),
    Lose(usize),
}

fn growth() -> Arc<Growth> {
    let counts = Counts { first: 1, ..Counts::default() };
    let topics = BTreeMap::from([(TOPIC.to_owned(), counts)]);
    Arc::new(Growth { topics, generations: BTreeMap::from([(Generation(1), 1)]), ..Growth::default() })
}

impl Leases {
    fn node(&self, at: usize, run: u128) -> Node {
        let settings = Settings {
            address: at.to_string(),
            run: Uuid::from_u128(run),
            commands_topic: TOPIC.into(),
            lease: TICK * self.lease,
            drift: Duration::ZERO,
            renew_every: TICK,
            release_grace: Duration::ZERO,
            drain: TICK * 1_000,
            rules: self.rules,
        };
        let machine = Machine::new(settings, if self.is_troubled { Arc::default() } else { growth() });
        Node { machine, pending: Vec::new(), serving: None, lease: Duration::ZERO, is_assigned: false }
    }

    /// Tells a node what happened, and does at once what nothing need come between.
    fn tell(&self, state: &mut State, at: usize, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let now = Now { boot: state.now, awake: state.now };
            let (mut actions, node) = (Vec::new(), &mut state.nodes[at]);
            let Node { machine, pending, .. } = node;
            let (awaited, rest): (Vec<_>, Vec<_>) =
                std::mem::take(pending).into_iter().partition(|pending| pending.is_awaited(machine));
            machine.handle(input, now, &mut actions);
            assert!(machine.due().is_none_or(|due| due > state.now), "a tick would follow at once");
            for question in awaited {
                match question {
                    question if question.is_awaited(machine) => pending.push(question),
                    Pending::Asked { action, .. } => inputs.push(Self::failure(&action)),
                    Pending::Answered(_) => {}
                }
            }
            pending.extend(rest);
            for action in actions {
                match action {
                    Action::Serve(grant) => {
                        (node.serving, node.lease) = (Some((grant.term, grant.token)), grant.lease_until);
                    }
                    Action::Renew { until, .. } => node.lease = node.lease.max(until),
                    // What it served is still known to its lane until that has handed it over.
                    Action::Close { .. } => node.lease = Duration::ZERO,
                    Action::Drop { .. } => node.serving = None,
                    Action::ReadRows { .. }
                    | Action::Verify { .. }
                    | Action::Confirm { .. }
                    | Action::HandOver { .. }
                        if self.is_troubled =>
                    {
                        node.pending.push(Pending::Asked { action, beat: None });
                    }
                    Action::HandOver { ask, .. } => {
                        let token = node.serving.take().map(|(_, token)| token);
                        inputs.push(Input::HandedOver { ask, token });
                    }
                    Action::ReadRows { ask } if node.machine.looks() => {
                        inputs.push(Input::RowsRead { ask, rows: Ok(vec![state.row.clone()]) });
                    }
                    Action::Verify { ask, .. } => inputs.push(Input::Verified { ask, known: Ok(None) }),
                    Action::Confirm { ask, .. } => {
                        inputs.push(Input::Confirmed { ask, is_confirmed: node.is_assigned });
                    }
                    Action::HurryCounts | Action::Leave | Action::Report(_) => {}
                    Action::Raise { .. } => {
                        let beat = state.beats.get(&state.row.address).copied().filter(|_| state.row.has_begun);
                        node.pending.push(Pending::Asked { action, beat });
                    }
                    Action::ReadRows { .. }
                    | Action::Beat { .. }
                    | Action::Acknowledge { .. }
                    | Action::Look { .. }
                    | Action::Release { .. } => node.pending.push(Pending::Asked { action, beat: None }),
                }
            }
        }
    }

    /// The store does what was asked.
    fn perform(&self, state: &mut State, at: usize, action: Action, early: Option<Beat>) {
        let row = &mut state.row;
        let answer = match action {
            Action::Raise { ask, expected, .. } => {
                state.drawn += 1;
                let token = Token(Uuid::from_u128(state.drawn));
                let taken = (row.epoch == expected).then(|| {
                    let (released, has_begun) = (row.released, row.has_begun);
                    let beat = match self.store {
                        Store::ReadsBeatBeforeRaise => early,
                        _ => state.beats.get(&row.address).copied().filter(|_| has_begun),
                    };
                    row.epoch = Epoch(row.epoch.0 + 1);
                    (row.token, row.address, row.released) = (Some(token), at.to_string(), false);
                    row.has_begun = self.store == Store::BegunAtRaise;
                    Taken { row: PartitionRow { released, has_begun, ..row.clone() }, beat }
                });
                Input::Raised { ask, token, taken: Ok(taken) }
            }
            Action::Beat { ask, beat } => {
                let said = Ok(state.beats.clone());
                state.beats.insert(at.to_string(), beat);
                Input::Beaten { ask, said }
            }
            Action::ReadRows { ask } => Input::RowsRead { ask, rows: Ok(vec![row.clone()]) },
            Action::Acknowledge { ask, token, .. } => {
                let is_owner = row.token == Some(token);
                row.has_begun |= is_owner;
                Input::Acknowledged { ask, row: Ok(is_owner.then(|| row.clone())) }
            }
            Action::Look { ask, owned } => {
                let node = &mut state.nodes[at];
                let is_ours = |term| node.serving.is_some_and(|serving| serving == (term, row.token.expect("taken")));
                let ours = owned.into_iter().map(|(partition, term)| (partition, is_ours(term))).collect();
                let answer = Input::Looked { ask, ours: Ok(ours) };
                if self.answers_late {
                    return node.pending.push(Pending::Answered(answer));
                }
                answer
            }
            Action::Release { ask, token, .. } => {
                let is_released = row.token == Some(token);
                row.released |= is_released;
                Input::Released { ask, is_released }
            }
            Action::Verify { ask, .. } => Input::Verified { ask, known: Ok(None) },
            Action::Confirm { ask, .. } => Input::Confirmed { ask, is_confirmed: state.nodes[at].is_assigned },
            Action::HandOver { ask, .. } => {
                let token = state.nodes[at].serving.take().map(|(_, token)| token);
                Input::HandedOver { ask, token }
            }
            _ => unreachable!("{action:?} asks for nothing"),
        };
        self.tell(state, at, answer);
    }

    /// The answer to what is not done.
    fn failure(action: &Action) -> Input {
        let away = || StoreError::Unavailable("away".to_owned());
        match *action {
            Action::Raise { ask, .. } => Input::Raised { ask, token: Token(Uuid::nil()), taken: Err(away()) },
            Action::Beat { ask, .. } => Input::Beaten { ask, said: Err(away()) },
            Action::ReadRows { ask } => Input::RowsRead { ask, rows: Err(away()) },
            Action::Acknowledge { ask, .. } => Input::Acknowledged { ask, row: Err(away()) },
            Action::Look { ask, .. } => Input::Looked { ask, ours: Err(away()) },
            Action::Release { ask, .. } => Input::Released { ask, is_released: false },
            Action::Verify { ask, .. } => Input::Verified { ask, known: Err(Unsound::Away(String::new())) },
            Action::Confirm { ask, .. } => Input::Confirmed { ask, is_confirmed: false },
            Action::HandOver { ask, .. } => Input::HandedOver { ask, token: None },
            _ => unreachable!("{action:?} asks for nothing"),
        }
    }
}

impl Model for Leases {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        let row = PartitionRow::new(P, Generation(1));
        let nodes = (0..self.nodes).map(|at| self.node(at, at as u128)).collect();
        let (now, lease) = (TICK * 100, TICK * self.lease);
        vec![State { now, nodes, row, beats: BTreeMap::new(), drawn: 1_000, lease }]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        moves.push(Move::Tick);
        for (at, node) in state.nodes.iter().enumerate() {
            if node.is_assigned {
                moves.push(Move::Unassign(at));
            } else {
                moves.push(Move::Assign(at));
            }
            moves.push(Move::Crash(at));
            moves.extend((0..node.pending.len()).map(|number| Move::Do(at, number)));
            if self.is_troubled {
                moves.extend((0..node.pending.len()).map(|number| Move::Fail(at, number)));
                let is_check = |number: &usize| {
                    matches!(node.pending[*number], Pending::Asked { action: Action::Verify { .. }, .. })
                };
                moves.extend((0..node.pending.len()).filter(is_check).map(|number| Move::Halt(at, number)));
                moves.extend(node.machine.growth.generations.is_empty().then_some(Move::Count(at)));
                moves.extend(node.serving.map(|_| Move::Lose(at)));
            }
        }
    }

    fn next_state(&self, last: &State, r#move: Move) -> Option<State> {
        let mut state = last.clone();
        match r#move {
            Move::Tick => {
                state.now += TICK;
                (0..self.nodes).for_each(|at| self.tell(&mut state, at, Input::Tick));
            }
            Move::Assign(at) => {
                state.nodes[at].is_assigned = true;
                self.tell(&mut state, at, Input::Assigned([P].into()));
            }
            Move::Unassign(at) => {
                state.nodes[at].is_assigned = false;
                self.tell(&mut state, at, Input::Assigned([].into()));
            }
            Move::Crash(at) => {
                state.drawn += 1;
                state.nodes[at] = self.node(at, state.drawn);
            }
            Move::Do(at, number) => match state.nodes[at].pending.remove(number) {
                Pending::Asked { action, beat } => self.perform(&mut state, at, action, beat),
                Pending::Answered(input) => self.tell(&mut state, at, input),
            },
            Move::Fail(at, number) => {
                if let Pending::Asked { action, .. } = state.nodes[at].pending.remove(number) {
                    self.tell(&mut state, at, Self::failure(&action));
                }
            }
            Move::Halt(at, number) => {
                if let Pending::Asked { action: Action::Verify { ask, .. }, .. } =
                    state.nodes[at].pending.remove(number)
                {
                    self.tell(&mut state, at, Input::Verified { ask, known: Err(Unsound::Halted) });
                }
            }
            Move::Count(at) => self.tell(&mut state, at, Input::Counted(growth())),
            Move::Lose(at) => {
                if let Some((term, _)) = state.nodes[at].serving {
                    self.tell(&mut state, at, Input::Lost { partition: P, term, cause: Loss::SupervisorDied });
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SERVES_ALONE, |_, state: &State| {
                let owns = |node: &Node| node.serving.is_some_and(|(_, token)| state.row.token == Some(token));
                let Some(owner) = state.nodes.iter().position(owns) else { return true };
                state.nodes.iter().enumerate().all(|(at, node)| at == owner || node.lease <= state.now)
            }),
            Property::sometimes("a silent owner's lease is not waited for", |_, state: &State| {
                state.phases().any(|phase| {
                    let left = |until: &Duration| until.saturating_sub(state.now);
                    matches!(phase, Phase::Waiting { until, .. } if !state.row.released && left(until) < state.lease)
                })
            }),
            Property::sometimes("an owner renews", |_, state: &State| {
                state
                    .nodes
                    .iter()
                    .any(|node| node.serving.is_some() && matches!(node.machine.renewal, Renewal::Looking { .. }))
            }),
            Property::sometimes("a partition is released", |_, state: &State| {
                state.row.released && state.row.epoch > Epoch(0)
            }),
        ]
    }
}

const SERVES_ALONE: &str = "while an owner serves, no other node's lease runs";

impl State {
    fn phases(&self) -> impl Iterator<Item = &Phase> {
        self.nodes.iter().filter_map(|node| node.machine.takers.get(&P)).map(|taker| &taker.phase)
    }

    /// How far `time` lies ahead.
    fn ahead(&self, time: Duration) -> Duration {
        time.saturating_sub(self.now)
    }

    /// How long `time` is ago: beyond a lease all are alike.
    fn ago(&self, time: Duration) -> Duration {
        self.now.saturating_sub(time).min(self.lease)
    }

    fn is_current(&self, token: Token) -> bool {
        self.row.token == Some(token)
    }
}

impl Pending {
    /// Whether `machine` waits for it.
    fn is_awaited(&self, machine: &Machine) -> bool {
        match self {
            Self::Answered(Input::Looked { ask, .. })
            | Self::Asked {
                action:
                    Action::ReadRows { ask }
                    | Action::Verify { ask, .. }
                    | Action::Confirm { ask, .. }
                    | Action::HandOver { ask, .. }
                    | Action::Raise { ask, .. }
                    | Action::Beat { ask, .. }
                    | Action::Acknowledge { ask, .. }
                    | Action::Look { ask, .. }
                    | Action::Release { ask, .. },
                ..
            } => machine.awaits(*ask),
            _ => false,
        }
    }
}

impl Machine {
    /// Whether the rows are read for a first look.
    fn looks(&self) -> bool {
        self.takers.values().all(|taker| !matches!(taker.phase, Phase::Reading { .. }))
    }

    fn awaits(&self, ask: crate::Ask) -> bool {
        let of_phase = |phase: &Phase| match phase {
            Phase::Looking(step)
            | Phase::Raising { step, .. }
            | Phase::Beating { step, .. }
            | Phase::Reading { step, .. }
            | Phase::Verifying { step, .. }
            | Phase::Acknowledging { step, .. } => step.ask,
            Phase::HandingOver { ask, .. } | Phase::Releasing { ask, .. } => Some(*ask),
            Phase::Doubted { ask } => *ask,
            Phase::Waiting { .. }
            | Phase::Counting { .. }
            | Phase::Serving { .. }
            | Phase::Closing { .. }
            | Phase::Ended => None,
        };
        let of_renewal = match &self.renewal {
            Renewal::Idle { .. } => None,
            Renewal::Beating { ask, .. } | Renewal::Looking { ask, .. } => Some(*ask),
        };
        let asks = self.takers.values().map(|taker| of_phase(&taker.phase)).chain([of_renewal]);
        asks.flatten().any(|waited| waited == ask)
    }
}

/// See the module: what no machine compares is left out.
impl Hash for State {
    fn hash<H: Hasher>(&self, to: &mut H) {
        (&self.row.address, self.row.released, self.row.has_begun).hash(to);
        self.beats.keys().for_each(|address| address.hash(to));
        for node in &self.nodes {
            let machine = &node.machine;
            machine.growth.generations.is_empty().hash(to);
            (node.is_assigned, self.ahead(node.lease), node.serving.map(|(_, token)| self.is_current(token))).hash(to);
            for (address, heard) in &machine.desk.beats.0 {
                let is_last = self.beats.get(address) == Some(&heard.beat);
                let counts = is_last || !machine.desk.settings.rules.asks_for_last_beat;
                (address, is_last, counts.then(|| self.ago(heard.first))).hash(to);
            }
            match &machine.renewal {
                Renewal::Idle { due } => (0_u8, self.ahead(*due)).hash(to),
                Renewal::Beating { sent, due, .. } => (1_u8, self.ago(*sent), self.ahead(*due)).hash(to),
                Renewal::Looking { sent, due, .. } => (2_u8, self.ago(*sent), self.ahead(*due)).hash(to),
            }
            if let Some(taker) = machine.takers.get(&P) {
                std::mem::discriminant(&taker.phase).hash(to);
                match &taker.phase {
                    Phase::Looking(step) => (self.ahead(step.due), step.ask.is_some()).hash(to),
                    Phase::Raising { step, row } => {
                        let is_expected = row.epoch == self.row.epoch;
                        (self.ahead(step.due), step.ask.is_some(), is_expected, &row.address).hash(to);
                    }
                    Phase::Waiting { until, token } => (self.ahead(*until), self.is_current(*token)).hash(to),
                    Phase::Beating { step, token, sent }
                    | Phase::Reading { step, token, sent }
                    | Phase::Verifying { step, token, sent, .. }
                    | Phase::Counting { step, token, sent, .. }
                    | Phase::Acknowledging { step, token, sent, .. } => {
                        let due = self.ahead(step.due);
                        (step.ask.is_some(), due, self.ago(*sent), self.is_current(*token)).hash(to);
                    }
                    Phase::Closing { due, .. } => self.ahead(*due).hash(to),
                    Phase::Doubted { ask } => ask.is_some().hash(to),
                    Phase::Serving { .. } | Phase::HandingOver { .. } | Phase::Releasing { .. } | Phase::Ended => {}
                }
            }
            (machine.takers.contains_key(&P), node.pending.len()).hash(to);
            for pending in &node.pending {
                match pending {
                    Pending::Asked { action, beat } => {
                        std::mem::discriminant(action).hash(to);
                        match action {
                            Action::Raise { ask, expected, .. } => {
                                let is_beat_last = beat.map(|beat| self.beats.get(&self.row.address) == Some(&beat));
                                (machine.awaits(*ask), *expected == self.row.epoch, is_beat_last).hash(to);
                            }
                            Action::Acknowledge { ask, token, .. } | Action::Release { ask, token, .. } => {
                                (machine.awaits(*ask), self.is_current(*token)).hash(to);
                            }
                            Action::Beat { ask, .. } => machine.awaits(*ask).hash(to),
                            _ => {}
                        }
                    }
                    Pending::Answered(Input::Looked { ours, .. }) => format!("{ours:?}").hash(to),
                    Pending::Answered(_) => {}
                }
            }
        }
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let of = |state: &Self| {
            std::hash::BuildHasher::hash_one(
                &std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default(),
                state,
            )
        };
        of(self) == of(other)
    }
}

const SOUND: Leases =
    Leases { nodes: 2, lease: 2, rules: Rules::SOUND, store: Store::Sound, answers_late: false, is_troubled: false };

#[test]
fn owner_that_serves_is_the_only_one_to_answer() {
    let began = std::time::Instant::now();
    let (states, found) = explore(&SOUND, &[SERVES_ALONE], |_| String::new());
    println!("{states} states in {:?}", began.elapsed());
    assert_eq!(found, None);
}

#[test]
fn rule_left_out_lets_two_nodes_answer() {
    let without = |name, rules| (name, Leases { rules, ..SOUND });
    let broken = [
        without("raises_before_waiting", Rules { raises_before_waiting: false, ..Rules::SOUND }),
        (
            "lease_counts_from_sending",
            Leases { rules: Rules { lease_counts_from_sending: false, ..Rules::SOUND }, answers_late: true, ..SOUND },
        ),
        without("beats_before_looking", Rules { beats_before_looking: false, ..Rules::SOUND }),
        without("beats_before_beginning", Rules { beats_before_beginning: false, ..Rules::SOUND }),
        without("asks_for_last_beat", Rules { asks_for_last_beat: false, ..Rules::SOUND }),
        without("gives_up_silently", Rules { gives_up_silently: false, ..Rules::SOUND }),
        without("ends_lease_before_releasing", Rules { ends_lease_before_releasing: false, ..Rules::SOUND }),
        without("checks_lease", Rules { checks_lease: false, ..Rules::SOUND }),
        ("beat read before raise", Leases { store: Store::ReadsBeatBeforeRaise, ..SOUND }),
    ];
    let mut harmless = Vec::new();
    for (name, leases) in broken {
        let (states, found) = explore(&leases, &[SERVES_ALONE], |_| String::new());
        println!("{name}: {states} states, {found:?}");
        if found.is_none() {
            harmless.push(name);
        }
    }
    assert!(harmless.is_empty(), "harmless: {harmless:?}");
}

/// Three nodes, too many to explore: one serves and renews, one raises the epoch and gives up, and the third
/// has long known that the second is silent.
fn third_node_takes_over(store: Store) -> bool {
    let leases = Leases { nodes: 3, store, ..SOUND };
    let mut state = leases.init_states().remove(0);
    let step = |state: &mut State, r#move| *state = leases.next_state(state, r#move).expect("a state");
    let do_all = |state: &mut State, at: usize| {
        while !state.nodes[at].pending.is_empty() {
            step(state, Move::Do(at, 0));
        }
    };
    let [first, second, third] = [0, 1, 2];
    step(&mut state, Move::Tick);
    for at in [second, third] {
        do_all(&mut state, at);
    }
    step(&mut state, Move::Assign(first));
    for _ in 0..=leases.lease {
        step(&mut state, Move::Tick);
        for at in [first, third] {
            do_all(&mut state, at);
        }
    }
    step(&mut state, Move::Assign(second));
    let is_raise = |pending: &Pending| matches!(pending, Pending::Asked { action: Action::Raise { .. }, .. });
    let raise = state.nodes[second].pending.iter().position(is_raise).expect("it raises the epoch");
    step(&mut state, Move::Do(second, raise));
    step(&mut state, Move::Unassign(second));
    step(&mut state, Move::Assign(third));
    do_all(&mut state, third);
    let holds = leases.properties().remove(0).condition;
    holds(&leases, &state)
}

#[test]
fn owner_counts_as_begun_from_its_acknowledgement() {
    assert!(third_node_takes_over(Store::Sound));
    assert!(!third_node_takes_over(Store::BegunAtRaise), "harmless");
}

/// The edges of the state diagram in `actors/README.md`.
fn drawn() -> BTreeSet<(&'static str, &'static str)> {
    let readme = include_str!("../../../README.md");
    let mut diagrams = readme.split("```mermaid\nstateDiagram-v2\n").skip(1);
    let diagram = diagrams.find(|diagram| diagram.contains("[*] --> Looking:")).expect("the taker's diagram");
    let lines = diagram.split("```").next().unwrap_or_default().lines();
    lines
        .filter_map(|line| line.split_once(" --> "))
        .map(|(from, to)| (from.trim(), to.split(':').next().unwrap_or_default().trim()))
        .collect()
}

#[test]
fn diagram_shows_every_change_of_phase() {
    let troubled = Leases { is_troubled: true, ..SOUND };
    let checker = troubled.checker().threads(2).target_max_depth(13).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    assert_eq!(checker.discovery(SERVES_ALONE).map(stateright::Path::into_actions), None);
    let seen = edges::seen();
    assert_eq!(drawn().symmetric_difference(&seen).collect::<Vec<_>>(), Vec::<&(&str, &str)>::new(), "seen: {seen:?}");
}
