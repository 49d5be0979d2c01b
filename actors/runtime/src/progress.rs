//! Which loops of a node make progress: each loop says what it does, and anyone may look without asking it.
//!
//! A loop that has work and makes no progress is *stalled*; what it waits for names the cause. One that waits
//! for something outside the process (the database, the broker, another context) is stalled and live:
//! restarting the process mends nothing, and a common cause would restart every replica. One that works at a
//! single step for [`STUCK_AFTER`], or has ended, is not live. Times are the node's boot clock, so a
//! suspended machine counts. Deliberately absent: reacting to what is found.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use holdfast_core::port::clock::Clock;

/// A loop that has not moved for this long is stalled, and stuck if nothing outside the process is the cause.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

/// What a loop does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It has nothing to do.
    Idle,
    /// A step of its own.
    Step(&'static str),
    /// It waits for what is not the process's, or for another loop, which answers for itself.
    Waits(&'static str),
}

/// A loop that has work and makes no progress, or has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// Its class: `lane`, `relay`, `reader`, `taker`, `watcher`, `ownership`.
    pub class: &'static str,
    /// Which of the class.
    pub name: String,
    /// For how long.
    pub since: Duration,
    /// The step, or what it waits for.
    pub doing: String,
    /// Whether something outside the loop is the cause.
    pub waits: bool,
}

impl Stalled {
    /// Whether only a new process helps.
    pub const fn is_stuck(&self) -> bool {
        !self.waits
    }
}

impl std::fmt::Display for Stalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { class, name, since, doing, waits } = self;
        let how = if *waits { "waits for " } else { "" };
        write!(f, "{class} {name}: {how}{doing}, no progress for {} s", since.as_secs())
    }
}

struct State {
    doing: Doing,
    /// Since when it does that.
    doing_since: Duration,
    /// When it last made progress, or last had nothing to do.
    moved: Duration,
}

struct Entry {
    class: &'static str,
    name: String,
    state: Mutex<State>,
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All loops of one node. Clones share it.
#[derive(Clone)]
pub(crate) struct Board {
    clock: Arc<dyn Clock>,
    /// Once it is set, loops end as they should.
    is_closed: Arc<AtomicBool>,
    loops: Arc<Mutex<Vec<Weak<Entry>>>>,
    ended: Arc<Mutex<Vec<Ended>>>,
}

/// A loop that has ended, by class and name, and how.
type Ended = (&'static str, String, String);

/// One loop's own line on the board; gone when it is dropped. Clones are the same loop.
#[derive(Clone)]
pub(crate) struct Pulse {
    clock: Arc<dyn Clock>,
    entry: Arc<Entry>,
}

impl Board {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, is_closed: Arc::default(), loops: Arc::default(), ended: Arc::default() }
    }

    /// The node is about to stop: loops end from here on, and none of it is news.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// A new loop's line.
    pub fn add(&self, class: &'static str, name: impl Into<String>) -> Pulse {
        let now = self.clock.boot();
        let state = Mutex::new(State { doing: Doing::Idle, doing_since: now, moved: now });
        let entry = Arc::new(Entry { class, name: name.into(), state });
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.retain(|entry| entry.strong_count() > 0);
        loops.push(Arc::downgrade(&entry));
        Pulse { clock: self.clock.clone(), entry }
    }

    /// Notes that a loop has ended though nobody asked it to. That stays: only a new process has all its
    /// loops.
    pub fn ended(&self, class: &'static str, name: impl Into<String>, why: &str) {
        let name = name.into();
        if self.is_closed.load(Ordering::Acquire) {
            return;
        }
        tracing::error!(class, name, why, "a loop ended; this process is not live any more");
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push((class, name, why.to_owned()));
    }

    /// Runs `task` as a loop that must not end, and notes it if it does.
    pub fn watch<T: Send>(
        &self,
        class: &'static str,
        name: impl Into<String>,
        task: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (board, name) = (self.clone(), name.into());
        async move {
            match crate::guard::guarded_future(class, task).await {
                Ok(_) => board.ended(class, name, "it returned"),
                Err(panicked) => board.ended(class, name, &panicked.to_string()),
            }
        }
    }

    /// Every loop that ended, or has made no progress for [`STUCK_AFTER`] though it has work; the longest
    /// first.
    pub fn stalled(&self) -> Vec<Stalled> {
        let now = self.clock.boot();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone().into_iter();
        let ended = ended.map(|(class, name, why)| {
            let doing = format!("ended: {why}");
            Stalled { class, name, since: Duration::MAX, doing, waits: false }
        });
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stalled = loops.iter().filter_map(Weak::upgrade).filter_map(|entry| {
            let state = entry.state();
            let (since, doing, waits) = match state.doing {
                Doing::Idle => return None,
                Doing::Waits(what) => (now.saturating_sub(state.moved), what, true),
                // Progress is what counts; but a loop that goes from step to step is not stuck at one.
                Doing::Step(what) => {
                    let at_step = now.saturating_sub(state.doing_since);
                    (now.saturating_sub(state.moved), what, at_step < STUCK_AFTER)
                }
            };
            let (class, name, doing) = (entry.class, entry.name.clone(), doing.to_owned());
            (since >= STUCK_AFTER).then_some(Stalled { class, name, since, doing, waits })
        });
        let mut all: Vec<Stalled> = ended.chain(stalled).collect();
        all.sort_by_key(|stalled| std::cmp::Reverse(stalled.since));
        all
    }

