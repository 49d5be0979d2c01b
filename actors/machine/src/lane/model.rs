//! A lane, explored exhaustively within bounds: the machine itself, one partition, a few messages of two
//! aggregates, and one fault (more by `deploy/dev.sh explore`).
//!
//! The port is the most general one that keeps its contract: what the machine asks is answered at any later
//! moment and in any order; a commit of unknown outcome has happened, has not, or happens still, unless a new
//! token forbids it. Time passes only up to what the machine waits for. Two states are one if they differ in
//! nothing but the numbers of questions and deliveries, the clock, and what is not looked at any more.
//! Deliberately absent: homes that move (see the simulator), a second partition, strong reads, shared
//! quantities, effects and timers.

mod digest;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{PartitionId, epoch::Generation, growth::Growth, retry::RetryPolicy};
use stateright::{Model, Property};

pub(super) use self::digest::{renamed, same_by_digest};
use self::world::{How, Pending, State, Store};
use super::{Input, Machine, Origin, Settings};
use crate::{Rules, explore};

const P: PartitionId = PartitionId(0);
const TOPIC: &str = "t.commands";
const SOUND: &str = "every promise is kept";
const ENDS: &str = "whatever was read is done in the end";

/// One message: its aggregate, its id, and what is the matter with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Letter {
    aggregate: &'static str,
    id: u8,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Its handler fails, whenever it is tried.
    Poison,
    /// Its handler fails the first time.
    Flaky,
    /// It needs another context.
    Lacking,
    /// A caller waits for it.
    Call,
}

const fn letter(aggregate: &'static str, id: u8, kind: Kind) -> Letter {
    Letter { aggregate, id, kind }
}

#[derive(Clone, Debug)]
struct Lane {
    letters: &'static [Letter],
    batch: usize,
    faults: u8,
    rules: Rules,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Read,
    Answer(usize, How),
    Tick,
    /// The supervisor of the partition dies.
    Die,
    Drop,
}

impl Lane {
    /// The records among the letters, with their places.
    fn records(&self) -> impl Iterator<Item = (usize, Letter)> {
        self.letters.iter().copied().enumerate().filter(|(_, letter)| letter.kind != Kind::Call)
    }

    fn offset(&self, at: usize) -> u64 {
        self.records().take_while(|(place, _)| *place < at).count() as u64
    }
}

impl Model for Lane {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        let settings = Settings {
            batch_items_max: self.batch,
            retry: RetryPolicy { budget: 2, ..RetryPolicy::default() },
            poll_every: Duration::from_secs(1),
            passivate_after: Duration::MAX,
            live_max: 8,
            // A second message of an aggregate pushes the claim of the first one out.
            ring_max: 1,
            rules: self.rules,
        };
        let growth = Growth { generations: BTreeMap::from([(Generation(1), 1)]), ..Growth::default() };
        let mut state = State {
            machine: Machine::new(settings, Arc::new(growth)),
            now: Duration::from_secs(1),
            read: 0,
            faults: self.faults,
            store: Store::default(),
            pending: Vec::new(),
            bodies: BTreeMap::new(),
            effects: Vec::new(),
            refused: BTreeSet::new(),
            number: 0,
            wrong: Vec::new(),
            is_stopped: false,
            term: 0,
            decided: BTreeMap::new(),
            answered: BTreeSet::new(),
        };
        state.own(self);
        vec![state]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        if !state.wrong.is_empty() {
            return;
        }
        if state.read < self.letters.len() && state.machine.takes_more() {
            moves.push(Move::Read);
        }
        for (at, pending) in state.pending.iter().enumerate() {
            moves.push(Move::Answer(at, How::Well));
            if matches!(pending, Pending::Find { .. } | Pending::Look { .. } | Pending::Commit { .. }) {
                moves.push(Move::Answer(at, How::Quietly));
            }
            if state.faults > 0 {
                let hows: &[How] = match pending {
                    Pending::Find { .. } | Pending::Elsewhere { .. } | Pending::Retoken { .. } => &[How::Away],
                    Pending::Commit { .. } => {
                        &[How::Away, How::Refused, How::Slow, How::LostAfter, How::LostBefore, How::LostOnItsWay]
                    }
                    _ => &[],
                };
                moves.extend(hows.iter().map(|how| Move::Answer(at, *how)));
            }
        }
        if state.machine.due().is_some_and(|due| due > state.now) {
            moves.push(Move::Tick);
        }
        if state.faults > 0 {
            moves.extend([Move::Die, Move::Drop]);
        }
    }

    fn next_state(&self, last: &State, r#move: Move) -> Option<State> {
        let mut state = last.clone();
        match r#move {
            Move::Read => {
                let at = state.read;
                state.read += 1;
                let origin = match self.letters[at].kind {
                    Kind::Call => Origin::Call,
                    _ => Origin::Log((TOPIC.into(), self.offset(at))),
                };
                let arrival = state.arrival(self, at, origin, None);
                state.tell(self, Input::Arrived(arrival));
            }
            Move::Answer(at, how) => {
                state.faults -= u8::from(!matches!(how, How::Well | How::Quietly));
                state.answer(self, at, how);
            }
            Move::Tick => {
                state.now = state.machine.due().unwrap_or(state.now);
                state.tell(self, Input::Turn);
            }
            Move::Die => {
                state.faults -= 1;
                state.tell(self, Input::SupervisorDied { partition: P, term: state.term });
            }
            Move::Drop => {
                state.faults -= 1;
                state.tell(self, Input::Drop { partition: P, term: state.term });
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SOUND, |_, state: &State| state.wrong.is_empty()),
            Property::always(ENDS, |lane: &Self, state: &State| {
                let is_still = state.pending.is_empty() && state.read == lane.letters.len();
                !is_still || !state.wrong.is_empty() || state.ends(lane)
            }),
            Property::sometimes("all is done", |lane: &Self, state: &State| state.is_done(lane)),
        ]
    }
}

