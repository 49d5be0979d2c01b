//! Does what a plan says to a world.
//!
//! Invariant: when a step is over, what it did is undone: the node runs, is awake, and its ways are open.
//! Each step is in the history when it begins and when it ends. Deliberately absent: choosing, which is the
//! plan's.

use std::{sync::Arc, time::Duration};

use holdfast_load_tests::faults::{
    plan::{Fault, Step},
    proxy::{Mode, Proxy, Trip},
};
use libtest_mimic::Failed;
use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::world::World;

/// What every commit of orders that emits an event holds: a row of its read model. (Its records are packed.)
const COMMIT: &[u8] = b"{\"_key\":";
/// How long a commit is waited for.
const TRIP: Duration = Duration::from_secs(5);
/// How long a node that woke up cut off stays cut off: callers have time to ask it.
const BLIND: Duration = Duration::from_secs(3);
/// Between a guest's coming and going.
const STAY: Duration = Duration::from_secs(3);
const SLOW: Duration = Duration::from_millis(150);

/// A hand that strikes.
pub struct Nemesis {
    world: Arc<World>,
    churn: Option<JoinHandle<Result<(), String>>>,
}

impl Nemesis {
    pub const fn of(world: Arc<World>) -> Self {
        Self { world, churn: None }
    }

    /// Takes one step and undoes it.
    pub async fn take(&mut self, step: Step) -> Result<(), Failed> {
        sleep(Duration::from_millis(step.after_ms)).await;
        self.world.all_alive().await?;
        self.world.diary.mark("fault", &step);
        eprintln!(
            "{:7.2} s  {:>3}. {:?} node {} for {} ms",
            self.world.diary.now().as_secs_f64(),
            step.number,
            step.fault,
            step.node + 1,
            step.lasts_ms
        );
        self.strike(step).await?;
        self.world.diary.mark("over", &json!({ "number": step.number }));
        Ok(())
    }

    /// Waits for what still goes on, and heals everything.
    pub async fn rest(mut self) -> Result<(), Failed> {
        self.end_churn().await?;
        self.world.heal().await
    }

    async fn end_churn(&mut self) -> Result<(), Failed> {
        match self.churn.take() {
            Some(churn) => Ok(churn.await??),
            None => Ok(()),
        }
    }

    async fn strike(&mut self, step: Step) -> Result<(), Failed> {
        let lasts = Duration::from_millis(step.lasts_ms);
        let world = self.world.clone();
        let slot = world.slot(step.node);
        match step.fault {
            Fault::Kill => world.launch(step.node).await,
            Fault::Restart => {
                world.leave(step.node).await?;
                world.launch(step.node).await
            }
            Fault::Pause => self.pause(step.node, lasts).await,
            Fault::PauseBeforeCommit => self.pause_at_commit(step.node, lasts, false).await,
            Fault::PauseInCommit => self.pause_at_commit(step.node, lasts, true).await,
            Fault::WakeWithoutDatabase => {
                self.signal(step.node, true).await?;
                sleep(lasts).await;
                self.wake_blind(step.node, BLIND).await
            }
            Fault::CutInCommit => {
                trip(&slot.database, true).await;
                during(&slot.database, Mode::Cut, Duration::from_millis(300)).await
            }
            Fault::HoldDatabase => during(&slot.database, Mode::Hold, lasts).await,
            Fault::CutDatabase => during(&slot.database, Mode::Cut, lasts).await,
            Fault::SlowDatabase => during(&slot.database, Mode::Delay(SLOW), lasts).await,
            Fault::HoldBroker => during(&slot.broker, Mode::Hold, lasts).await,
            Fault::CutBroker => during(&slot.broker, Mode::Cut, lasts).await,
            Fault::HoldCalls => during(&slot.calls, Mode::Hold, lasts).await,
            Fault::CutCalls => during(&slot.calls, Mode::Cut, lasts).await,
            Fault::Churn => {
                self.end_churn().await?;
                let churning = churn(world.clone(), Instant::now() + lasts);
                self.churn = Some(tokio::spawn(async move { churning.await.map_err(|failed| format!("{failed:?}")) }));
                Ok(())
            }
        }
    }

    async fn signal(&self, which: usize, is_pause: bool) -> Result<(), Failed> {
        let place = self.world.slot(which).node.lock().await;
        let node = place.as_ref().ok_or("no node to pause")?;
        Ok(if is_pause { node.pause() } else { node.wake() }?)
    }

    async fn pause(&self, which: usize, lasts: Duration) -> Result<(), Failed> {
        self.signal(which, true).await?;
        sleep(lasts).await;
        self.signal(which, false).await
    }

    /// Stops the node while a commit of it is under way.
    async fn pause_at_commit(&self, which: usize, lasts: Duration, is_let_through: bool) -> Result<(), Failed> {
        let database = &self.world.slot(which).database;
        let was_tripped = trip(database, is_let_through).await;
        self.world.diary.mark("trip", &json!({ "node": which + 1, "tripped": was_tripped }));
        self.signal(which, true).await?;
        database.set(Mode::Pass);
        sleep(lasts).await;
        self.signal(which, false).await
    }

    /// Wakes a paused node that can't reach its database for a while yet: by itself it can't know how long it
    /// slept but by its clock.
    pub async fn wake_blind(&self, which: usize, blind: Duration) -> Result<(), Failed> {
        let database = &self.world.slot(which).database;
        database.set(Mode::Hold);
        self.signal(which, false).await?;
        sleep(blind).await;
        database.set(Mode::Pass);
        Ok(())
    }

    /// Pauses a node until others have taken all it owned.
    pub async fn pause_until_replaced(&self, which: usize) -> Result<(), Failed> {
        self.signal(which, true).await?;
        let address = self.world.slot(which).address().to_string();
        self.world.until("a paused node is replaced", |owners| owners.iter().all(|(of, _)| *of != address)).await
    }
}

/// Whether a commit came by; it is stopped there.
async fn trip(database: &Proxy, is_let_through: bool) -> bool {
    database.set(Mode::Trip(Trip { pattern: COMMIT, is_let_through }));
    database.tripped(TRIP).await
}

async fn during(proxy: &Proxy, mode: Mode, lasts: Duration) -> Result<(), Failed> {
    proxy.set(mode);
    sleep(lasts).await;
    proxy.set(Mode::Pass);
    Ok(())
}

/// A guest comes and goes.
async fn churn(world: Arc<World>, until: Instant) -> Result<(), Failed> {
    let guest = world.nodes();
    while Instant::now() < until {
        world.launch(guest).await?;
        sleep_until((Instant::now() + STAY).min(until)).await;
        world.leave(guest).await?;
        sleep_until((Instant::now() + STAY).min(until)).await;
    }
    Ok(())
}
