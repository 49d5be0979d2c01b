//! Gates while a topic grows, explored exhaustively: the machines themselves, one for each partition, and
//! producers, each of one key.
//!
//! A producer sends its records one after the other, each after the one before was acknowledged, by a count
//! that it knows; it may hear of a new count at any time. A gate hears of counts and of commits at any later
//! time, and its questions are answered at any later time. A record that has passed is committed at once,
//! which is the earliest that it can overtake another. A transition ends once the producers are known to have
//! changed over and all that they sent before is committed. Deliberately absent: homes that move
//! (`is_serving` is always set), errors, time.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    epoch::{Generation, PartitionRow},
    growth::{Counts, Growth, Step as GrowthStep},
};
use stateright::{Model, Property};

use super::{Action, Input, Machine, Phase};
use crate::{Ask, Now, Rules, explore::explore};

const TOPIC: &str = "t.commands";
/// All keys' hash: they move at each growth that the configurations know.
const HASH: u32 = 11;
const IN_ORDER: &str = "records of one key are committed in the order in which they were sent";

#[derive(Clone, Debug)]
struct Growths {
    counts: &'static [u32],
    /// How many each producer sends.
    records: &'static [u8],
    rules: Rules,
}

/// A producer, and the how manieth record of it.
type Record = (usize, u8);

#[derive(Clone, Debug)]
struct Reader {
    gate: Machine,
    /// Which of the growths it has heard of, and of which commits.
    heard: (usize, Vec<u64>),
    /// Records in the partition's log, and how many are read, and how many committed.
    log: Vec<Record>,
    read: u64,
    committed: u64,
    /// Questions on their way.
    asked: Vec<(Ask, Vec<PartitionId>)>,
}

#[derive(Clone, Debug)]
struct State {
    /// Growths so far; those that each producer knows of; transitions that are over.
    grown: usize,
    known: Vec<usize>,
    ended: usize,
    /// The ends that the open transitions have to be consumed to, once they are measured.
    ends: BTreeMap<usize, Vec<u64>>,
    readers: Vec<Reader>,
    sent: Vec<u8>,
    done: Vec<Record>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Grow,
    Refresh(usize),
    Send(usize),
    Read(usize),
    Answer(usize, usize),
    Hear(usize),
    /// All producers have changed over to this growth: the ends are read.
    Measure(usize),
    End(usize),
}

impl Growths {
    fn count(&self, grown: usize) -> u32 {
        self.counts[grown]
    }

    /// What the store knows.
    fn growth(&self, state: &State) -> Arc<Growth> {
        let steps = (1..=state.grown).map(|at| GrowthStep {
            count: self.count(at),
            ends: state.ends.get(&at).cloned().unwrap_or_default(),
            ended: at <= state.ended,
            ..GrowthStep::default()
        });
        let counts = Counts { first: self.count(0), steps: steps.collect() };
        let rows = (0..).zip(&state.readers).map(|(number, reader)| PartitionRow {
            consumed: vec![(TOPIC.to_owned(), reader.committed)],
            ..PartitionRow::new(PartitionId(number), Generation(1))
        });
        let topics = BTreeMap::from([(TOPIC.to_owned(), counts)]);
        Arc::new(Growth { topics, rows: rows.collect(), ..Growth::default() })
    }

    fn news(state: &State) -> (usize, Vec<u64>) {
        let steps = state.grown * 10 + state.ended;
        (steps, state.readers.iter().map(|reader| reader.committed).collect())
    }

    fn tell(state: &mut State, at: usize, input: Input) {
        let mut actions = Vec::new();
        let reader = &mut state.readers[at];
        reader.gate.handle(input, Now::default(), &mut actions);
        // What waits a while where a rule is left out has waited by now.
        let late = Now { boot: Duration::MAX, awake: Duration::MAX };
        if reader.gate.due().is_some() {
            reader.gate.handle(Input::Tick, late, &mut actions);
        }
        for action in actions {
            match action {
                Action::Measure { ask, partitions } => reader.asked.push((ask, partitions)),
                Action::Pass => {
                    let offset = reader.committed;
                    reader.committed += 1;
                    state.done.push(reader.log[usize::try_from(offset).expect("few")]);
                }
                Action::HurryCounts | Action::Report(_) => {}
            }
        }
    }

    fn reader(&self, number: usize) -> Reader {
        let partition = PartitionId(u32::try_from(number).expect("few"));
        let gate = Machine::new(TOPIC.into(), partition, self.rules);
        Reader { gate, heard: (usize::MAX, Vec::new()), log: Vec::new(), read: 0, committed: 0, asked: Vec::new() }
    }
}

