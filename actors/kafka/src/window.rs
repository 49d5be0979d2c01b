//! Which calls of the publisher are acknowledged, in call order.
//!
//! Invariants: a call succeeds only when every row of it *and of every earlier call of the same producer* is
//! acknowledged, so that nothing is taken for published behind a row that failed (I3); after the first
//! failure nothing of this producer succeeds any more. Rows count down a number shared by their call; only
//! the last one of a call, or a failed one, takes the lock. Deliberately absent: the producer.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use holdfast_core::{
    batch::OutboxRow,
    partition::PartitionId,
    port::log::{Landed, Landing, PublishError},
};
use tokio::sync::{Notify, oneshot};

/// How a call ended.
pub(crate) type Answer = Result<Landed, PublishError>;

/// One call: its rows carry it as their opaque.
#[derive(Debug)]
pub(crate) struct Call {
    /// Rows not acknowledged yet, and one for the enqueuing itself.
    remaining: AtomicUsize,
    /// The call's targets, and the offset after the highest acknowledged one in each.
    targets: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    topic: Arc<str>,
    partition: u32,
    end: AtomicU64,
}

impl Call {
    fn of(rows: &[OutboxRow]) -> Self {
        let mut targets: Vec<Target> = Vec::new();
        for draft in rows.iter().map(|row| &row.draft) {
            // Few, and next to one another mostly.
            let is_same = |target: &Target| target.partition == draft.target.0 && target.topic == draft.topic;
            if !targets.iter().rev().any(is_same) {
                let (topic, partition) = (Arc::clone(&draft.topic), draft.target.0);
                targets.push(Target { topic, partition, end: AtomicU64::new(0) });
            }
        }
        Self { remaining: AtomicUsize::new(rows.len() + 1), targets }
    }

    /// A row lies at `offset`.
    pub(crate) fn landed(&self, topic: &str, partition: i32, offset: u64) {
        let is_it = |target: &&Target| u32::try_from(partition) == Ok(target.partition) && *target.topic == *topic;
        if let Some(target) = self.targets.iter().find(is_it) {
            target.end.fetch_max(offset + 1, Ordering::AcqRel);
        }
    }

    fn all_landed(&self) -> Landed {
        let landing = |target: &Target| {
            let offset = target.end.load(Ordering::Acquire).checked_sub(1)?;
            Some(Landing { topic: Arc::clone(&target.topic), partition: PartitionId(target.partition), offset })
        };
        Landed(self.targets.iter().filter_map(landing).collect())
    }
}

/// The calls of one producer that are not answered.
#[derive(Debug, Default)]
pub(crate) struct Window {
    state: Mutex<State>,
    /// Rows handed to librdkafka and not acknowledged.
    outstanding: AtomicUsize,
    /// Woken when no row is outstanding, or the window breaks.
    settled: Notify,
    /// Whether a row is out alone: its own report tells more than any other error.
    has_lone_row: AtomicBool,
}

/// A call just opened, and the receiver of its answer.
pub(crate) type Opened = (Arc<Call>, oneshot::Receiver<Answer>);

type Open = (Arc<Call>, oneshot::Sender<Answer>);

#[derive(Debug, Default)]
struct State {
    calls: VecDeque<Open>,
    broken: Option<PublishError>,
}

impl Window {
    /// Opens a call of `rows`, after all that are open.
    pub(crate) fn open(&self, rows: &[OutboxRow]) -> Result<Opened, PublishError> {
        let mut state = self.lock();
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        let call = Arc::new(Call::of(rows));
        let (answer, answered) = oneshot::channel();
        state.calls.push_back((Arc::clone(&call), answer));
        Ok((call, answered))
    }

    /// One row of `call` is acknowledged, or all of it is enqueued.
    pub(crate) fn count_down(&self, call: &Call) {
        if call.remaining.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let mut state = self.lock();
        while state.calls.front().is_some_and(|(call, _)| call.remaining.load(Ordering::Acquire) == 0) {
            if let Some((call, answer)) = state.calls.pop_front() {
                // Nobody listening is fine: the caller was cancelled after it had enqueued.
                let _ = answer.send(Ok(call.all_landed()));
            }
        }
    }

    /// Hands a row over by `send`; `is_alone` if nothing else is out, and nothing follows before it is
    /// acknowledged. Nothing is sent once the window is broken: what is queued is purged after that, and a
    /// row behind it would leave a gap.
    pub(crate) fn hand_over<E>(
        &self,
        is_alone: bool,
        send: impl FnOnce() -> Result<(), E>,
    ) -> Result<Result<(), E>, PublishError> {
        let state = self.lock();
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        self.has_lone_row.store(is_alone, Ordering::Release);
        self.outstanding.fetch_add(1, Ordering::AcqRel);
        let sent = send();
        if sent.is_err() {
            self.outstanding.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(sent)
    }

    /// A row is acknowledged.
    pub(crate) fn acknowledged(&self, call: &Call) {
        self.has_lone_row.store(false, Ordering::Release);
        // First: a call that waits for the rest to settle sends next, and a refusal is the first open call's.
        self.count_down(call);
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.settled.notify_waiters();
        }
    }

    /// Whether a row is out alone.
    pub(crate) fn has_lone_row(&self) -> bool {
        self.has_lone_row.load(Ordering::Acquire)
    }

