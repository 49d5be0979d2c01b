//! Homes that move, explored exhaustively: the lanes themselves, one for each home of one aggregate, and
//! calls.
//!
//! The count in force grows at any time; a lane hears of it, and of what others have acknowledged, at any
//! later time. What a lane asks takes effect at any later time, and is answered later still. A strong read
//! may come at any moment, so it is a property of each state: an actor that is in memory at a home that
//! serves, and that decides nothing, is as the store has it. A partition that is lost is taken again under
//! the generation in force. Deliberately absent: records and mail (see the simulator), two owners of one
//! partition (see `ownership/model.rs`), time.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use holdfast_core::{
    AggregateId, KeyHash, PartitionId,
    batch::Fence,
    epoch::{Generation, PartitionRow, Token},
    growth::Growth,
    port::store::Committed,
    retry::RetryPolicy,
};
use stateright::{Model, Property};
use uuid::Uuid;

use super::serves;
use crate::{
    Ask, Now, Rules, explore,
    lane::{
        Action, Arrival, Content, Found, Input, Machine, Message, Number, Origin, Own, Part, Report, Settings, Stored,
        Verdict,
        model::{renamed, same_by_digest},
    },
};

/// The aggregate's key: its homes are 0, 1 and 3 as the count grows from 1 to 2 and 4.
const KEY: &str = "k14";
const NOW: Duration = Duration::from_secs(1);
const SOUND: &str = "every promise is kept";

#[derive(Clone, Debug)]
struct Homes {
    counts: &'static [u32],
    /// Calls after the first, which is done at the first home before anything else happens.
    calls: u8,
    /// How often a partition may be lost.
    losses: u8,
    rules: Rules,
}

/// What was asked, and its answer once it has taken effect.
#[derive(Clone, Debug)]
enum Pending {
    Find {
        ask: Ask,
        aggregates: usize,
    },
    Commit {
        ask: Ask,
        fence: Fence,
        base: Option<u8>,
    },
    Compare {
        ask: Ask,
    },
    Acknowledge {
        ask: Ask,
        token: Token,
        generation: Generation,
    },
    /// With the state that was found, if that is what it is.
    Answered(Input, Option<u8>),
}

#[derive(Clone, Debug)]
struct Lane {
    machine: Machine,
    partition: PartitionId,
    term: u64,
    number: u64,
    is_serving: bool,
    pending: Vec<Pending>,
    /// The aggregate's version in memory; the one that was looked up; what is decided on it.
    actor: Option<u8>,
    cold: Option<u8>,
    deciding: Option<(u64, u8)>,
}

#[derive(Clone, Debug)]
struct State {
    lanes: Vec<Lane>,
    rows: BTreeMap<PartitionId, PartitionRow>,
    acknowledged: BTreeMap<(PartitionId, Generation), u64>,
    /// How many of the counts are, or were, in force.
    generations: usize,
    version: u8,
    calls: u8,
    losses: u8,
    tokens: u128,
    wrong: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Call(usize),
    /// A question takes effect, or its answer comes.
    GoOn(usize, usize),
    Hear(usize),
    Lose(usize),
    Grow,
}

fn hash() -> KeyHash {
    KeyHash::of(KEY.as_bytes())
}

impl State {
    fn growth(&self, homes: &Homes) -> Growth {
        let counts = homes.counts[..self.generations].iter().copied();
        Growth {
            generations: (1..).map(Generation).zip(counts).collect(),
            acknowledged: self.acknowledged.clone(),
            rows: self.rows.values().cloned().collect(),
            ..Growth::default()
        }
    }

    /// A partition is taken under the generation in force, which is acknowledged by that.
    fn own(&mut self, homes: &Homes, at: usize) {
        let growth = Arc::new(self.growth(homes));
        self.tokens += 1;
        let (generation, count) = growth.current();
        let lane = &mut self.lanes[at];
        let partition = lane.partition;
        let row = self.rows.get_mut(&partition).expect("each home has a row");
        row.token = Some(Token(Uuid::from_u128(self.tokens)));
        self.acknowledged.entry((partition, generation)).or_insert(row.outbox_head);
        lane.term += 1;
        lane.is_serving = serves(homes.rules, &growth, partition, generation);
        (lane.actor, lane.cold, lane.deciding) = (None, None, None);
        let own = Own {
            partition,
            term: lane.term,
            token: Token(Uuid::from_u128(self.tokens)),
            generation,
            count,
            is_serving: lane.is_serving,
            batch: row.batch,
            outbox_head: row.outbox_head,
        };
        self.tell(homes, at, Input::Counted(growth));
        self.tell(homes, at, Input::Own(own));
    }

