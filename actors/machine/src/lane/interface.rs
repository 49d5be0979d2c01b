//! Inputs and actions of a lane's machine.
//!
//! Invariant: an action that asks for something carries an [`Ask`], and has exactly one answer. Deliberately
//! absent: what either leads to.

use std::sync::Arc;

use holdfast_core::{
    AggregateId, KeyHash, PartitionId,
    batch::Fence,
    dedup::{Answer, Claim},
    disposition::WaitReason,
    epoch::{Generation, PartitionRow, Token},
    growth::Growth,
    invariant::Invariant,
    port::store::{CommitError, Committed, StoreError, Wanted},
};

use super::{
    live::Claims,
    message::{Arrival, Failure, Number},
    plan::Part,
};
use crate::{Ask, ownership::Loss};

/// A partition to be served.
#[derive(Clone, Debug)]
pub struct Own {
    /// Which partition.
    pub partition: PartitionId,
    /// Numbers this node's ownerships.
    pub term: u64,
    /// The token it is held under.
    pub token: Token,
    /// The generation that it was taken under.
    pub generation: Generation,
    /// The count of that generation.
    pub count: u32,
    /// Whether its keys are served at once.
    pub is_serving: bool,
    /// The number of its last committed batch.
    pub batch: u64,
    /// The sequence of its last outbox row.
    pub outbox_head: u64,
}

/// What an actor made of its messages.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Which delivery.
    pub delivery: u64,
    /// The number of messages that were decided, from the first on.
    pub decided: usize,
    /// Whether anything is to be written.
    pub is_changed: bool,
    /// Whether it depends on a shared quantity.
    pub is_conditional: bool,
    /// The timers that are set again or cancelled: as decided, and if refused.
    pub timers: [Vec<String>; 2],
    /// The claims that are made, in order: as decided, and if refused.
    pub claims: [Vec<Claim>; 2],
    /// What is wrong with the message after the decided ones.
    pub failed: Option<Failure>,
    /// There is no actor: the stored state can't be read.
    pub is_unreadable: bool,
}

/// What the store knows of an aggregate.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// What keeps its state from being used, if anything does.
    pub unusable: Option<Failure>,
    /// How many messages wait in its mailbox.
    pub waiting: u64,
    /// Its claims.
    pub claims: Claims,
}

/// What the store answered to [`Action::Find`].
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// For each question in [`Action::Find`] what the store knows, if the state was asked for.
    pub aggregates: Vec<Stored>,
    /// Of the messages whose claims were asked for, those of which the store has one.
    pub claims: Vec<(Number, Result<Claim, Failure>)>,
    /// Of the messages that were asked about, those that need another context, or whose adapter failed when
    /// it was asked.
    pub needs: Vec<(Number, Result<&'static str, Failure>)>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Something was read, called, or came to its end.
    Arrived(Arrival),
    /// All that is at hand was handed in: now is the time to begin what can be begun.
    Turn,
    /// The store answered a look-up.
    Found {
        /// Which.
        ask: Ask,
        /// What it knows.
        found: Result<Found, StoreError>,
    },
    /// Another context was asked.
    Asked {
        /// Which question.
        ask: Ask,
        /// The messages for which that failed.
        failures: Vec<(Number, Failure)>,
    },
    /// An actor has decided.
    Decided(Verdict),
    /// The supervisor of a partition is gone.
    SupervisorDied {
        /// Of which partition.
        partition: PartitionId,
        /// Under which ownership.
        term: u64,
    },
    /// A commit has ended.
    Committed {
        /// Which.
        ask: Ask,
        /// How.
        result: Result<Committed, CommitError>,
    },
    /// The partition rows were read after a commit that was stale somewhere.
    Compared {
        /// Which reading.
        ask: Ask,
        /// The rows.
        rows: Result<Vec<PartitionRow>, StoreError>,
    },
    /// New tokens were drawn for the partitions of a commit of unknown outcome.
    Retokened {
        /// Which.
        ask: Ask,
        /// The rows that are held under them; `None` if that could not be found out.
        rows: Option<Vec<PartitionRow>>,
    },
    /// The store was asked what is due.
    Due {
        /// Which look.
        ask: Ask,
        /// Timers and mail, mail in the order of its mailbox.
        due: Vec<Arrival>,
    },
    /// The partition counts were read.
    Counted(Arc<Growth>),
    /// A generation was acknowledged; `None` if the row has another token or another generation by now.
    Acknowledged {
        /// Which acknowledgement.
        ask: Ask,
        /// The row as it then stood.
        row: Result<Option<PartitionRow>, StoreError>,
    },
    /// A partition is to be served.
    Own(Own),
    /// A partition is lost.
    Drop {
        /// Which.
        partition: PartitionId,
        /// Which ownership.
        term: u64,
    },
    /// A partition is to be finished with and let go.
    Release {
        /// Which.
        partition: PartitionId,
        /// Which ownership.
        term: u64,
    },
}

