//! What a node's shell does when its takers say so, and what their questions are answered.
//!
//! Deliberately absent: a tail of the events topic that is read, since no history is lost here; that a node
//! remembers a batch which the store does not have is a broken promise (I10).

use holdfast_core::{PartitionId, epoch::Token};
use holdfast_machine::{
    lane::{Own, serves},
    ownership::{Action, Input, Unsound},
};
use uuid::Uuid;

use super::{
    Node,
    answers::away,
    kept::{Held, Order},
};
use crate::simulator::{
    Fault, log,
    question::{Answer, Question},
    store::draw,
    surroundings::Surroundings,
};

impl Node {
    /// Whether everything is released and the group is left.
    pub fn has_left(&self) -> bool {
        self.takers.has_left()
    }

    pub fn tell_takers(&mut self, input: Input, around: &mut Surroundings) {
        if !self.is_alive {
            return;
        }
        let now = self.clock.now(around.now);
        around.journal.note(format_args!("takers of node {} at {now:?}: {input:?}", self.number));
        around.coverage.met_takers(self.takers.phases(), &input);
        let mut actions = Vec::new();
        self.takers.handle(input, now, &mut actions);
        around.journal.note(format_args!("-> {actions:?}"));
        for action in actions {
            if !self.lives_through("takers", action, around, Self::perform_taking) {
                return;
            }
        }
    }

    fn perform_taking(&mut self, action: Action, around: &mut Surroundings) {
        match action {
            Action::Serve(grant) => {
                let row = grant.row;
                let (partition, generation) = (row.partition, row.generation);
                let is_serving = serves(self.setup.rules, &self.growth, partition, generation);
                let (term, tokens, lease_until) = (grant.term, vec![grant.token], grant.lease_until);
                self.remembered.insert(partition, row.batch);
                self.held.insert(partition, Held { term, lease_until, tokens, is_serving });
                let waited = self.relay.own(partition, term, grant.token, row.outbox_cursor, row.outbox_head);
                self.to_takers.extend(waited.map(|ask| Input::HandedOver { ask, token: None }));
                self.to_lane.push_back(Order::Own(Box::new(Own {
                    partition,
                    term,
                    token: grant.token,
                    generation,
                    count: grant.count,
                    is_serving,
                    batch: row.batch,
                    outbox_head: row.outbox_head,
                })));
                for topic in [log::COMMANDS, log::SALES] {
                    self.begin_reading((topic, partition), term, row.next_offset(topic).unwrap_or(0));
                }
            }
            Action::Renew { partition, term, until } => {
                if let Some(held) = self.held.get_mut(&partition).filter(|held| held.term == term) {
                    held.lease_until = held.lease_until.max(until);
                }
            }
            Action::Close { partition, term } => {
                if self.held.get(&partition).is_some_and(|held| held.term == term) {
                    self.held.remove(&partition);
                    self.readers.retain(|(_, of), _| *of != partition);
                }
            }
            Action::Drop { partition, term } => {
                self.to_lane.push_back(Order::Drop { partition, term });
                let waited = self.relay.drop(partition, term);
                self.to_takers.extend(waited.map(|ask| Input::HandedOver { ask, token: None }));
            }
            Action::HandOver { ask, partition, term } => {
                self.to_lane.push_back(Order::Release { ask, partition, term });
            }
            Action::HurryCounts => self.wants_counts = true,
            Action::Leave | Action::Report(_) => {}
            Action::ReadRows { .. }
            | Action::Raise { .. }
            | Action::Beat { .. }
            | Action::Verify { .. }
            | Action::Acknowledge { .. }
            | Action::Look { .. }
            | Action::Confirm { .. }
            | Action::Release { .. } => around.ask(self.number, Question::Own(action)),
        }
    }

