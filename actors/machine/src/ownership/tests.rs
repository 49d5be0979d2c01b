//! What the model leaves out: several partitions of a node, the hope for a release, deadlines, failures that
//! go on, and a run that comes to its end.

use std::collections::BTreeSet;

use holdfast_core::{
    epoch::{Epoch, Generation, Token},
    growth::Counts,
    port::store::Taken,
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const ME: &str = "here";

fn growth() -> Arc<Growth> {
    let topics = [("t.commands".to_owned(), Counts { first: 2, ..Counts::default() })].into();
    Arc::new(Growth { topics, generations: [(Generation(1), 2)].into(), ..Growth::default() })
}

/// One node over a store that does at once, or when the test says so, what it is asked.
struct Node {
    machine: Machine,
    now: Now,
    rows: Vec<PartitionRow>,
    beats: BTreeMap<String, Beat>,
    /// What is to be done, in order.
    asked: Vec<Action>,
    served: Vec<Grant>,
    reports: Vec<Report>,
}

impl Node {
    fn new(partitions: u32) -> Self {
        let settings = Settings {
            address: ME.to_owned(),
            run: Uuid::from_u128(1),
            commands_topic: "t.commands".into(),
            lease: 5 * SECOND,
            drift: SECOND / 4,
            renew_every: SECOND,
            release_grace: SECOND,
            drain: 30 * SECOND,
            rules: Rules::SOUND,
        };
        let row = |number| PartitionRow {
            epoch: Epoch(1),
            token: Some(Token(Uuid::from_u128(9))),
            address: "there".to_owned(),
            has_begun: true,
            ..PartitionRow::new(PartitionId(number), Generation(1))
        };
        Self {
            machine: Machine::new(settings, growth()),
            now: Now { boot: 100 * SECOND, awake: 100 * SECOND },
            rows: (0..partitions).map(row).collect(),
            beats: BTreeMap::new(),
            asked: Vec::new(),
            served: Vec::new(),
            reports: Vec::new(),
        }
    }

    fn tell(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.machine.handle(input, self.now, &mut actions);
        assert!(self.machine.due().is_none_or(|due| due > self.now.awake), "a tick would follow at once");
        for action in actions {
            match action {
                Action::Serve(grant) => self.served.push(*grant),
                Action::Report(report) => self.reports.push(report),
                action => self.asked.push(action),
            }
        }
    }

    fn assign(&mut self, partitions: &[u32]) {
        self.tell(Input::Assigned(partitions.iter().copied().map(PartitionId).collect()));
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now { boot: self.now.boot + time, awake: self.now.awake + time };
        self.tell(Input::Tick);
    }

    /// Takes out the first question that is one of these.
    fn next(&mut self, is_it: impl Fn(&Action) -> bool) -> Action {
        let at = self.asked.iter().position(is_it).unwrap_or_else(|| panic!("not asked: {:?}", self.asked));
        self.asked.remove(at)
    }

    fn is_asked(&self, is_it: impl Fn(&Action) -> bool) -> bool {
        self.asked.iter().any(is_it)
    }

    /// Does what was asked.
    fn answer(&mut self, action: Action) {
        let row = |rows: &mut Vec<PartitionRow>, partition: PartitionId| {
            rows.iter_mut().position(|row| row.partition == partition).expect("a row")
        };
        match action {
            Action::ReadRows { ask } => self.tell(Input::RowsRead { ask, rows: Ok(self.rows.clone()) }),
            Action::Raise { ask, partition, expected } => {
                let at = row(&mut self.rows, partition);
                let before = self.rows[at].clone();
                assert_eq!(before.epoch, expected);
                let token = Token(Uuid::from_u128(100 + u128::from(partition.0)));
                let row = &mut self.rows[at];
                (row.epoch, row.token, row.released, row.has_begun) =
                    (Epoch(expected.0 + 1), Some(token), false, false);
                row.address = ME.to_owned();
                let beat = self.beats.get(&before.address).copied().filter(|_| before.has_begun);
                let row =
                    PartitionRow { released: before.released, has_begun: before.has_begun, ..self.rows[at].clone() };
                self.tell(Input::Raised { ask, token, taken: Ok(Some(Taken { row, beat })) });
            }
            Action::Beat { ask, beat } => {
                let said = Ok(self.beats.clone());
                self.beats.insert(ME.to_owned(), beat);
                self.tell(Input::Beaten { ask, said });
            }
            Action::Verify { ask, .. } => self.tell(Input::Verified { ask, known: Ok(None) }),
            Action::Acknowledge { ask, partition, .. } => {
                let at = row(&mut self.rows, partition);
                self.rows[at].has_begun = true;
                let row = self.rows[at].clone();
                self.tell(Input::Acknowledged { ask, row: Ok(Some(row)) });
            }
            Action::Look { ask, owned } => {
                let ours = Ok(owned.into_iter().map(|(partition, _)| (partition, true)).collect());
                self.tell(Input::Looked { ask, ours });
            }
            Action::Confirm { ask, .. } => self.tell(Input::Confirmed { ask, is_confirmed: true }),
            Action::HandOver { ask, partition, .. } => {
                let at = row(&mut self.rows, partition);
                let token = self.rows[at].token;
                self.tell(Input::HandedOver { ask, token });
            }
            Action::Release { ask, partition, .. } => {
                let at = row(&mut self.rows, partition);
                self.rows[at].released = true;
                self.tell(Input::Released { ask, is_released: true });
            }
            _ => {}
        }
    }

    /// Does everything that is asked, until nothing more is.
    fn answer_all(&mut self) {
        while !self.asked.is_empty() {
            let action = self.asked.remove(0);
            self.answer(action);
        }
    }
}

fn is_raise(of: u32) -> impl Fn(&Action) -> bool {
    move |action| matches!(action, Action::Raise { partition, .. } if partition.0 == of)
}

const fn is_beat(action: &Action) -> bool {
    matches!(action, Action::Beat { .. })
}

const fn is_reading(action: &Action) -> bool {
    matches!(action, Action::ReadRows { .. })
}

#[test]
fn partitions_are_taken_served_and_released() {
    let mut node = Node::new(2);
    node.assign(&[0, 1]);
    node.answer_all();
    assert_eq!((node.machine.owned(), node.served.len()), (2, 2));
    for _ in 0..3 {
        node.pass(SECOND);
        let renewals = |asked: &[Action]| asked.iter().filter(|action| is_beat(action)).count();
        assert_eq!(renewals(&node.asked), 1);
        node.answer_all();
    }
    node.tell(Input::Stop);
    node.answer_all();
    assert!(node.machine.has_left() && node.rows.iter().all(|row| row.released), "{:?}", node.reports);
    assert_eq!(node.machine.due(), None);
}

/// I5: a beat that is on its way was written too early for a taker that comes later.
#[test]
fn taker_joins_no_question_that_is_under_way() {
    let mut node = Node::new(2);
    node.pass(SECOND);
    node.answer_all();
    node.assign(&[0, 1]);
    let reading = node.next(is_reading);
    assert!(!node.is_asked(is_reading), "one reading for both");
    node.answer(reading);
    let [first, second] = [0, 1].map(|of| node.next(is_raise(of)));
    node.answer(first);
    let early = node.next(is_beat);
    node.pass(SECOND / 2);
    node.answer(second);
    assert!(!node.is_asked(is_beat), "the second one waits");
    node.answer(early);
    let (early_reading, late) = (node.next(is_reading), node.next(is_beat));
    node.pass(SECOND / 4);
    node.answer(late);
    assert!(!node.is_asked(is_reading), "the second one waits again");
    node.answer(early_reading);
    node.answer_all();
    let ends: Vec<Duration> = node.served.iter().map(|grant| grant.lease_until).collect();
    assert_eq!(node.served.len(), 2);
    assert_eq!(ends[1].saturating_sub(ends[0]), SECOND / 2, "each counts from its own beat");
}

#[test]
fn release_is_hoped_for_unless_its_owner_is_silent() {
    let raises_after = |is_silent: bool| {
        let mut node = Node::new(1);
        node.rows[0].released = false;
        let mut count = 0;
        let mut hear = |node: &mut Node| {
            count += u64::from(!is_silent);
            node.beats.insert("there".to_owned(), Beat { run: Uuid::from_u128(2), count });
            node.pass(SECOND);
            node.answer_all();
        };
        (0..8).for_each(|_| hear(&mut node));
        node.assign(&[0]);
        let began = node.now.awake;
        while !node.is_asked(is_raise(0)) {
            if node.is_asked(is_reading) {
                let reading = node.next(is_reading);
                node.answer(reading);
            } else {
                let due = node.machine.due().expect("it looks again");
                node.pass(due.saturating_sub(node.now.awake));
            }
        }
        node.now.awake.saturating_sub(began)
    };
    assert_eq!(raises_after(true), Duration::ZERO);
    assert!(raises_after(false) >= SECOND);
}

#[test]
fn failures_of_one_kind_are_retried_ever_less_often() {
    let mut node = Node::new(1);
    node.assign(&[0]);
    let (began, mut raises) = (node.now.awake, 0);
    while node.now.awake < began + 60 * SECOND {
        while !node.asked.is_empty() {
            match node.asked.remove(0) {
                Action::Raise { ask, .. } => {
                    raises += 1;
                    let taken = Err(StoreError::Unavailable("read-only".to_owned()));
                    node.tell(Input::Raised { ask, token: Token(Uuid::nil()), taken });
                }
                action => node.answer(action),
            }
        }
        let due = node.machine.due().expect("it tries again");
        node.pass(due.saturating_sub(node.now.awake));
    }
    assert!((15..30).contains(&raises), "{raises} in a minute");
}

#[test]
fn acknowledgement_under_way_ends_in_release() {
    let mut node = Node::new(1);
    node.assign(&[0]);
    let is_acknowledgement = |action: &Action| matches!(action, Action::Acknowledge { .. });
    while !node.is_asked(is_acknowledgement) {
        let action = node.asked.remove(0);
        node.answer(action);
    }
    node.assign(&[]);
    node.answer_all();
    assert!(node.rows[0].released && node.rows[0].has_begun);
    assert_eq!(node.machine.owned(), 0);
}

#[test]
fn release_that_does_not_end_is_given_up() {
    let mut node = Node::new(1);
    node.assign(&[0]);
    node.answer_all();
    node.assign(&[]);
    let is_hand_over = |action: &Action| matches!(action, Action::HandOver { .. });
    assert!(node.is_asked(is_hand_over));
    node.pass(30 * SECOND);
    assert!(node.is_asked(|action| matches!(action, Action::Drop { .. })));
    assert!(matches!(node.reports[..], [Report::NotReleased(PartitionId(0))]), "{:?}", node.reports);
    node.assign(&[0]);
    assert!(node.is_asked(is_reading), "it is taken again");
}

#[test]
fn other_node_at_own_address_is_noticed() {
    let mut node = Node::new(1);
    let other = Beat { run: Uuid::from_u128(7), count: 3 };
    node.beats.insert(ME.to_owned(), other);
    node.pass(SECOND);
    node.answer_all();
    assert!(node.reports.is_empty(), "the run before this one: {:?}", node.reports);
    node.beats.insert(ME.to_owned(), other);
    node.pass(SECOND);
    node.answer_all();
    assert!(matches!(node.reports[..], [Report::AddressShared]), "{:?}", node.reports);
}

/// A partition that only another input topic has goes with the one that its number comes to.
#[test]
fn partition_beyond_commands_topic_is_assigned_with_its_like() {
    let mut node = Node::new(4);
    let rows = node.rows.clone();
    node.tell(Input::Counted(Arc::new(Growth { rows, ..(*growth()).clone() })));
    node.assign(&[1]);
    node.answer_all();
    let served: BTreeSet<PartitionId> = node.served.iter().map(|grant| grant.row.partition).collect();
    assert_eq!(served, [PartitionId(1), PartitionId(3)].into());
}