    fn tell(&mut self, homes: &Homes, at: usize, input: Input) {
        let (mut inputs, mut is_lost) = (vec![input, Input::Turn], false);
        while !inputs.is_empty() {
            let mut actions = Vec::new();
            let now = Now { boot: NOW, awake: NOW };
            self.lanes[at].machine.handle(inputs.remove(0), now, &mut actions);
            for action in actions {
                is_lost |= matches!(action, Action::Report(Report::Lost(..)));
                self.perform(at, action, &mut inputs);
            }
        }
        let wrong = self.lanes[at].machine.audit();
        self.wrong.extend(wrong.into_iter().map(|wrong| format!("{wrong:?}")));
        if is_lost {
            self.own(homes, at);
        }
    }

    fn perform(&mut self, at: usize, action: Action, inputs: &mut Vec<Input>) {
        let lane = &mut self.lanes[at];
        match action {
            Action::Find { ask, wanted, .. } => {
                lane.pending.push(Pending::Find { ask, aggregates: wanted.len() });
            }
            Action::Decide { deliveries } => {
                for delivery in deliveries {
                    let base = *lane.actor.get_or_insert(lane.cold.unwrap_or(u8::MAX));
                    lane.deciding = Some((delivery.delivery, base));
                    let verdict = Verdict {
                        delivery: delivery.delivery,
                        decided: delivery.messages.len(),
                        is_changed: true,
                        is_conditional: false,
                        timers: [Vec::new(), Vec::new()],
                        claims: [Vec::new(), Vec::new()],
                        failed: None,
                        is_unreadable: false,
                    };
                    inputs.extend([Input::Decided(verdict), Input::Turn]);
                }
            }
            Action::Commit { ask, fences, parts, .. } => {
                let is_decided = parts.iter().any(|part| matches!(part, Part::Decided { .. }));
                let base = lane.deciding.filter(|_| is_decided).map(|(_, base)| base);
                let pending = fences.into_iter().map(|fence| Pending::Commit { ask, fence, base });
                lane.pending.extend(pending);
            }
            Action::CommitAgain { ask, fences } => {
                let base = lane.deciding.map(|(_, base)| base);
                lane.pending.extend(fences.into_iter().map(|fence| Pending::Commit { ask, fence, base }));
            }
            Action::Compare { ask } => lane.pending.push(Pending::Compare { ask }),
            Action::Acknowledge { ask, token, generation, .. } => {
                lane.pending.push(Pending::Acknowledge { ask, token, generation });
            }
            Action::Advance { .. } => {
                let base = lane.deciding.take().map(|(_, base)| base);
                lane.actor = base.map(|base| base + 1);
            }
            Action::Undo { .. } => lane.deciding = None,
            Action::Passivate { .. } | Action::Stop { .. } => (lane.actor, lane.deciding) = (None, None),
            Action::Serve { is_serving, .. } => lane.is_serving = is_serving,
            Action::Look { ask, .. } => inputs.push(Input::Due { ask, due: Vec::new() }),
            Action::Report(Report::Violated(invariant, detail)) => {
                self.wrong.push(format!("{invariant:?}: {detail}"));
            }
            Action::Conclude { .. }
            | Action::Publish
            | Action::Note { .. }
            | Action::Answer { .. }
            | Action::Done { .. }
            | Action::Home { .. }
            | Action::Reload { .. }
            | Action::Remember { .. }
            | Action::Released { .. }
            | Action::HurryCounts
            | Action::Report(_) => {}
            Action::Ask { .. } | Action::Retoken { .. } => unreachable!("{action:?} is not asked here"),
        }
    }