    /// What the takers asked takes effect: what its answer will be. Its effect may stand although the answer
    /// says that it failed.
    pub(super) fn own_takes_effect(&mut self, action: &Action, around: &mut Surroundings) -> Answer {
        let fault = match action {
            Action::ReadRows { .. } => Fault::RowsFailed,
            Action::Raise { .. } => Fault::RaiseFailed,
            Action::Beat { .. } => Fault::BeatFailed,
            Action::Verify { .. } => Fault::VerifyFailed,
            Action::Acknowledge { .. } => Fault::AcknowledgeFailed,
            Action::Look { .. } => Fault::RenewalFailed,
            Action::Release { .. } => Fault::ReleaseFailed,
            Action::Confirm { .. } => Fault::ConfirmFailed,
            _ => unreachable!("{action:?} asks for nothing"),
        };
        let fails = around.fails(fault);
        if fails && (around.is_away() || around.dice.one_in(2)) {
            return Answer::Takers(failure(action));
        }
        let answer = self.answer_takers(action, around);
        Answer::Takers(if fails { failure(action) } else { answer })
    }

    fn answer_takers(&mut self, action: &Action, around: &mut Surroundings) -> Input {
        let store = &mut around.store;
        match action {
            Action::ReadRows { ask } => Input::RowsRead { ask: *ask, rows: Ok(store.rows()) },
            Action::Raise { ask, partition, expected } => {
                let token = draw(&mut around.dice);
                let taken = store.take(*partition, *expected, token, &self.address.to_string());
                Input::Raised { ask: *ask, token, taken: Ok(taken) }
            }
            Action::Beat { ask, beat } => {
                Input::Beaten { ask: *ask, said: Ok(store.beat(&self.address.to_string(), *beat)) }
            }
            Action::Verify { ask, row } => {
                let remembered = self.remembered.get(&row.partition).copied().unwrap_or(0);
                if row.batch < remembered {
                    let (partition, batch) = (row.partition, row.batch);
                    around.fail("I10", format!("{partition} is at batch {batch}, and {remembered} was committed"));
                }
                Input::Verified { ask: *ask, known: Ok(None) }
            }
            Action::Acknowledge { ask, partition, token, generation, .. } => {
                Input::Acknowledged { ask: *ask, row: Ok(store.acknowledge(*partition, *token, *generation)) }
            }
            Action::Look { ask, owned } => {
                let is_ours = |(partition, term): &(PartitionId, u64)| {
                    let held = self.held.get(partition).filter(|held| held.term == *term)?;
                    Some((*partition, store.token(*partition).is_some_and(|token| held.tokens.contains(&token))))
                };
                Input::Looked { ask: *ask, ours: Ok(owned.iter().filter_map(is_ours).collect()) }
            }
            Action::Release { ask, partition, token } => {
                Input::Released { ask: *ask, is_released: store.release(*partition, *token) }
            }
            Action::Confirm { ask, partition } => {
                let is_confirmed = around.group.owner(*partition) == Some(self.number);
                Input::Confirmed { ask: *ask, is_confirmed }
            }
            _ => unreachable!("{action:?} asks for nothing"),
        }
    }
}

/// The answer to what failed, or whose answer was lost.
fn failure(action: &Action) -> Input {
    match *action {
        Action::Raise { ask, .. } => Input::Raised { ask, token: Token(Uuid::nil()), taken: Err(away()) },
        Action::Beat { ask, .. } => Input::Beaten { ask, said: Err(away()) },
        Action::ReadRows { ask } => Input::RowsRead { ask, rows: Err(away()) },
        Action::Acknowledge { ask, .. } => Input::Acknowledged { ask, row: Err(away()) },
        Action::Look { ask, .. } => Input::Looked { ask, ours: Err(away()) },
        Action::Release { ask, .. } => Input::Released { ask, is_released: false },
        Action::Verify { ask, .. } => Input::Verified { ask, known: Err(Unsound::Away("away".to_owned())) },
        Action::Confirm { ask, .. } => Input::Confirmed { ask, is_confirmed: false },
        _ => unreachable!("{action:?} asks for nothing"),
    }
}