impl Model for Growths {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        let readers = (0..self.count(0) as usize).map(|number| self.reader(number)).collect();
        let (known, sent) = (vec![0; self.records.len()], vec![0; self.records.len()]);
        vec![State { grown: 0, known, ended: 0, ends: BTreeMap::new(), readers, sent, done: Vec::new() }]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        if state.grown + 1 < self.counts.len() {
            moves.push(Move::Grow);
        }
        for producer in 0..self.records.len() {
            if state.known[producer] < state.grown {
                moves.push(Move::Refresh(producer));
            }
            if state.sent[producer] < self.records[producer] {
                moves.push(Move::Send(producer));
            }
        }
        let news = Self::news(state);
        for (at, reader) in state.readers.iter().enumerate() {
            let is_free = reader.gate.waiting.is_none();
            if is_free && reader.read < reader.log.len() as u64 {
                moves.push(Move::Read(at));
            }
            moves.extend((0..reader.asked.len()).map(|number| Move::Answer(at, number)));
            if reader.heard != news {
                moves.push(Move::Hear(at));
            }
        }
        let next = state.ended + 1;
        if next <= state.grown {
            if state.known.iter().all(|known| *known >= next) && !state.ends.contains_key(&next) {
                moves.push(Move::Measure(next));
            }
            let is_over =
                |ends: &Vec<u64>| ends.iter().zip(&state.readers).all(|(end, reader)| reader.committed >= *end);
            if state.ends.get(&next).is_some_and(|ends| !self.rules.transition_ends_when_consumed || is_over(ends)) {
                moves.push(Move::End(next));
            }
        }
    }

    fn next_state(&self, last: &State, r#move: Move) -> Option<State> {
        let mut state = last.clone();
        match r#move {
            Move::Grow => {
                state.grown += 1;
                let from = state.readers.len();
                state.readers.extend((from..self.count(state.grown) as usize).map(|number| self.reader(number)));
            }
            Move::Refresh(producer) => state.known[producer] += 1,
            Move::Send(producer) => {
                let partition = HASH % self.count(state.known[producer]);
                state.readers[partition as usize].log.push((producer, state.sent[producer]));
                state.sent[producer] += 1;
            }
            Move::Read(at) => {
                let offset = state.readers[at].read;
                state.readers[at].read += 1;
                Self::tell(&mut state, at, Input::Read(offset));
            }
            Move::Answer(at, number) => {
                let (ask, partitions) = state.readers[at].asked.remove(number);
                let end = |partition: &PartitionId| state.readers[partition.0 as usize].log.len() as u64;
                let ends = Ok(partitions.iter().map(end).collect());
                Self::tell(&mut state, at, Input::Measured { ask, ends });
            }
            Move::Hear(at) => {
                state.readers[at].heard = Self::news(&state);
                let growth = self.growth(&state);
                Self::tell(&mut state, at, Input::Counted { growth, is_serving: true });
            }
            Move::Measure(step) => {
                let ends = state.readers.iter().map(|reader| reader.log.len() as u64).collect();
                state.ends.insert(step, ends);
            }
            Move::End(step) => state.ended = step,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(IN_ORDER, |model: &Self, state: &State| {
                (0..model.records.len()).all(|producer| state.done.iter().filter(|(of, _)| *of == producer).is_sorted())
            }),
            Property::sometimes("all is committed, and no transition is left", |model: &Self, state: &State| {
                state.sent == model.records
                    && state.done.len() == model.records.iter().map(|sent| usize::from(*sent)).sum::<usize>()
                    && state.ended + 1 == model.counts.len()
            }),
            Property::sometimes("a record waits for another partition", |_, state: &State| {
                state.readers.iter().any(|reader| matches!(reader.gate.waiting, Some((_, Phase::Waiting { .. }))))
            }),
        ]
    }
}

/// The hash leaves out the numbers of questions and the growth that a gate has heard of; which news that was
/// (`heard`) is in it.
impl Hash for State {
    fn hash<H: Hasher>(&self, to: &mut H) {
        (self.grown, &self.known, self.ended, &self.ends, &self.sent, &self.done).hash(to);
        for Reader { gate, heard, log, read, committed, asked } in &self.readers {
            (heard, log, read, committed, gate.open_below).hash(to);
            for (_, partitions) in asked {
                partitions.hash(to);
            }
            match &gate.waiting {
                None => 0_u8.hash(to),
                Some((offset, Phase::Counting)) => (1_u8, offset).hash(to),
                Some((offset, Phase::Measuring { step, ancestors, own, others })) => {
                    (2_u8, offset, step.ask.is_some(), ancestors, own, others).hash(to);
                }
                Some((offset, Phase::Waiting { own, ends })) => (3_u8, offset, own, ends).hash(to),
                Some((offset, Phase::Serving)) => (4_u8, offset).hash(to),
            }
        }
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let of = |state: &Self| {
            let hasher = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default();
            std::hash::BuildHasher::hash_one(&hasher, state)
        };
        of(self) == of(other)
    }
}

const ONCE: Growths = Growths { counts: &[2, 4], records: &[3], rules: Rules::SOUND };
const TWICE: Growths = Growths { counts: &[1, 2, 4], records: &[2], ..ONCE };
const BOTH: Growths = Growths { records: &[2, 1], ..ONCE };

#[test]
fn key_keeps_its_order_while_topic_grows() {
    for growths in [ONCE, TWICE, BOTH, Growths { counts: &[2, 6], records: &[2], ..ONCE }] {
        let (states, found) = explore(&growths, &[IN_ORDER], |_| String::new());
        println!("{:?}, {:?}: {states} states", growths.counts, growths.records);
        assert_eq!(found, None);
    }
}

#[test]
fn rule_left_out_lets_record_overtake() {
    let broken = [
        ("waits_for_ancestors", Growths { rules: Rules { waits_for_ancestors: false, ..Rules::SOUND }, ..ONCE }),
        (
            "waits_for_all_ancestors",
            Growths { rules: Rules { waits_for_all_ancestors: false, ..Rules::SOUND }, ..TWICE },
        ),
        (
            "measures_ends_after_fetch",
            Growths { rules: Rules { measures_ends_after_fetch: false, ..Rules::SOUND }, ..BOTH },
        ),
        (
            "transition_ends_when_consumed",
            Growths { rules: Rules { transition_ends_when_consumed: false, ..Rules::SOUND }, ..ONCE },
        ),
    ];
    for (name, growths) in broken {
        let (states, found) = explore(&growths, &[IN_ORDER], |_| String::new());
        println!("{name}: {states} states, {found:?}");
        assert!(found.is_some(), "{name} is harmless");
    }
}
