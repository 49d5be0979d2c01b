//! What the ownership machine asks of the store, the group and the lanes. Each question runs as a task, and
//! its answer is the machine's next input.
//!
//! Invariant: each question has exactly one answer, also if its task panics. Deliberately absent: trying
//! again, which is the machine's.

use holdfast_core::{
    PartitionId,
    epoch::{Generation, Token},
    port::store::StoreError,
};
use holdfast_machine::ownership::{Action, Input, Unsound};
use tokio::sync::oneshot;

use super::{LaneEnds, Note, Ownership, State};
use crate::{growth, history::Trouble, lane::Control, relay::RelayMessage};

impl Ownership {
    /// Begins to find out what `action` asks.
    pub(super) fn ask(&self, action: Action, state: &mut State) {
        let (store, history, membership) = (self.store.clone(), self.history.clone(), self.membership.clone());
        let panicked = || StoreError::Broken("its task panicked".to_owned());
        match action {
            Action::ReadRows { ask } => {
                let note = Note::of_node("reading of rows", Input::RowsRead { ask, rows: Err(panicked()) });
                state.work.spawn(note, async move { Input::RowsRead { ask, rows: store.partitions().await } });
            }
            Action::Raise { ask, partition, expected } => {
                let (token, address) = (Token::draw(), self.config.address.clone());
                let failed = Input::Raised { ask, token, taken: Err(panicked()) };
                state.work.spawn(Note::of_taker(partition, failed), async move {
                    Input::Raised { ask, token, taken: store.take(partition, expected, token, &address).await }
                });
            }
            Action::Beat { ask, beat } => {
                let address = self.config.address.clone();
                let note = Note::of_node("beat", Input::Beaten { ask, said: Err(panicked()) });
                state.work.spawn(note, async move { Input::Beaten { ask, said: store.beat(&address, beat).await } });
            }
            Action::Verify { ask, row } => {
                let (partition, remembered) = (row.partition, state.remembered(row.partition));
                let failed = Input::Verified { ask, known: Err(Unsound::Away(panicked().to_string())) };
                state.work.spawn(Note::of_taker(partition, failed), async move {
                    let batch = remembered.load(std::sync::atomic::Ordering::Acquire);
                    let known = match history.verify(&row, batch).await {
                        Ok(known) => Ok(known),
                        Err(Trouble::Halt(halt)) if history.halt_all(&halt).await.is_ok() => Err(Unsound::Halted),
                        Err(trouble) => Err(Unsound::Away(trouble.to_string())),
                    };
                    Input::Verified { ask, known }
                });
            }
            Action::Acknowledge { ask, partition, token, generation, count } => {
                // The first generation has left nothing behind.
                let count = count.filter(|_| generation > Generation(1));
                let (context, topic) = (self.fetcher.context.name(), &self.emit.events_topic);
                let mark = count.and_then(|count| growth::mark(context, topic, partition, count, self.clock.now()));
                let failed = Input::Acknowledged { ask, row: Err(panicked()) };
                state.work.spawn(Note::of_taker(partition, failed), async move {
                    Input::Acknowledged { ask, row: store.acknowledge(partition, token, generation, mark).await }
                });
            }
            Action::Look { ask, owned } => {
                let held = owned.into_iter().filter_map(|(partition, term)| {
                    let held = state.held.get(&partition).filter(|held| held.term == term)?;
                    Some((partition, held.tokens.clone()))
                });
                let (partitions, tokens): (Vec<_>, Vec<_>) = held.unzip();
                let failed = Input::Looked { ask, ours: Err(panicked()) };
                state.work.spawn(Note::of_node("renewal of leases", failed), async move {
                    let is_ours = |(partition, token): (PartitionId, Option<Token>)| {
                        let at = partitions.iter().position(|asked| *asked == partition)?;
                        Some((partition, token.is_some_and(|token| tokens[at].contains(token))))
                    };
                    let found = store.tokens(&partitions).await;
                    let ours = found.map(|found| found.into_iter().filter_map(is_ours).collect());
                    Input::Looked { ask, ours }
                });
            }
            Action::Confirm { ask, partition } => {
                let failed = Input::Confirmed { ask, is_confirmed: false };
                state.work.spawn(Note::of_node(&format!("confirmation of {partition}"), failed), async move {
                    Input::Confirmed { ask, is_confirmed: membership.confirm(partition).await }
                });
            }
            Action::HandOver { ask, partition, term } => {
                let lane = self.lane_of(partition).clone();
                let failed = Input::HandedOver { ask, token: None };
                state.work.spawn(Note::of_node(&format!("hand-over of {partition}"), failed), async move {
                    Input::HandedOver { ask, token: hand_over(&lane, partition, term).await }
                });
            }
            Action::Release { ask, partition, token } => {
                let failed = Input::Released { ask, is_released: false };
                state.work.spawn(Note::of_node(&format!("release of {partition}"), failed), async move {
                    let is_released = store.release(partition, token).await.unwrap_or(false);
                    Input::Released { ask, is_released }
                });
            }
            Action::HurryCounts
            | Action::Serve(_)
            | Action::Renew { .. }
            | Action::Close { .. }
            | Action::Drop { .. }
            | Action::Leave
            | Action::Report(_) => unreachable!("{action:?} asks for nothing"),
        }
    }
}

/// Lets a partition's lane finish what is in flight, and its relay publish it. Returns the token that the
/// partition was last held under.
async fn hand_over(lane: &LaneEnds, partition: PartitionId, term: u64) -> Option<Token> {
    let (done, finished) = oneshot::channel();
    lane.control.send(Control::Release { partition, term, done }).ok()?;
    let (token, head) = finished.await.ok()?;
    let (done, published) = oneshot::channel();
    let _ = lane.relay.send(RelayMessage::Finish { partition, term, token, head, done });
    published.await.ok()?;
    Some(token)
}
