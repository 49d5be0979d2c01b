//! Leaving in good order.
//!
//! Invariant: from the first SIGTERM or SIGINT on, the process ends within delay + drain + flush, whatever
//! hangs: each step has its deadline, a second signal ends it at once, and a thread of its own ends it even
//! if the runtime is stuck.
//!
//! The steps: **leaving** (unready; load balancers look away) → delay → **stopping** (take no new work,
//! finish what is in flight) → **ending** (the work returned or its time is up: connections are cut) →
//! telemetry flushed → exit code.
//!
//! Deliberately absent: calling `exit`; the binary does, with [`Exit::code`]. The watchdog alone ends the
//! process itself, and only where [`Plan::watchdog`] allows it.

use std::{future::Future, io, pin::pin, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::health::Health;

/// The phases of leaving; clones share them.
#[derive(Debug, Clone)]
pub struct Shutdown {
    health: Health,
    leaving: CancellationToken,
    stopping: CancellationToken,
    ending: CancellationToken,
}

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Between unready and stopping.
    pub delay: Duration,
    /// For finishing what is in flight.
    pub drain: Duration,
    /// For sending the last telemetry.
    pub flush: Duration,
    /// Whether a thread ends the process should all of that hang. Off in tests.
    pub watchdog: bool,
}

impl Plan {
    /// Thirty seconds to drain, five to flush, the given delay.
    pub const fn new(delay: Duration) -> Self {
        Self { delay, drain: Duration::from_secs(30), flush: crate::telemetry::FLUSH_MAX, watchdog: true }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The work returned in its time.
    Clean,
    /// It did not.
    Deadline,
    /// A second signal came first.
    Forced,
}

impl Exit {
    /// What the process exits with, if the work itself was fine: 0, 1 or 130.
    pub const fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Deadline => 1,
            Self::Forced => 130,
        }
    }
}

impl Shutdown {
    /// Running; on leaving, `health` turns unready.
    pub fn new(health: Health) -> Self {
        let [leaving, stopping, ending] = std::array::from_fn(|_| CancellationToken::new());
        Self { health, leaving, stopping, ending }
    }

    /// Asks to leave, as a first signal does.
    pub fn begin(&self) {
        self.health.leave();
        self.leaving.cancel();
    }

    /// Cancelled as soon as the process is to leave.
    pub fn leaving(&self) -> &CancellationToken {
        &self.leaving
    }

    /// Cancelled after the delay: take no new work, finish what is in flight, return.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Cancelled when draining is over, one way or the other: let go of everything.
    pub fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// Runs `work` until it returns by itself or a signal asks to leave; then takes the steps. `flush` may
    /// block. Returns how it ended and, unless it was cut short, what the work returned.
    pub async fn run<W: Future>(
        &self,
        plan: Plan,
        mut signals: Signals,
        work: W,
        flush: impl FnOnce() + Send + 'static,
    ) -> (Exit, Option<W::Output>) {
        let mut work = pin!(work);
        let mut done = None;
        let mut exit = Exit::Clean;
        tokio::select! {
            output = &mut work => done = Some(output),
            () = signals.next() => tracing::info!("asked to stop"),
            () = self.leaving.cancelled() => tracing::info!("stopping"),
        }
        self.begin();
        let _watchdog = plan.watchdog.then(|| Watchdog::start(plan.delay + plan.drain + plan.flush + WATCHDOG_MARGIN));

        if done.is_none() {
            let drained = async {
                tokio::select! {
                    output = &mut work => return Some(output),
                    () = sleep(plan.delay) => {}
                }
                self.stopping.cancel();
                timeout(plan.drain, &mut work).await.ok()
            };
            tokio::select! {
                output = drained => {
                    if output.is_none() {
                        tracing::error!(drain = ?plan.drain, "work in flight did not finish in time");
                        exit = Exit::Deadline;
                    }
                    done = output;
                }
                () = signals.next() => {
                    tracing::warn!("second signal: ending at once");
                    exit = Exit::Forced;
                }
            }
        }
        self.stopping.cancel();
        self.ending.cancel();
        let patience = if exit == Exit::Forced { plan.flush.min(FORCED_FLUSH_MAX) } else { plan.flush };
        if timeout(patience, tokio::task::spawn_blocking(flush)).await.is_err() {
            tracing::warn!("telemetry could not be flushed in time");
        }
        (exit, done)
    }
}