    /// A question takes effect: its answer.
    fn effect(&mut self, at: usize, pending: Pending) -> Pending {
        let partition = self.lanes[at].partition;
        let row = self.rows.get_mut(&partition).expect("each home has a row");
        match pending {
            Pending::Find { ask, aggregates } => {
                let found = Found { aggregates: vec![Stored::default(); aggregates], ..Found::default() };
                Pending::Answered(Input::Found { ask, found: Ok(found) }, Some(self.version))
            }
            Pending::Commit { ask, fence, base } => {
                let holds = row.token == Some(fence.token)
                    && row.generation == fence.generation
                    && row.batch + 1 == fence.number;
                let mut committed = Committed { granted: vec![holds], ..Committed::default() };
                if holds {
                    if base.is_some_and(|base| base != self.version) {
                        self.wrong.push(format!("I3: {partition} commits to {base:?}, and stored is {}", self.version));
                    }
                    self.version += u8::from(base.is_some());
                    let head = row.outbox_head + 1;
                    (row.batch, row.outbox_head, row.outbox_cursor) = (fence.number, head, head);
                    committed.heads.insert(partition, row.outbox_head);
                } else {
                    committed.stale.push(partition);
                }
                Pending::Answered(Input::Committed { ask, result: Ok(committed) }, None)
            }
            Pending::Compare { ask } => {
                let rows = Ok(self.rows.values().cloned().collect());
                Pending::Answered(Input::Compared { ask, rows }, None)
            }
            Pending::Acknowledge { ask, token, generation } => {
                let is_owner = row.token == Some(token) && row.generation == generation;
                if is_owner {
                    self.acknowledged.entry((partition, generation)).or_insert(row.outbox_head);
                }
                Pending::Answered(Input::Acknowledged { ask, row: Ok(is_owner.then(|| row.clone())) }, None)
            }
            answered @ Pending::Answered(..) => answered,
        }
    }

    /// I5: a strong read, whenever it comes.
    fn check_reads(&mut self) {
        for lane in &self.lanes {
            if lane.is_serving
                && lane.deciding.is_none()
                && let Some(version) = lane.actor
                && version != self.version
            {
                let (partition, stored) = (lane.partition, self.version);
                self.wrong.push(format!("I5: {partition} answers with version {version}, and stored is {stored}"));
                return;
            }
        }
    }
}

impl Model for Homes {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        let homes = self.counts.iter().map(|count| hash().home(*count));
        let settings = Settings {
            batch_items_max: 4,
            retry: RetryPolicy::default(),
            poll_every: Duration::from_hours(1),
            passivate_after: Duration::MAX,
            live_max: 8,
            ring_max: 8,
            rules: self.rules,
        };
        let lane = |partition: PartitionId| Lane {
            machine: Machine::new(settings.clone(), Arc::default()),
            partition,
            term: 0,
            number: 0,
            is_serving: false,
            pending: Vec::new(),
            actor: None,
            cold: None,
            deciding: None,
        };
        let mut state = State {
            rows: homes.clone().map(|home| (home, PartitionRow::new(home, Generation(1)))).collect(),
            lanes: homes.map(lane).collect(),
            acknowledged: BTreeMap::new(),
            generations: 1,
            version: 0,
            calls: self.calls + 1,
            losses: self.losses,
            tokens: 0,
            wrong: Vec::new(),
        };
        (0..state.lanes.len()).for_each(|at| state.own(self, at));
        let mut state = self.next_state(&state, Move::Call(0)).expect("a call");
        while !state.lanes[0].pending.is_empty() {
            state = self.next_state(&state, Move::GoOn(0, 0)).expect("what was asked");
        }
        vec![state]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        if !state.wrong.is_empty() {
            return;
        }
        moves.extend((state.generations < self.counts.len()).then_some(Move::Grow));
        let growth = state.growth(self);
        for (at, lane) in state.lanes.iter().enumerate() {
            moves.extend((0..lane.pending.len()).map(|pending| Move::GoOn(at, pending)));
            moves.extend((state.calls > 0 && lane.is_serving).then_some(Move::Call(at)));
            moves.extend((state.losses > 0).then_some(Move::Lose(at)));
            let heard = &lane.machine.growth;
            let is_news = heard.generations != growth.generations || heard.acknowledged != growth.acknowledged;
            moves.extend(is_news.then_some(Move::Hear(at)));
        }
    }

    fn next_state(&self, last: &State, r#move: Move) -> Option<State> {
        let mut state = last.clone();
        match r#move {
            Move::Call(at) => {
                state.calls -= 1;
                let lane = &mut state.lanes[at];
                lane.number += 1;
                let aggregate = AggregateId { kind: "counter", key: KEY.into() };
                let origin = Origin::Call;
                let message = Message { aggregate, hash: hash(), origin, fingerprint: None, seed: 0, failure: None };
                let (number, partition, term) = (Number(lane.number), lane.partition, lane.term);
                let arrival = Arrival { number, partition, term, content: Content::Message(message) };
                state.tell(self, at, Input::Arrived(arrival));
            }
            Move::GoOn(at, pending) => match state.lanes[at].pending.remove(pending) {
                Pending::Answered(input, cold) => {
                    state.lanes[at].cold = cold.or(state.lanes[at].cold);
                    state.tell(self, at, input);
                }
                asked => {
                    let answered = state.effect(at, asked);
                    state.lanes[at].pending.insert(pending, answered);
                }
            },
            Move::Hear(at) => {
                let growth = Arc::new(state.growth(self));
                state.tell(self, at, Input::Counted(growth));
            }
            Move::Lose(at) => {
                state.losses -= 1;
                let (partition, term) = (state.lanes[at].partition, state.lanes[at].term);
                state.tell(self, at, Input::Drop { partition, term });
                state.own(self, at);
            }
            Move::Grow => {
                state.generations += 1;
                let generation = Generation(u32::try_from(state.generations).expect("small"));
                state.rows.values_mut().for_each(|row| row.generation = generation);
            }
        }
        state.check_reads();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SOUND, |_, state: &State| state.wrong.is_empty()),
            Property::sometimes("the newest home commits", |homes: &Self, state: &State| {
                let newest = hash().home(homes.counts[homes.counts.len() - 1]);
                state.rows[&newest].batch > 0 && state.calls == 0
            }),
        ]
    }
}

