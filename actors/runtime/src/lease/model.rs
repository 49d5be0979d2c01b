//! The lease and its take-over, explored exhaustively.
//!
//! Three nodes, one partition. The group may assign the partition to anybody at any time and to several at once; any node may stand still at
//! any step, give up, or crash and come back under its address. A tick is the only time there is: it shortens every lease and wait and ages
//! everything remembered. Each step that the store takes is one step here, so everything may come between two of them; an answer
//! arrives at once, which is the most generous lease and the earliest memory. Who takes forgets what it has heard of others, which only
//! keeps the state small: a third node remembers in its place. What the model says of the rules holds for the code as far as the code
//! does these steps in this order. Deliberately absent: commits, reads, growth, and clocks that drift.

use stateright::{Checker as _, Model, Property};

const NODES: usize = 3;
const LEASE: u8 = 3;

/// Which rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// A renewal asks for its token before it has said that it lives.
    AsksBeforeBeat,
    /// A first lease is taken without a word.
    BeginsWithoutBeat,
    /// A taker counts as having begun from when it raised the epoch.
    BegunAtTake,
    /// A taker reads the owner's last word before it raises the epoch, and no lock is held in between.
    LooksBeforeBump,
    /// Who gives up while it waits marks the row as released.
    ReleasedByGiverUp,
    /// Whoever was heard of once counts as silent since, whatever it said later.
    RemembersOldWord,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    /// [`Broken::LooksBeforeBump`] alone: it knows how long it will wait.
    Looked {
        wait: u8,
        /// Whose it was; the epoch is raised only if it still is.
        token: Option<u8>,
    },
    Waiting {
        left: u8,
        /// Whether it waits for less than a lease though nobody released.
        is_short: bool,
    },
    /// Since when it began.
    Beginning {
        age: u8,
        step: Step,
    },
    Owner {
        renewal: Option<(u8, Step)>,
    },
    /// Its lease is ended; the row does not say so yet.
    Releasing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Sent,
    Beaten,
    /// It has seen its own token.
    Asked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node {
    phase: Phase,
    /// Ticks for which it may answer.
    lease: u8,
    /// For how long each node's last word is known to be its last; `None` if a later one was said or none was heard.
    heard: [Option<u8>; NODES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    nodes: [Node; NODES],
    token: Option<u8>,
    released: bool,
    /// Whether the last taker has begun to serve: nobody else holds a lease then.
    has_begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    Hear(usize, usize),
    Take(usize),
    Step(usize),
    /// An owner starts a renewal.
    Renew(usize),
    /// The assignment goes.
    Leave(usize),
    Crash(usize),
}

impl State {
    /// How long `taker` waits, as far as it knows.
    fn wait(&self, taker: usize) -> (u8, bool) {
        if self.released {
            return (0, false);
        }
        let owner = self.token.filter(|_| self.has_begun);
        let heard = owner.and_then(|owner| self.nodes[taker].heard[usize::from(owner)]);
        heard.map_or((LEASE, false), |age| (LEASE - age.min(LEASE), age > 0))
    }
}

struct Leases(Broken);

impl Leases {
    fn bump(&self, state: &mut State, taker: usize, (left, is_short): (u8, bool)) {
        state.token = Some(index(taker));
        state.released = false;
        state.has_begun = self.0 == Broken::BegunAtTake;
        state.nodes[taker] = Node { phase: Phase::Waiting { left, is_short }, ..FORGETFUL };
    }

    /// It is known to live: nobody's memory of an earlier word counts any more.
    fn beat(&self, state: &mut State, speaker: usize) {
        if self.0 != Broken::RemembersOldWord {
            for node in &mut state.nodes {
                node.heard[speaker] = None;
            }
        }
    }

    fn step(&self, state: &mut State, at: usize) {
        let owns = state.token == Some(index(at));
        let mut node = state.nodes[at];
        match node.phase {
            Phase::Idle | Phase::Waiting { left: 1.., .. } | Phase::Owner { renewal: None } => return,
            Phase::Looked { wait, token } if token == state.token => return self.bump(state, at, (wait, wait < LEASE)),
            Phase::Waiting { left: 0, .. } => {
                let step = if self.0 == Broken::BeginsWithoutBeat { Step::Beaten } else { Step::Sent };
                node.phase = Phase::Beginning { age: 0, step };
            }
            Phase::Beginning { age, step: Step::Sent } => {
                self.beat(state, at);
                node.heard = state.nodes[at].heard;
                node.phase = Phase::Beginning { age, step: Step::Beaten };
            }
            Phase::Beginning { age, step: Step::Beaten } if owns => {
                node.phase = Phase::Beginning { age, step: Step::Asked };
            }
            Phase::Beginning { age, step: Step::Asked } if owns => {
                state.has_begun = true;
                node.lease = LEASE - age.min(LEASE);
                node.phase = Phase::Owner { renewal: None };
            }
            Phase::Owner { renewal: Some((age, Step::Sent)) } if self.0 == Broken::AsksBeforeBeat => {
                node = if owns { renewed(node, age, Some((age, Step::Asked))) } else { idle(node) };
            }
            Phase::Owner { renewal: Some((age, step @ (Step::Sent | Step::Asked))) } => {
                self.beat(state, at);
                node.heard = state.nodes[at].heard;
                node.phase = Phase::Owner { renewal: (step == Step::Sent).then_some((age, Step::Beaten)) };
            }
            Phase::Owner { renewal: Some((age, Step::Beaten)) } => {
                node = if owns { renewed(node, age, None) } else { idle(node) };
            }
            Phase::Releasing => {
                state.released |= owns;
                node = idle(node);
            }
            Phase::Beginning { .. } | Phase::Looked { .. } => node = idle(node),
        }
        state.nodes[at] = node;
    }
}

/// A node that has just started.
const FORGETFUL: Node = Node { phase: Phase::Idle, lease: 0, heard: [None; NODES] };

fn index(node: usize) -> u8 {
    u8::try_from(node).expect("three nodes")
}

fn idle(node: Node) -> Node {
    Node { phase: Phase::Idle, lease: 0, ..node }
}

fn renewed(node: Node, age: u8, renewal: Option<(u8, Step)>) -> Node {
    Node { lease: node.lease.max(LEASE - age.min(LEASE)), phase: Phase::Owner { renewal }, ..node }
}

fn tick(node: &mut Node) {
    node.lease = node.lease.saturating_sub(1);
    for age in node.heard.iter_mut().flatten() {
        *age = LEASE.min(*age + 1);
    }
    match &mut node.phase {
        Phase::Looked { wait: left, .. } | Phase::Waiting { left, .. } => *left = left.saturating_sub(1),
        Phase::Beginning { age, .. } | Phase::Owner { renewal: Some((age, _)) } => *age = LEASE.min(*age + 1),
        Phase::Idle | Phase::Owner { renewal: None } | Phase::Releasing => {}
    }
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { nodes: [FORGETFUL; NODES], token: None, released: true, has_begun: false }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        for at in 0..NODES {
            let phase = state.nodes[at].phase;
            match phase {
                Phase::Idle => {
                    actions.push(Action::Take(at));
                    actions.extend((0..NODES).filter(|of| *of != at).map(|of| Action::Hear(at, of)));
                }
                Phase::Owner { renewal: None } => actions.push(Action::Renew(at)),
                _ => actions.push(Action::Step(at)),
            }
            if phase != Phase::Idle {
                actions.extend([Action::Leave(at), Action::Crash(at)]);
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Tick => state.nodes.iter_mut().for_each(tick),
            Action::Hear(at, of) => {
                state.nodes[at].heard[of].get_or_insert(0);
            }
            Action::Take(at) if self.0 == Broken::LooksBeforeBump => {
                let wait = state.wait(at).0;
                state.nodes[at] = Node { phase: Phase::Looked { wait, token: state.token }, ..FORGETFUL };
            }
            Action::Take(at) => {
                let wait = state.wait(at);
                self.bump(&mut state, at, wait);
            }
            Action::Step(at) => self.step(&mut state, at),
            Action::Renew(at) => state.nodes[at].phase = Phase::Owner { renewal: Some((0, Step::Sent)) },
            Action::Leave(at) => {
                let node = state.nodes[at];
                let owned = matches!(node.phase, Phase::Owner { .. });
                if !owned && self.0 == Broken::ReleasedByGiverUp && state.token == Some(index(at)) {
                    state.released = true;
                }
                state.nodes[at] = if owned { Node { phase: Phase::Releasing, ..idle(node) } } else { idle(node) };
            }
            Action::Crash(at) => state.nodes[at] = FORGETFUL,
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("while the owner serves, nobody else answers", |_, state: &State| {
                let serves = |at: &usize| matches!(state.nodes[*at].phase, Phase::Owner { .. });
                let owner = state.token.map(usize::from).filter(serves);
                owner.is_none_or(|owner| (0..NODES).all(|at| at == owner || state.nodes[at].lease == 0))
            }),
            Property::sometimes("a crashed owner's lease is not waited for", |_, state: &State| {
                state.nodes.iter().any(|node| matches!(node.phase, Phase::Waiting { left: 0, is_short: true }))
            }),
            Property::sometimes("an owner renews", |_, state: &State| {
                state.nodes.iter().any(|node| matches!(node.phase, Phase::Owner { renewal: Some((_, Step::Beaten)) }))
            }),
        ]
    }
}

fn explore(broken: Broken) -> (usize, Option<String>) {
    let checker = Leases(broken).checker().threads(2).spawn_bfs().join();
    let found = checker.discovery("while the owner serves, nobody else answers");
    if found.is_none() {
        checker.assert_properties();
    }
    (checker.unique_state_count(), found.map(|path| format!("{:?}", path.into_actions())))
}

#[test]
fn nobody_answers_beside_an_owner_that_serves() {
    let (states, found) = explore(Broken::Nothing);
    println!("{states} states");
    assert_eq!(found, None);
}

#[test]
fn each_rule_is_needed() {
    let rules = [
        Broken::AsksBeforeBeat,
        Broken::BeginsWithoutBeat,
        Broken::BegunAtTake,
        Broken::LooksBeforeBump,
        Broken::ReleasedByGiverUp,
        Broken::RemembersOldWord,
    ];
    for broken in rules {
        let (states, found) = explore(broken);
        println!("{broken:?}: {states} states, {found:?}");
        assert!(found.is_some(), "{broken:?} is harmless");
    }
}
