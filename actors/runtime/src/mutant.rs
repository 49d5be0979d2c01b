//! Rules that a test breaks on purpose, to see that it would notice (I9).
//!
//! Each is a rule that the model checker has shown to be needed. Only a test sets one: no flag, variable or file reaches
//! [`crate::Config::mutant`].

/// Which rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A taker waits out the lease and raises the epoch afterwards.
    WaitThenBump,
    /// A lease counts from the answer to its renewal.
    LeaseFromAnswer,
    /// A renewal looks at the row before it says that its node lives.
    LookThenBeat,
    /// A first lease is begun without a beat.
    BeginWithoutBeat,
    /// A taker doesn't ask whether the owner said anything since it was heard.
    OldBeatTrusted,
    /// Strong reads are answered without a look at the lease.
    NoLeaseCheck,
    /// Who finds himself fenced goes on with the actors he has when he owns the partition again.
    ActorsKept,
    /// A commit whose outcome is unknown is made again.
    BlindReexecution,
    /// A strong read is answered while a commit of its aggregate is in flight.
    StrongDoesNotWait,
    /// The row is released before reads end.
    ReleaseFirst,
    /// A look-up does not count the messages of its own batch.
    LookUpIgnoresBatch,
    /// Records of new partitions wait for nothing.
    NoWait,
    /// The ends of others are read before what lies here.
    EndsBeforeFetch,
    /// Records wait for the partition that theirs was split from, not for that one's ancestors.
    ParentOnly,
    /// A transition ends by age alone.
    EndedByAge,
    /// What waits in the mailbox of an actor in memory is not read again after the wait.
    MailboxBeforeWait,
    /// What waits in the mailbox is applied after what was read.
    MailboxAfterBatch,
    /// A new home serves at once.
    NoAcknowledgement,
    /// A new home waits for the one that its keys last left, not for the ones before.
    AcknowledgedByParent,
    /// A taker acknowledges when it raises the epoch.
    AcknowledgedAtBump,
    /// Actors whose keys have moved stop after the acknowledgement.
    PassivatedAfterwards,
    /// A refused outbox row counts as published before it is stored as stuck.
    CursorBeforeStuck,
    /// A taker, and a home that is new, sends without having read the stuck queues.
    StuckNotRead,
}
