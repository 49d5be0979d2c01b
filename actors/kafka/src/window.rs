//! Which calls of the publisher are acknowledged, in call order.
//!
//! Invariants: a call succeeds only when every row of it *and of every earlier call of the same producer* is acknowledged, so that nothing is
//! taken for published behind a row that failed (I3); after the first failure nothing of this producer succeeds any more.
//! Rows count down a number shared by their call; only the last one of a call, or a failed one, takes the lock.
//! Deliberately absent: the producer.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use holdfast_core::port::log::PublishError;
use tokio::sync::{Notify, oneshot};

/// How a call ended.
pub(crate) type Answer = Result<(), PublishError>;

/// One call: its rows carry it as their opaque.
#[derive(Debug)]
pub(crate) struct Call {
    /// Rows not acknowledged yet, and one for the enqueuing itself.
    remaining: AtomicUsize,
}

/// The calls of one producer that are not answered.
#[derive(Debug, Default)]
pub(crate) struct Window {
    state: Mutex<State>,
    /// Woken when the window empties or breaks.
    idle: Notify,
}

/// A call just opened, and where its end will be told.
pub(crate) type Opened = (Arc<Call>, oneshot::Receiver<Answer>);

type Open = (Arc<Call>, oneshot::Sender<Answer>);

#[derive(Debug, Default)]
struct State {
    calls: VecDeque<Open>,
    broken: Option<PublishError>,
}

impl Window {
    /// Opens a call of `rows` rows, after all that are open.
    pub(crate) fn open(&self, rows: usize) -> Result<Opened, PublishError> {
        let mut state = self.lock();
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        let call = Arc::new(Call { remaining: AtomicUsize::new(rows + 1) });
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
            if let Some((_, answer)) = state.calls.pop_front() {
                // Nobody listening is fine: the caller was cancelled after it had enqueued.
                let _ = answer.send(Ok(()));
            }
        }
        if state.calls.is_empty() {
            self.idle.notify_waiters();
        }
    }

    /// Fails all open calls and those to come.
    pub(crate) fn fail(&self, reason: impl Into<String>) {
        let mut state = self.lock();
        let error = state.broken.get_or_insert_with(|| PublishError(reason.into())).clone();
        for (_, answer) in state.calls.drain(..) {
            let _ = answer.send(Err(error.clone()));
        }
        self.idle.notify_waiters();
    }

    /// Why nothing succeeds any more, if so.
    pub(crate) fn broken(&self) -> Option<PublishError> {
        self.lock().broken.clone()
    }

    /// Waits until no call is open.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.lock().calls.is_empty() {
                return;
            }
            idle.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_succeeds_only_after_all_earlier_ones() {
        let window = Window::default();
        let (first, mut first_answer) = window.open(1).expect("open");
        let (second, mut second_answer) = window.open(1).expect("open");
        window.count_down(&second);
        window.count_down(&second);
        assert!(second_answer.try_recv().is_err(), "answered before the first call");
        window.count_down(&first);
        window.count_down(&first);
        assert_eq!(first_answer.try_recv(), Ok(Ok(())));
        assert_eq!(second_answer.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn after_a_failure_nothing_succeeds() {
        let window = Window::default();
        let (_first, mut first_answer) = window.open(1).expect("open");
        let (second, mut second_answer) = window.open(0).expect("open");
        window.fail("row refused");
        window.count_down(&second);
        assert_eq!(first_answer.try_recv(), Ok(Err(PublishError("row refused".to_owned()))));
        assert!(matches!(second_answer.try_recv(), Ok(Err(_))));
        window.fail("later");
        assert_eq!(window.open(1).map(|_| ()), Err(PublishError("row refused".to_owned())));
    }
}
