//! What a test can break about a [`super::MemoryStore`]: what one node sees of it, and what it itself does
//! wrong.
//!
//! Faults are things that happen in production and must be survived. Sabotage is what I9 asks for: a store
//! that breaks its contract, on which the tests of the invariants must fail.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_core::{
    batch::{Batch, Writes},
    port::store::{CommitError, StoreError, Wanted},
};

use crate::gate::Gate;

/// Where a commit stands when it is held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Sent; no row is locked yet. A take-over that comes now wins.
    BeforeFence,
    /// The fence holds and its rows are locked; COMMIT has not happened. A take-over that comes now waits.
    BeforeCommit,
}

/// How the next commit goes.
#[derive(Clone, Debug)]
pub enum CommitFault {
    /// Nothing is written, and the caller gets `CommitError::Unavailable`.
    Unavailable,
    /// The connection is lost; it was not committed.
    UnknownNotCommitted,
    /// The connection is lost; it was committed.
    UnknownCommitted,
    /// The connection is lost at once; the transaction stays at the stage until the gate opens, then goes on
    /// by itself.
    Late(Stage, Gate),
    /// The caller waits at the stage until the gate opens.
    Slow(Stage, Gate),
}

/// What a store does wrong, for I9.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sabotage {
    /// Commits pass whatever their token and generation.
    pub no_fence: bool,
    /// A batch number that was used before passes, so that a commit can be repeated.
    pub no_batch_number: bool,
    /// State is overwritten whatever its version.
    pub no_version_check: bool,
    /// Claims are never found.
    pub forgetful_claims: bool,
    /// Consumed offsets are stored before the batch, in a transaction of their own.
    pub offsets_first: bool,
    /// `retoken` waits for nobody, and the old token goes on being accepted, as if it had only read.
    pub retoken_by_plain_read: bool,
    /// `take` ignores the epoch it is given.
    pub unconditional_take: bool,
    /// The mailbox is read in the order of offsets.
    pub mailbox_by_offset: bool,
    /// `advance` ignores the token.
    pub cursor_unfenced: bool,
}

/// Finds fault with an entry's data: the SQLSTATE and the message.
pub(super) type Refusal = Arc<dyn Fn(&Writes) -> Option<(String, String)> + Send + Sync>;

/// One node's view of the store.
#[derive(Default)]
pub(super) struct Faults {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    unavailable: bool,
    answers_lost: u32,
    take_panics: u32,
    calls_left: Option<u32>,
    latency: Duration,
    answer_latency: Duration,
    beat_latency: Duration,
    commits: VecDeque<CommitFault>,
    refusal: Option<Refusal>,
    entries_max: Option<usize>,
    hung: Option<Gate>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_unavailable(&self, unavailable: bool) {
        self.state().unavailable = unavailable;
    }

    pub(super) fn lose_answers(&self, n: u32) {
        self.state().answers_lost = n;
    }

    pub(super) fn fail_after(&self, calls: u32) {
        self.state().calls_left = Some(calls);
    }

    pub(super) fn panic_on_take(&self, n: u32) {
        self.state().take_panics = n;
    }

    /// Panics if the test asked for it.
    pub(super) fn taking(&self) {
        let mut state = self.state();
        if state.take_panics > 0 {
            state.take_panics -= 1;
            drop(state);
            panic!("a take-over panics, as the test asked");
        }
    }

    pub(super) fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    pub(super) fn set_answer_latency(&self, latency: Duration) {
        self.state().answer_latency = latency;
    }

    pub(super) fn set_beat_latency(&self, latency: Duration) {
        self.state().beat_latency = latency;
    }

    pub(super) fn set_refusal(&self, refusal: Option<Refusal>) {
        self.state().refusal = refusal;
    }

    pub(super) fn set_entries_max(&self, max: Option<usize>) {
        self.state().entries_max = max;
    }

    pub(super) fn hang_reads(&self, gate: Option<Gate>) {
        self.state().hung = gate;
    }

    /// Waits as long as reads hang.
    pub(super) async fn reading(&self) {
        let gate = self.state().hung.clone();
        if let Some(gate) = gate {
            gate.pass().await;
        }
    }

    pub(super) fn heal(&self) {
        *self.state() = State::default();
    }

    pub(super) fn next_commit(&self, fault: CommitFault) {
        self.state().commits.push_back(fault);
    }

    /// Takes the time of a round trip.
    pub(super) async fn travel(&self) {
        let latency = self.state().latency;
        pass(latency).await;
    }

    /// Takes the time of the way back.
    pub(super) async fn travel_back(&self) {
        let latency = self.state().answer_latency;
        pass(latency).await;
    }

    /// Takes the time of a beat's way.
    pub(super) async fn hold_beat(&self) {
        let latency = self.state().beat_latency;
        pass(latency).await;
    }

    /// Whether the store can be reached now.
    pub(super) fn reach(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        match &mut state.calls_left {
            Some(0) => state.unavailable = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if state.unavailable { Err(StoreError::Unavailable("switched off by the test".into())) } else { Ok(()) }
    }

    /// `answer`, unless answers are being lost.
    pub(super) fn answer<T>(&self, answer: T) -> Result<T, StoreError> {
        let mut state = self.state();
        if state.answers_lost > 0 {
            state.answers_lost -= 1;
            return Err(StoreError::Unavailable("the answer was lost, as the test asked".into()));
        }
        Ok(answer)
    }

    /// Postgres has no NUL in text, not even in a question.
    pub(super) fn finding(wanted: &[Wanted]) -> Result<(), StoreError> {
        if wanted.iter().any(|wanted| wanted.id.key.contains('\0')) {
            let message = "invalid byte sequence for encoding \"UTF8\": 0x00".into();
            return Err(StoreError::Data { sqlstate: "22021".into(), message });
        }
        Ok(())
    }

    /// The fault that this commit meets.
    pub(super) fn take_commit(&self) -> Option<CommitFault> {
        self.state().commits.pop_front()
    }

    /// Refuses a batch for one entry's data, if the test asked for it.
    pub(super) fn check_data(&self, batch: &Batch) -> Result<(), CommitError> {
        let (refusal, max) = {
            let state = self.state();
            (state.refusal.clone(), state.entries_max)
        };
        if max.is_some_and(|max| batch.entries.len() > max) {
            return Err(CommitError::Slow("the batch is too large for this test's store".into()));
        }
        let Some(refusal) = refusal else { return Ok(()) };
        match batch.entries.iter().find_map(|entry| refusal(&entry.writes)) {
            Some((sqlstate, message)) if sqlstate == "57014" => Err(CommitError::Slow(message)),
            Some((sqlstate, message)) => Err(CommitError::Data { sqlstate, message }),
            None => Ok(()),
        }
    }
}

/// Lets `time` go by; nothing happens in no time.
async fn pass(time: Duration) {
    if time > Duration::ZERO {
        tokio::time::sleep(time).await;
    }
}