impl State {
    fn digest(&self) -> String {
        let Self { lanes, rows, acknowledged, generations, version, calls, losses, wrong, .. } = self;
        let mut text = format!("{acknowledged:?} {generations} {version} {calls} {losses} {wrong:?}");
        for row in rows.values() {
            let _ = write!(text, "\n{:?} {} {}", row.generation, row.batch, row.outbox_head);
        }
        for lane in lanes {
            let Lane { machine, is_serving, pending, actor, cold, deciding, partition, .. } = lane;
            let token = self.rows[partition].token;
            let heard = (machine.growth.generations.len(), &machine.growth.acknowledged);
            let deciding = deciding.map(|(_, base)| base);
            let _ = write!(text, "\n{is_serving} {heard:?} {actor:?} {cold:?} {deciding:?}");
            for pending in pending {
                let _ = match pending {
                    Pending::Commit { fence, base, .. } => {
                        let is_ours = Some(fence.token) == token;
                        write!(text, " commit {is_ours} {:?} {} {base:?}", fence.generation, fence.number)
                    }
                    Pending::Acknowledge { token: of, generation, .. } => {
                        write!(text, " acknowledge {} {generation:?}", Some(*of) == token)
                    }
                    pending => write!(text, " {pending:?}"),
                };
            }
            machine.describe(NOW, &mut text);
        }
        renamed(&text)
    }
}

same_by_digest!(State);

fn explore(homes: &Homes) -> (usize, Option<String>) {
    explore::explore(homes, &[SOUND], |state| format!("{}: ", state.wrong.join("; ")))
}

/// Explores one growth; two, which takes minutes, if `deploy/dev.sh explore` was asked for more than the
/// tests do.
#[test]
fn reads_and_commits_are_true_while_homes_move() {
    let goes_further = std::env::var("HOLDFAST_LANE_FAULTS").is_ok();
    let further = goes_further.then_some((&[1, 2, 4][..], 1, 0));
    for (counts, calls, losses) in [(&[1, 2][..], 2, 1)].into_iter().chain(further) {
        let (states, found) = explore(&Homes { counts, calls, losses, rules: Rules::SOUND });
        println!("{counts:?}, {calls} calls, {losses} losses: {states} states");
        assert_eq!(found, None);
    }
}

#[test]
fn rule_of_homes_left_out_breaks_a_promise() {
    let (once, twice) = (&[1, 2][..], &[1, 2, 4][..]);
    let broken = [
        ("waits_for_acknowledgement", once, Rules { waits_for_acknowledgement: false, ..Rules::SOUND }),
        ("waits_for_all_earlier_homes", twice, Rules { waits_for_all_earlier_homes: false, ..Rules::SOUND }),
        ("passivates_before_acknowledging", once, Rules { passivates_before_acknowledging: false, ..Rules::SOUND }),
    ];
    for (name, counts, rules) in broken {
        let (states, found) = explore(&Homes { counts, calls: 1, losses: 0, rules });
        println!("{name}: {states} states, {found:?}");
        assert!(found.is_some(), "{name} is harmless");
    }
}
