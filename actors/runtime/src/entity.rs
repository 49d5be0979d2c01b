//! The actor of one live aggregate.
//!
//! The actor holds the committed snapshot, decides deliveries on it, and advances only once a message brings
//! it the snapshot of a committed delivery. A strong read waits for the commit in flight (I5). Deliberately
//! absent: any I/O, and catching a panic of `decide`: dying is how an actor fails, and its supervisor
//! restarts it.

use std::sync::Arc;

use holdfast_core::port::clock::Clock;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use holdfast_machine::Rules;

use crate::{
    delivery::Delivery,
    emit::Emit,
    guard::guarded,
    kind::Kind,
    lease::Lease,
    router::{ReadAnswer, RouteError},
    work::{ReadReply, Snapshot},
};

pub(crate) enum EntityMessage {
    /// Decide these. Nothing changes until they are settled.
    Decide { settled: Settled, delivery: Arc<Delivery> },
    /// A strong read; `None` does nothing but settle.
    Read { settled: Settled, reply: Option<ReadReply> },
}

/// The committed state, if the last delivery has ended and the actor has not heard of it. The next message to
/// the actor carries it, because a message of its own costs as much as deciding does.
pub(crate) type Settled = Option<Arc<Snapshot>>;

/// What every actor of a partition shares.
pub(crate) struct Shared {
    pub emit: Arc<Emit>,
    pub lease: Lease,
    pub clock: Arc<dyn Clock>,
    pub rules: Rules,
}

pub(crate) struct Entity;

pub(crate) struct EntityArguments {
    pub key: Arc<str>,
    pub kind: Arc<dyn Kind>,
    pub snapshot: Arc<Snapshot>,
    pub shared: Arc<Shared>,
}

pub(crate) struct EntityState {
    this: EntityArguments,
    /// Whether a delivery was decided and not settled.
    in_flight: bool,
    /// Reads that wait for it.
    readers: Vec<ReadReply>,
}

impl Actor for Entity {
    type Msg = EntityMessage;
    type State = EntityState;
    type Arguments = EntityArguments;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        this: EntityArguments,
    ) -> Result<EntityState, ActorProcessingErr> {
        Ok(EntityState { this, in_flight: false, readers: Vec::new() })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: EntityMessage,
        state: &mut EntityState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            EntityMessage::Decide { settled, delivery } => {
                state.settle(settled);
                let this = &state.this;
                let verdict = this.kind.decide(&this.shared.emit, &delivery, &this.snapshot);
                state.in_flight = true;
                delivery.conclude(verdict);
            }
            EntityMessage::Read { settled, reply } => {
                state.settle(settled);
                match reply {
                    Some(reply) if state.in_flight && state.this.shared.rules.reads_wait_for_commits => {
                        state.readers.push(reply);
                    }
                    Some(reply) => state.this.answer(reply),
                    None => {}
                }
            }
        }
        Ok(())
    }
}

impl EntityState {
    fn settle(&mut self, settled: Settled) {
        let Some(snapshot) = settled else { return };
        self.this.snapshot = snapshot;
        self.in_flight = false;
        for reply in std::mem::take(&mut self.readers) {
            self.this.answer(reply);
        }
    }
}

impl EntityArguments {
    fn answer(&self, reply: ReadReply) {
        let now = self.shared.clock.now();
        let Ok(body) = guarded("encode_reply", || self.kind.reply(&self.key, &self.snapshot, now)) else {
            return reply.send(Err(RouteError::Failed));
        };
        let exists = self.snapshot.version > 0;
        let answer = ReadAnswer { version: self.snapshot.version, exists, body, strong: true };
        // The lease is looked at last: what was read is the newest state as long as it holds (I5).
        let valid = self.shared.lease.valid();
        reply.send(if valid {
            Ok(answer)
        } else {
            Err(RouteError::not_owner("the lease on this partition has run out"))
        });
    }
}
