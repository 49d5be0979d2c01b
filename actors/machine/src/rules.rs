//! The rules that keep the invariants, each of which a test can leave out to see that its absence is noticed
//! (I9).
//!
//! Invariant: production code names [`Rules::SOUND`] and no other value; a test of the layout holds that.
//! Each rule was shown to be needed by a model checker: those of leases and gates here, the others by the
//! models that the design was made with. Deliberately absent: any way for a flag, a variable or a file to
//! reach them.

/// Which rules are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub struct Rules {
    /// A taker raises the epoch first and waits out the lease afterwards.
    pub raises_before_waiting: bool,
    /// A lease counts from before its renewal was sent, not from the answer.
    pub lease_counts_from_sending: bool,
    /// A renewal writes the node's beat before it looks at the rows.
    pub beats_before_looking: bool,
    /// A first lease begins after a beat.
    pub beats_before_beginning: bool,
    /// A taker shortens its wait only by the silence after the owner's last beat.
    pub asks_for_last_beat: bool,
    /// A taker that gives up leaves the row as it is.
    pub gives_up_silently: bool,
    /// A taker acknowledges its generation when it begins to serve, not when it raises the epoch.
    pub acknowledges_when_begun: bool,
    /// A lease ends before its partition's row is released.
    pub ends_lease_before_releasing: bool,
    /// A strong read is answered only while the lease holds.
    pub checks_lease: bool,
    /// An owner that is fenced drops its actors.
    pub drops_actors_when_fenced: bool,
    /// A commit whose outcome is unknown is settled by new tokens before anything of it is made again.
    pub settles_unknown_commits: bool,
    /// A strong read waits for the commit in flight of its aggregate.
    pub reads_wait_for_commits: bool,
    /// Actors whose commit may have happened are dropped.
    pub forgets_actors_of_unknown_commits: bool,
    /// A look-up of claims counts the messages of its own batch.
    pub claims_count_within_batch: bool,
    /// What a commit pushes out of a ring is known to the batch that was looked up before it.
    pub knows_what_commits_push_out: bool,
    /// Claims that were pushed out are looked for in the tables, also for an actor in memory.
    pub looks_for_claims_of_actors: bool,
    /// Records of new partitions wait for the partitions where older ones of their producer may lie.
    pub waits_for_ancestors: bool,
    /// The ends of these partitions are read after the record that waits was fetched.
    pub measures_ends_after_fetch: bool,
    /// A record waits for all ancestors of its partition, not for its parent alone.
    pub waits_for_all_ancestors: bool,
    /// A transition ends once all that was sent by the older count is consumed, not by its age alone.
    pub transition_ends_when_consumed: bool,
    /// Mail is read again after the wait, also for an actor in memory.
    pub reads_mail_after_wait: bool,
    /// Mail is applied before what was read.
    pub applies_mail_before_records: bool,
    /// A new home waits until its keys' earlier homes have acknowledged.
    pub waits_for_acknowledgement: bool,
    /// A new home waits for all earlier homes of its keys, not for the last alone.
    pub waits_for_all_earlier_homes: bool,
    /// Actors whose keys have moved stop before the acknowledgement.
    pub passivates_before_acknowledging: bool,
    /// A refused outbox row is stored as stuck before it counts as published.
    pub stores_stuck_before_cursor: bool,
    /// A taker, and a home that is new, reads the queues of stuck records before it sends.
    pub reads_stuck_before_sending: bool,
}

impl Rules {
    /// All of them.
    pub const SOUND: Self = Self {
        raises_before_waiting: true,
        lease_counts_from_sending: true,
        beats_before_looking: true,
        beats_before_beginning: true,
        asks_for_last_beat: true,
        gives_up_silently: true,
        acknowledges_when_begun: true,
        ends_lease_before_releasing: true,
        checks_lease: true,
        drops_actors_when_fenced: true,
        settles_unknown_commits: true,
        reads_wait_for_commits: true,
        forgets_actors_of_unknown_commits: true,
        claims_count_within_batch: true,
        knows_what_commits_push_out: true,
        looks_for_claims_of_actors: true,
        waits_for_ancestors: true,
        measures_ends_after_fetch: true,
        waits_for_all_ancestors: true,
        transition_ends_when_consumed: true,
        reads_mail_after_wait: true,
        applies_mail_before_records: true,
        waits_for_acknowledgement: true,
        waits_for_all_earlier_homes: true,
        passivates_before_acknowledging: true,
        stores_stuck_before_cursor: true,
        reads_stuck_before_sending: true,
    };
}

impl Default for Rules {
    fn default() -> Self {
        Self::SOUND
    }
}
