//! The partition supervisor: a ractor actor that owns the aggregate actors of one owned partition.
//!
//! It activates them from stored state, restarts one that fails from the committed snapshot it keeps beside
//! it, hands the messages before the culprit to the new one, and reports the culprit; what becomes of the
//! culprit is the lane's decision. A failing aggregate never touches its neighbours (I6). The default of
//! ractor, to stop with a failing child, is replaced.

use std::sync::Arc;

use holdfast_core::{AggregateId, port::store::StateRow};
use holdfast_machine::lane::Failure;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::mpsc;

use crate::{
    delivery::Delivery,
    entity::{Entity, EntityArguments, EntityMessage, Settled, Shared},
    guard::guarded,
    ids::IdMap,
    kind::Kind,
    router::RouteError,
    telemetry,
    work::{ReadReply, Snapshot, Verdict},
};

pub(crate) enum PartitionMessage {
    /// Deliver a batch.
    Deliver { deliveries: Vec<Post> },
    /// A batch has ended: these are the committed states now; `None` leaves the one that is there.
    Settle { snapshots: Vec<(AggregateId, Option<Arc<Snapshot>>)> },
    /// A strong read; handed back through `cold` if the aggregate is not in memory.
    Read { id: AggregateId, reply: ReadReply, cold: mpsc::UnboundedSender<(AggregateId, ReadReply)> },
    /// Drop these actors. Nothing of theirs is in flight.
    Passivate { ids: Vec<AggregateId> },
}

/// One delivery on its way to its actor.
pub(crate) struct Post {
    pub delivery: Arc<Delivery>,
    pub kind: Arc<dyn Kind>,
    /// What the store holds, if the actor has to be activated.
    #[expect(clippy::option_option, reason = "not asked for, or asked for and not there, or there")]
    pub activation: Option<Option<StateRow>>,
    /// Reads that asked for the activation.
    pub readers: Vec<ReadReply>,
}

pub(crate) struct Partition;

pub(crate) struct PartitionArguments {
    pub context: &'static str,
    pub shared: Arc<Shared>,
}

struct Child {
    actor: ActorRef<EntityMessage>,
    kind: Arc<dyn Kind>,
    committed: Arc<Snapshot>,
    /// The delivery in work.
    delivery: Option<Arc<Delivery>>,
    /// The committed state at the end of the last delivery, until the actor is sent it.
    settled: Settled,
    /// Whether a read waits in the actor for the delivery in work to end.
    is_awaited: bool,
}

impl Child {
    /// Ends the delivery in work. The actor gets the committed state now if a read waits for it, else with
    /// its next message.
    fn settle(&mut self, snapshot: Option<Arc<Snapshot>>) {
        if let Some(snapshot) = snapshot {
            self.committed = snapshot;
        }
        self.delivery = None;
        self.settled = Some(self.committed.clone());
        if std::mem::take(&mut self.is_awaited) {
            // A child that just died is restarted from `committed`; the message may be lost.
            let _ = self.actor.send_message(EntityMessage::Read { settled: self.settled.take(), reply: None });
        }
    }

    fn read(&mut self, reply: ReadReply) {
        self.is_awaited |= self.delivery.is_some();
        let _ = self.actor.send_message(EntityMessage::Read { settled: self.settled.take(), reply: Some(reply) });
    }

    /// If the child died meanwhile, its supervision event finds `delivery` and answers.
    fn decide(&mut self, delivery: Arc<Delivery>) {
        self.delivery = Some(delivery.clone());
        let settled = self.settled.take();
        let _ = self.actor.send_message(EntityMessage::Decide { settled, delivery });
    }
}

pub(crate) struct PartitionState {
    this: PartitionArguments,
    children: IdMap<AggregateId, Child>,
    names: IdMap<ActorId, AggregateId>,
}