/// The reply that a caller or a reader receives.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The answer that was given before.
    Known(Answer),
    /// The partition is, or may be, another node's.
    NotOwner,
    /// The store is away.
    Unavailable(String),
    /// Something of the aggregate waits, for this reason.
    Waiting(WaitReason),
    /// It failed.
    Failed(Failure),
}

/// Which way a delivery has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branch {
    /// As decided, or as decided if granted.
    Granted,
    /// As decided if refused.
    Refused,
}

/// The messages of one batch for one aggregate.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Numbers deliveries.
    pub delivery: u64,
    /// The aggregate.
    pub aggregate: AggregateId,
    /// The hash of its key.
    pub hash: KeyHash,
    /// Its home.
    pub partition: PartitionId,
    /// The count by which that is its home.
    pub count: u32,
    /// What is to be decided, in order.
    pub messages: Vec<Number>,
    /// Strong reads that wait for the actor.
    pub readers: Vec<Number>,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Look up in the store what it knows of a batch, and ask the adapters which of `unprepared` need a
    /// look-up in another context.
    Find {
        /// For [`Input::Found`].
        ask: Ask,
        /// What is asked: if nothing is, the answer takes no round trip.
        wanted: Vec<Wanted>,
        /// The messages whose claims are asked for.
        claimants: Vec<Number>,
        /// Messages whose needs are not known.
        unprepared: Vec<Number>,
    },
    /// Ask another context what these messages need.
    Ask {
        /// For [`Input::Asked`].
        ask: Ask,
        /// The messages.
        messages: Vec<Number>,
    },
    /// Have these decided by their actors.
    Decide {
        /// What, by aggregate.
        deliveries: Vec<Delivery>,
    },
    /// Commit.
    Commit {
        /// For [`Input::Committed`].
        ask: Ask,
        /// The partitions; the relay's cursors are for the shell to add.
        fences: Vec<Fence>,
        /// What is written.
        parts: Vec<Part>,
        /// All messages that it is about.
        messages: Vec<Number>,
    },
    /// Commit once more what was committed last, which the store has not taken.
    CommitAgain {
        /// For [`Input::Committed`].
        ask: Ask,
        /// The partitions, as in [`Action::Commit`].
        fences: Vec<Fence>,
    },
    /// Read the partition rows.
    Compare {
        /// For [`Input::Compared`].
        ask: Ask,
    },
    /// Draw a new token for each of these partitions, and read their rows.
    Retoken {
        /// For [`Input::Retokened`].
        ask: Ask,
        /// Partitions and their tokens.
        held: Vec<(PartitionId, Token)>,
    },
    /// An actor's delivery is committed: it advances.
    Advance {
        /// Which delivery.
        delivery: u64,
        /// Which way.
        branch: Branch,
    },
    /// A delivery is committed, and its actor has advanced: its callers are answered, and the effects it
    /// intends begin.
    Conclude {
        /// Which delivery.
        delivery: u64,
        /// Which way.
        branch: Branch,
        /// Under which ownership it was decided.
        term: u64,
    },
    /// A delivery did not happen: its actor stays as it was.
    Undo {
        /// Which delivery.
        delivery: u64,
    },
    /// Hand the rows of the commit that has just ended to the relay.
    Publish,
    /// Tell the log how far a partition is consumed: a hint for lag tools.
    Note {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionId,
        /// The next offset.
        next: u64,
    },
    /// Answer a caller or a reader.
    Answer {
        /// Which.
        message: Number,
        /// What.
        reply: Reply,
    },
    /// A message is done, or void: its body and its credit go.
    Done {
        /// Which.
        message: Number,
    },
    /// Look in the store for timers, mail and effects that are due.
    Look {
        /// For [`Input::Due`].
        ask: Ask,
        /// Partitions and ownerships.
        partitions: Vec<(PartitionId, u64)>,
        /// The count by which they are homes.
        count: u32,
    },
    /// Drop these actors. Nothing of theirs is in flight.
    Passivate {
        /// Whose.
        partition: PartitionId,
        /// Which.
        aggregates: Vec<AggregateId>,
    },
    /// Put a generation on record, with the outbox head up to which events of moved keys may still be
    /// published from here.
    Acknowledge {
        /// For [`Input::Acknowledged`].
        ask: Ask,
        /// Which partition.
        partition: PartitionId,
        /// Its token.
        token: Token,
        /// The generation.
        generation: Generation,
        /// Its count.
        count: u32,
    },
    /// A partition's keys are served from now on, or are not.
    Serve {
        /// Which partition.
        partition: PartitionId,
        /// Whether.
        is_serving: bool,
    },
    /// Tell a partition's relay which keys are at home there.
    Home {
        /// Which partition.
        partition: PartitionId,
        /// The count by which they are.
        count: u32,
        /// Whether they are served.
        serves: bool,
    },
    /// A partition's row has changed under the relay.
    Reload {
        /// Which partition.
        partition: PartitionId,
        /// Its token.
        token: Token,
        /// The sequence of its last outbox row.
        head: u64,
    },
    /// Remember the number of a partition's last batch.
    Remember {
        /// Which partition.
        partition: PartitionId,
        /// The number.
        batch: u64,
    },
    /// Stop a partition's supervisor.
    Stop {
        /// Which partition.
        partition: PartitionId,
        /// Under which ownership.
        term: u64,
    },
    /// A partition is finished with, and is stopped next.
    Released {
        /// Which.
        partition: PartitionId,
        /// The token it ends with.
        token: Token,
        /// The sequence of its last outbox row.
        head: u64,
    },
    /// Read the counts soon.
    HurryCounts,
    /// Tell people.
    Report(Report),
}

/// A report for operators, which the shell logs or passes on.
#[derive(Clone, Debug)]
pub enum Report {
    /// A look-up failed, and is made again.
    NotFound(StoreError),
    /// A commit failed.
    NotCommitted(CommitError),
    /// The rows could not be read after a refused commit; the partitions are given up.
    NotCompared(StoreError),
    /// The end of an effect could not be taken in; it is asked for again.
    EffectFailed(Number, Failure),
    /// What follows from a failed message was refused; it is left as it is.
    LeftAlone(Number, String),
    /// The store refused to consume an offset, whatever was written with it.
    OffsetRefused(PartitionId, String),
    /// A generation was acknowledged.
    Acknowledged(PartitionId, Generation, u32),
    /// A generation could not be acknowledged; the partition is given up.
    NotAcknowledged(PartitionId, StoreError),
    /// An ownership has ended without an order.
    Lost(PartitionId, u64, Loss),
    /// An invariant is violated: a bug of the machine or of its shell.
    Violated(Invariant, String),
}