fn explore(lane: &Lane) -> (usize, Option<String>) {
    explore::explore(lane, &[SOUND, ENDS], |state| format!("{}: ", state.wrong.join("; ")))
}

const A: &str = "a";
const B: &str = "b";
const MIXED: &[Letter] =
    &[letter(A, 0, Kind::Plain), letter(B, 1, Kind::Plain), letter(A, 2, Kind::Plain), letter(A, 0, Kind::Plain)];
const POISON: &[Letter] = &[letter(A, 0, Kind::Poison), letter(A, 1, Kind::Plain), letter(B, 2, Kind::Plain)];
const FLAKY: &[Letter] = &[letter(A, 0, Kind::Flaky), letter(A, 1, Kind::Plain), letter(B, 2, Kind::Plain)];
const LACKING: &[Letter] = &[letter(A, 0, Kind::Lacking), letter(A, 1, Kind::Plain), letter(B, 2, Kind::Plain)];
const CALLS: &[Letter] = &[letter(A, 0, Kind::Plain), letter(A, 1, Kind::Call), letter(A, 1, Kind::Call)];
const BASE: Lane = Lane { letters: MIXED, batch: 4, faults: 1, rules: Rules::SOUND };

/// Explores with one fault, or with as many as `deploy/dev.sh explore` is given.
#[test]
fn lane_keeps_every_promise_in_bounds() {
    let faults = std::env::var("HOLDFAST_LANE_FAULTS").map_or(BASE.faults, |faults| faults.parse().expect("a number"));
    for (name, letters) in
        [("mixed", MIXED), ("poison", POISON), ("flaky", FLAKY), ("lacking", LACKING), ("calls", CALLS)]
    {
        for batch in [1, 4] {
            let (states, found) = explore(&Lane { letters, batch, faults, ..BASE });
            println!("{name}, batches of {batch}: {states} states");
            assert_eq!(found, None);
        }
    }
}

#[test]
fn rule_left_out_breaks_a_promise_of_the_lane() {
    let sound = Rules::SOUND;
    let broken = [
        ("claims_count_within_batch", MIXED, 4, Rules { claims_count_within_batch: false, ..sound }),
        ("settles_unknown_commits", MIXED, 4, Rules { settles_unknown_commits: false, ..sound }),
        ("forgets_actors_of_unknown_commits", MIXED, 4, Rules { forgets_actors_of_unknown_commits: false, ..sound }),
        // A batch gathers while one is committed only once it is full.
        ("knows_what_commits_push_out", MIXED, 1, Rules { knows_what_commits_push_out: false, ..sound }),
        ("looks_for_claims_of_actors", MIXED, 4, Rules { looks_for_claims_of_actors: false, ..sound }),
        ("applies_mail_before_records", FLAKY, 4, Rules { applies_mail_before_records: false, ..sound }),
    ];
    for (name, letters, batch, rules) in broken {
        let (states, found) = explore(&Lane { letters, batch, rules, ..BASE });
        println!("{name}: {states} states, {found:?}");
        assert!(found.is_some(), "{name} is harmless");
    }
}

/// States that count as one have the same moves, and each leads to states that count as one.
#[test]
fn states_that_count_as_one_go_on_alike() {
    for letters in [MIXED, FLAKY, CALLS] {
        let lane = Lane { letters, ..BASE };
        let next = |state: &State| -> Vec<(Move, String, State)> {
            let mut moves = Vec::new();
            lane.actions(state, &mut moves);
            let after = moves.into_iter().filter_map(|way| Some((way, lane.next_state(state, way)?)));
            after.map(|(way, state)| (way, state.digest(), state)).collect()
        };
        let digests = |after: &[(Move, String, State)]| -> Vec<(Move, String)> {
            after.iter().map(|(way, digest, _)| (*way, digest.clone())).collect()
        };
        let mut seen: BTreeMap<String, Vec<(Move, String)>> = BTreeMap::new();
        let mut left: Vec<(String, State)> =
            lane.init_states().into_iter().map(|state| (state.digest(), state)).collect();
        while let Some((digest, state)) = left.pop() {
            let after = next(&state);
            if let Some(before) = seen.get(&digest) {
                assert_eq!(*before, digests(&after), "{digest}");
            } else {
                seen.insert(digest, digests(&after));
                left.extend(after.into_iter().map(|(_, digest, state)| (digest, state)));
            }
        }
        assert!(seen.len() > 1_000, "{} states", seen.len());
    }
}