impl Actor for Partition {
    type Msg = PartitionMessage;
    type State = PartitionState;
    type Arguments = PartitionArguments;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        this: PartitionArguments,
    ) -> Result<PartitionState, ActorProcessingErr> {
        Ok(PartitionState { this, children: IdMap::default(), names: IdMap::default() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: PartitionMessage,
        state: &mut PartitionState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PartitionMessage::Deliver { deliveries } => {
                for post in deliveries {
                    state.deliver(&myself, post).await?;
                }
            }
            PartitionMessage::Settle { snapshots } => {
                for (id, snapshot) in snapshots {
                    if let Some(child) = state.children.get_mut(&id) {
                        child.settle(snapshot);
                    }
                }
            }
            PartitionMessage::Read { id, reply, cold } => match state.children.get_mut(&id) {
                Some(child) => child.read(reply),
                None => {
                    let _ = cold.send((id, reply));
                }
            },
            PartitionMessage::Passivate { ids } => {
                for id in ids {
                    if let Some(child) = state.children.remove(&id) {
                        state.names.remove(&child.actor.get_id());
                        child.actor.stop(None);
                    }
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut PartitionState,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, error) = event
            && let Some(id) = state.names.remove(&cell.get_id())
        {
            state.restart(&myself, id, &error.to_string()).await?;
        }
        Ok(())
    }
}

impl PartitionState {
    async fn deliver(&mut self, myself: &ActorRef<PartitionMessage>, post: Post) -> Result<(), ActorProcessingErr> {
        let id = post.delivery.aggregate.clone();
        if let Some(row) = &post.activation
            && !self.children.contains_key(&id)
        {
            let snapshot = guarded("decode_state", || post.kind.snapshot(&id.key, row.as_ref()));
            match snapshot.map_err(|panicked| panicked.to_string()).and_then(|it| it.map_err(|error| error.to_string()))
            {
                Ok(snapshot) => self.spawn(myself, id.clone(), post.kind, Arc::new(snapshot)).await?,
                Err(error) => {
                    tracing::error!(aggregate = %id, error, "a stored state could not be read by this build; its messages become dead letters");
                    for reply in post.readers {
                        reply.send(Err(RouteError::Failed));
                    }
                    let failed = Some(Failure::Unreadable(error));
                    post.delivery.conclude(Verdict { steps: Vec::new(), outcome: None, failed, unreadable: true });
                    return Ok(());
                }
            }
        }
        let Some(child) = self.children.get_mut(&id) else {
            return Err(format!("delivery to {id}, which is neither live nor activated").into());
        };
        child.decide(post.delivery);
        for reply in post.readers {
            child.read(reply);
        }
        Ok(())
    }

    async fn spawn(
        &mut self,
        myself: &ActorRef<PartitionMessage>,
        id: AggregateId,
        kind: Arc<dyn Kind>,
        committed: Arc<Snapshot>,
    ) -> Result<(), ActorProcessingErr> {
        let arguments = EntityArguments {
            key: id.key.clone(),
            kind: kind.clone(),
            snapshot: committed.clone(),
            shared: self.this.shared.clone(),
        };
        let (actor, _) = Entity::spawn_linked(None, Entity, arguments, myself.get_cell()).await?;
        self.names.insert(actor.get_id(), id.clone());
        self.children.insert(id, Child { actor, kind, committed, delivery: None, settled: None, is_awaited: false });
        Ok(())
    }

    /// Starts a failed actor again from its committed state. What it was deciding is cut before the culprit
    /// and delivered again; the culprit is reported.
    async fn restart(
        &mut self,
        myself: &ActorRef<PartitionMessage>,
        id: AggregateId,
        error: &str,
    ) -> Result<(), ActorProcessingErr> {
        let Some(child) = self.children.remove(&id) else { return Ok(()) };
        metrics::counter!(telemetry::RESTARTS_TOTAL, "context" => self.this.context).increment(1);
        tracing::warn!(aggregate = %id, error, "an actor failed and is restarted from its committed state");
        let interrupted = child.delivery;
        self.spawn(myself, id.clone(), child.kind.clone(), child.committed.clone()).await?;
        let Some(delivery) = interrupted else { return Ok(()) };
        delivery.cut_at_culprit(error);
        let child = self.children.get_mut(&id).expect("just spawned");
        child.decide(delivery);
        Ok(())
    }
}