    /// Waits until every row handed over is acknowledged.
    pub(crate) async fn settled(&self) -> Result<(), PublishError> {
        loop {
            let settled = self.settled.notified();
            if let Some(error) = self.broken() {
                return Err(error);
            }
            if self.outstanding.load(Ordering::Acquire) == 0 {
                return Ok(());
            }
            settled.await;
        }
    }

    /// Fails all open calls and those to come.
    pub(crate) fn fail(&self, reason: impl Into<String>) {
        self.break_with(PublishError::Stopped(reason.into()));
    }

    /// Fails the first open call, whose row was out alone, with `refused`, and all others.
    pub(crate) fn refuse(&self, refused: PublishError) {
        self.break_with(refused);
    }

    /// The first error counts. Only the first open call gets [`PublishError::Refused`]: the refused row is
    /// its own.
    fn break_with(&self, error: PublishError) {
        let mut state = self.lock();
        let is_first = state.broken.is_none();
        let stopped = match &error {
            PublishError::Stopped(_) => error.clone(),
            PublishError::Refused { .. } => PublishError::Stopped(error.to_string()),
        };
        let stopped = state.broken.get_or_insert(stopped).clone();
        let mut own = is_first.then_some(error);
        for (_, answer) in state.calls.drain(..) {
            let _ = answer.send(Err(own.take().unwrap_or_else(|| stopped.clone())));
        }
        self.settled.notify_waiters();
    }

    /// Why nothing succeeds any more, if so.
    fn broken(&self) -> Option<PublishError> {
        self.lock().broken.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::{batch::OutboxDraft, envelope::Headers};

    fn rows(count: u64) -> Vec<OutboxRow> {
        let draft = |target| OutboxDraft {
            id: uuid::Uuid::nil(),
            topic: "t".into(),
            target: PartitionId(target),
            key: None,
            headers: Headers::default(),
            value: None,
        };
        let row = |sequence| OutboxRow { partition: PartitionId(0), sequence, draft: draft(u32::from(sequence > 1)) };
        (1..=count).map(row).collect()
    }

    /// As librdkafka reports: in any order.
    #[test]
    fn call_returns_the_highest_offset_of_each_target() {
        let window = Window::default();
        let (call, mut answer) = window.open(&rows(3)).expect("open");
        for (partition, offset) in [(1, 9), (1, 8), (0, 2), (7, 5)] {
            call.landed("t", partition, offset);
        }
        call.landed("other", 0, 3);
        (0..4).for_each(|_| window.count_down(&call));
        let landing = |(partition, offset)| Landing { topic: "t".into(), partition: PartitionId(partition), offset };
        assert_eq!(answer.try_recv(), Ok(Ok(Landed([(0, 2), (1, 9)].map(landing).into()))));
    }

    #[test]
    fn a_call_succeeds_only_after_all_earlier_ones() {
        let window = Window::default();
        let (first, mut first_answer) = window.open(&rows(1)).expect("open");
        let (second, mut second_answer) = window.open(&rows(1)).expect("open");
        window.count_down(&second);
        window.count_down(&second);
        assert!(second_answer.try_recv().is_err(), "answered before the first call");
        window.count_down(&first);
        window.count_down(&first);
        assert_eq!(first_answer.try_recv(), Ok(Ok(Landed::default())));
        assert_eq!(second_answer.try_recv(), Ok(Ok(Landed::default())));
    }

    #[test]
    fn after_a_failure_nothing_succeeds() {
        let window = Window::default();
        let (_first, mut first_answer) = window.open(&rows(1)).expect("open");
        let (second, mut second_answer) = window.open(&[]).expect("open");
        window.fail("row refused");
        window.count_down(&second);
        assert_eq!(first_answer.try_recv(), Ok(Err(PublishError::Stopped("row refused".to_owned()))));
        assert!(matches!(second_answer.try_recv(), Ok(Err(_))));
        window.fail("later");
        let refused = PublishError::Stopped("row refused".to_owned());
        assert_eq!(window.open(&rows(1)).map(|_| ()), Err(refused.clone()));
        let sent = window.hand_over(false, || -> Result<(), ()> { unreachable!("a call that has not noticed") });
        assert_eq!(sent, Err(refused));
    }

    #[test]
    fn refused_row_fails_its_own_call_alone_with_its_name() {
        let window = Window::default();
        let (_first, mut first_answer) = window.open(&rows(1)).expect("open");
        let (_second, mut second_answer) = window.open(&rows(1)).expect("open");
        let refused = PublishError::Refused { partition: PartitionId(0), sequence: 1, error: "too large".to_owned() };
        window.refuse(refused.clone());
        assert_eq!(first_answer.try_recv(), Ok(Err(refused)));
        assert!(matches!(second_answer.try_recv(), Ok(Err(PublishError::Stopped(_)))));
    }

    #[tokio::test]
    async fn window_settles_once_every_row_is_acknowledged() {
        let window = Window::default();
        let (call, _answer) = window.open(&rows(2)).expect("open");
        (0..2).for_each(|_| assert_eq!(window.hand_over(false, || Ok::<_, ()>(())), Ok(Ok(()))));
        window.acknowledged(&call);
        let waiting = window.settled();
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(window.hand_over(false, || Err("full")), Ok(Err("full")), "and is not out");
        window.acknowledged(&call);
        assert_eq!(waiting.await, Ok(()));
    }
}