/// After a second signal nobody wants to wait for telemetry.
const FORCED_FLUSH_MAX: Duration = Duration::from_millis(500);
const WATCHDOG_MARGIN: Duration = Duration::from_secs(2);

/// The requests to leave that reach the process.
#[derive(Debug)]
pub struct Signals(mpsc::Receiver<()>);

impl Signals {
    /// SIGTERM and SIGINT. From here on they no longer end the process by themselves: call it first thing,
    /// since a signal that comes before kills the process; those that come between here and [`Shutdown::run`]
    /// are kept.
    pub fn listen() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if sender.send(()).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self(receiver))
    }

    /// From a channel, for tests.
    pub fn from_channel(receiver: mpsc::Receiver<()>) -> Self {
        Self(receiver)
    }

    /// The next one; never, once no more can come.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Ends the process from outside the runtime unless dropped in time.
struct Watchdog(std::sync::mpsc::Sender<()>);

impl Watchdog {
    fn start(patience: Duration) -> Self {
        let (alive, dropped) = std::sync::mpsc::channel::<()>();
        let watch = move || {
            if dropped.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("holdfast: shutdown hung for {patience:?}; ending");
                std::process::exit(i32::from(Exit::Deadline.code()));
            }
        };
        if let Err(error) = std::thread::Builder::new().name("shutdown-watchdog".into()).spawn(watch) {
            tracing::warn!(%error, "no shutdown watchdog");
        }
        Self(alive)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn plan(delay: Duration) -> Plan {
        Plan { watchdog: false, drain: ms(500), ..Plan::new(delay) }
    }

    fn flag() -> (Arc<AtomicBool>, impl FnOnce() + Send + 'static) {
        let flushed = Arc::new(AtomicBool::new(false));
        let set = flushed.clone();
        (flushed, move || set.store(true, Ordering::SeqCst))
    }

    #[tokio::test]
    async fn a_signal_leads_through_every_phase_in_order() {
        let health = Health::new();
        let shutdown = Shutdown::new(health.clone());
        let (signal, signals) = mpsc::channel(4);
        let (flushed, flush) = flag();
        let phases = shutdown.clone();
        let work = async {
            signal.send(()).await.unwrap();
            phases.leaving().cancelled().await;
            assert!(!health.ready().ok && !phases.stopping().is_cancelled());
            let left = tokio::time::Instant::now();
            phases.stopping().cancelled().await;
            assert!(left.elapsed() >= ms(100));
            assert!(!phases.ending().is_cancelled());
            sleep(ms(50)).await;
            7
        };
        let (exit, output) = shutdown.run(plan(ms(100)), Signals::from_channel(signals), work, flush).await;
        assert_eq!((exit.code(), output), (0, Some(7)));
        assert!(shutdown.ending().is_cancelled() && flushed.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn hanging_work_is_cut_at_deadline_and_telemetry_still_flushed() {
        let shutdown = Shutdown::new(Health::new());
        let (flushed, flush) = flag();
        let (_keep, signals) = mpsc::channel(1);
        shutdown.begin();
        let work = std::future::pending::<()>();
        let (exit, output) = shutdown.run(plan(Duration::ZERO), Signals::from_channel(signals), work, flush).await;
        assert_eq!((exit.code(), output), (1, None));
        assert!(flushed.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_second_signal_ends_it_at_once() {
        let shutdown = Shutdown::new(Health::new());
        let (signal, signals) = mpsc::channel(4);
        signal.send(()).await.unwrap();
        signal.send(()).await.unwrap();
        let began = tokio::time::Instant::now();
        let work = std::future::pending::<()>();
        let (exit, _) = shutdown.run(plan(Duration::from_mins(1)), Signals::from_channel(signals), work, || {}).await;
        assert_eq!(exit.code(), 130);
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn work_that_returns_by_itself_ends_the_process() {
        let shutdown = Shutdown::new(Health::new());
        let (_keep, signals) = mpsc::channel(1);
        let work = async { Err::<(), _>("broken") };
        let (exit, output) =
            shutdown.run(plan(Duration::from_mins(1)), Signals::from_channel(signals), work, || {}).await;
        assert_eq!((exit, output), (Exit::Clean, Some(Err("broken"))));
        assert!(shutdown.stopping().is_cancelled());
    }
}