    /// For each class of loops the longest time without progress, and zero for a class of which none is
    /// stalled.
    pub fn by_class(&self) -> BTreeMap<&'static str, Duration> {
        let mut longest: BTreeMap<&'static str, Duration> =
            ["lane", "relay", "reader", "taker", "watcher", "ownership"].map(|class| (class, Duration::ZERO)).into();
        for stalled in self.stalled() {
            let known = longest.entry(stalled.class).or_default();
            *known = (*known).max(stalled.since);
        }
        longest
    }
}

impl Pulse {
    /// Says what the loop does from here on. Saying it again changes nothing.
    pub fn set(&self, doing: Doing) {
        let mut state = self.entry.state();
        if state.doing != doing {
            let now = self.clock.boot();
            if state.doing == Doing::Idle || doing == Doing::Idle {
                state.moved = now;
            }
            (state.doing, state.doing_since) = (doing, now);
        }
    }

    /// Begins a step of the loop's own.
    pub fn step(&self, step: &'static str) {
        self.set(Doing::Step(step));
    }

    /// Begins to wait for something outside the loop.
    pub fn waits(&self, what: &'static str) {
        self.set(Doing::Waits(what));
    }

    /// Has nothing to do.
    pub fn idle(&self) {
        self.set(Doing::Idle);
    }

    /// Has made progress.
    pub fn moved(&self) {
        let now = self.clock.boot();
        let mut state = self.entry.state();
        (state.moved, state.doing_since) = (now, now);
    }

    /// Has made progress, and goes over to `doing`: one look at the clock for both.
    pub fn moved_on_to(&self, doing: Doing) {
        let now = self.clock.boot();
        *self.entry.state() = State { doing, doing_since: now, moved: now };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use holdfast_core::Timestamp;

    use super::*;

    #[derive(Default)]
    struct Seconds(AtomicU64);

    impl Clock for Seconds {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_ms(0)
        }

        fn boot(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::SeqCst))
        }
    }

    fn board() -> (Arc<Seconds>, Board) {
        let clock = Arc::new(Seconds::default());
        (clock.clone(), Board::new(clock))
    }

    #[test]
    fn idle_loop_is_never_stalled() {
        let (clock, board) = board();
        let pulse = board.add("lane", "0");
        clock.0.store(1_000, Ordering::SeqCst);
        assert_eq!(board.stalled(), []);
        pulse.step("deciding");
        clock.0.store(1_009, Ordering::SeqCst);
        assert_eq!(board.stalled(), [], "idle time is no stall");
    }

    #[test]
    fn outside_cause_stalls_and_own_step_is_stuck() {
        let (clock, board) = board();
        let (lane, relay) = (board.add("lane", "0"), board.add("relay", "0"));
        lane.step("deciding");
        relay.waits("the broker");
        clock.0.store(10, Ordering::SeqCst);
        let stalled = board.stalled();
        let shown: Vec<_> = stalled.iter().map(|one| (one.class, one.doing.as_str(), one.is_stuck())).collect();
        assert_eq!(shown, [("lane", "deciding", true), ("relay", "the broker", false)]);
        lane.moved();
        assert_eq!(board.by_class()["lane"], Duration::ZERO);
        assert_eq!(board.by_class()["relay"], Duration::from_secs(10));
        drop(relay);
        assert_eq!(board.stalled(), [], "a loop that is gone is not stalled");
    }

    #[test]
    fn loop_that_goes_round_without_progress_is_stalled_not_stuck() {
        let (clock, board) = board();
        let lane = board.add("lane", "0");
        for second in 0..20 {
            clock.0.store(second, Ordering::SeqCst);
            lane.waits("the database");
            lane.step("deciding");
        }
        let stalled = board.stalled();
        assert_eq!((stalled.len(), stalled[0].is_stuck()), (1, false));
        assert_eq!(stalled[0].since, Duration::from_secs(19));
    }

    #[tokio::test]
    async fn loop_that_ended_is_listed_with_its_name() {
        let (_, board) = board();
        board.watch("reader", "orders.commands-3", async { panic!("a bug") }).await;
        let stalled = board.stalled();
        assert_eq!(
            (stalled[0].class, stalled[0].name.as_str(), stalled[0].is_stuck()),
            ("reader", "orders.commands-3", true)
        );
    }
}
