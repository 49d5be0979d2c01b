//! Everything at once: load through Kafka, callers over gRPC, and faults from a seed; then heal, settle, and
//! account for all of it.
//!
//! Upholds I1–I4, I7, I8 and I10 by the checkers of `load-tests`, I5 by [`linear`], and by [`answers`] that
//! callers' answers agree with the published events. Prints its seed; the same seed gives the same steps and
//! the same load (when a step meets what the nodes do is the machine's). Deliberately absent: knowledge of
//! the runtime.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_load_tests::{
    checkers,
    faults::{
        answers,
        calls::{self, Call, Callers},
        load::Crowd,
        plan::{Plan, Scale, Step},
    },
    producer::{self, Ledger},
    work::now_ms,
};
use libtest_mimic::Failed;
use serde_json::json;
use tokio::sync::watch;

use crate::{
    linear,
    nemesis::Nemesis,
    sabotage::Sabotage,
    world::{PRODUCERS_MAX_AGE, Settings, World},
};

/// Rounds in which a sabotaged build must be found out.
const ROUNDS: u32 = 4;

/// What to do.
#[derive(Clone, Debug)]
pub struct Run {
    /// Steps and load follow from it.
    pub seed: u64,
    /// Commands sent through Kafka.
    pub commands: u32,
    /// Commands a second.
    pub rate: u32,
    /// Operations by gRPC, at least.
    pub operations: usize,
    /// Steps, at least; more are taken until everything is sent and asked.
    pub steps: usize,
    /// How long pauses last.
    pub pause: Duration,
    /// How long other faults last, at most.
    pub partition: Duration,
    /// The group's session timeout.
    pub session: Duration,
    /// How long an owner may answer without asking the database.
    pub lease: Duration,
    /// How long it may take to settle once everything is healed.
    pub settle: Duration,
    /// Where history and logs go.
    pub dir: PathBuf,
}

impl Run {
    /// Every fault once, in about a minute and a half.
    pub fn short(seed: u64, dir: PathBuf) -> Self {
        Self {
            seed,
            commands: 12_000,
            rate: 200,
            operations: 2_000,
            steps: Plan::round_len(),
            // Longer than session and lease: the node is replaced meanwhile.
            pause: Duration::from_secs(9),
            partition: Duration::from_secs(5),
            session: Duration::from_secs(6),
            lease: Duration::from_secs(2),
            settle: Duration::from_secs(150),
            dir,
        }
    }

    fn settings(&self, how: Sabotage) -> Settings {
        let producers_max_age = PRODUCERS_MAX_AGE;
        Settings { nodes: 3, how, session: self.session, lease: self.lease, dir: self.dir.clone(), producers_max_age }
    }

    fn callers(&self) -> calls::Options {
        calls::Options {
            orders: 8,
            callers: 3,
            operations: 4,
            bursts: 12,
            // Longer than any fault and the take-over after it.
            patience: self.pause + Duration::from_mins(1),
            impatient: 20,
            think: Duration::from_millis(20),
            seed: self.seed,
        }
    }

    fn crowd(&self) -> Crowd {
        Crowd { commands: self.commands, orders: 500, hot: 5, repeated: 100, seed: self.seed, time_ms: now_ms() }
    }
}

/// Callers that work until [`Working::end`].
pub struct Working {
    callers: Callers,
    stop: watch::Sender<bool>,
    history: tokio::task::JoinHandle<Vec<Call>>,
}

impl Working {
    pub fn begin(world: &World, options: calls::Options) -> Result<Self, Failed> {
        let callers = Callers::new(&world.addresses(), options, Arc::clone(&world.diary))?;
        let (stop, stopped) = watch::channel(false);
        let history = tokio::spawn(callers.clone().work(stopped));
        Ok(Self { callers, stop, history })
    }

    /// How many operations ended so far.
    pub fn count(&self) -> usize {
        self.callers.count()
    }

    /// Lets them end what they began; everything they saw.
    pub async fn end(self) -> Result<Vec<Call>, Failed> {
        self.stop.send_replace(true);
        Ok(self.history.await?)
    }
}

/// The product as it is, under everything.
pub async fn survives(run: Run) -> Result<(), Failed> {
    eprintln!("seed {}; history and logs in {}", run.seed, run.dir.display());
    let world = World::open(run.settings(Sabotage::None)).await?;
    world.diary.mark("run", &json!({ "seed": run.seed, "commands": run.commands, "nodes": world.nodes() }));
    let sending = send(&world, &run);
    let working = Working::begin(&world, run.callers())?;
    let mut nemesis = Nemesis::of(world.clone());
    let mut plan = Plan::new(run.seed, run.scale());
    let mut taken: Vec<Step> = Vec::new();
    while taken.len() < run.steps || !sending.is_finished() || working.count() < run.operations {
        let step = plan.next().ok_or("the plan has an end")?;
        nemesis.take(step).await?;
        taken.push(step);
    }
    nemesis.rest().await?;
    let healed = Instant::now();
    let ledger = sending.await??;
    let history = working.end().await?;
    let rest = checkers::settled(&world.target, run.settle, |_| {}).await;
    let settled = healed.elapsed();
    world.diary.mark("settled", &json!({ "after_ms": settled.as_millis() }));
    eprintln!("{} steps, then settled {:.1} s after the last", taken.len(), settled.as_secs_f64());
    account(&world, &ledger, &history).await?;
    rest?;
    Ok(())
}

impl Run {
    fn scale(&self) -> Scale {
        Scale { nodes: 3, pause: self.pause, partition: self.partition, calm: Duration::from_secs(2) }
    }
}

fn send(world: &World, run: &Run) -> tokio::task::JoinHandle<Result<Ledger, producer::Error>> {
    let (brokers, records) = (world.stack.brokers().to_owned(), run.crowd().records());
    let options = producer::Options { rate: run.rate, ..producer::Options::to("orders.commands") };
    tokio::spawn(async move { producer::produce_at_pace(&brokers, records, options, |_| {}).await })
}

/// By Kafka, by Postgres, and by what callers saw; all of it is said before any of it fails.
async fn account(world: &World, ledger: &Ledger, history: &[Call]) -> Result<(), Failed> {
    let report = checkers::account(&world.target, ledger).await?;
    eprintln!("kafka: {} records, {} repeats; {report}", ledger.records, ledger.repeats());
    let events = checkers::events(world.stack.brokers(), "orders.events", world.target.patience).await?;
    let contradicted = answers::check(history, &events);
    let verdict = linear::check(history);
    eprintln!("grpc: {verdict}");
    world.diary.mark(
        "verdict",
        &json!({ "clean": report.is_clean(), "contradicted": contradicted, "refused": verdict.refused }),
    );
    if !report.is_clean() {
        return Err(report.to_string().into());
    }
    if let Some(first) = contradicted.first() {
        return Err(format!("{} answers are contradicted by events; {first}", contradicted.len()).into());
    }
    if history.is_empty() {
        return Err("nobody was ever answered: nothing was checked".into());
    }
    if verdict.refused.is_empty() { Ok(()) } else { Err(verdict.to_string().into()) }
}

/// A deaf node sleeps while others take its partitions, and can't reach its database when it wakes up: its
/// lease alone keeps it from answering.
pub async fn a_lease_is_enough(run: Run) -> Result<(), Failed> {
    let world = World::open(run.settings(Sabotage::Deaf)).await?;
    let verdict = sleep_and_wake_blind(&world, &run).await?;
    eprintln!("{}: {verdict}", Sabotage::Deaf);
    if verdict.refused.is_empty() { Ok(()) } else { Err(verdict.to_string().into()) }
}

/// The same without its lease check: it answers as if it owned them still, and that must be found out.
pub async fn no_lease_check_is_found_out(run: Run) -> Result<(), Failed> {
    let world = World::open(run.settings(Sabotage::DeafWithoutLeaseCheck)).await?;
    for round in 1..=ROUNDS {
        let verdict = sleep_and_wake_blind(&world, &run).await?;
        eprintln!("{}, round {round}: {verdict}", Sabotage::DeafWithoutLeaseCheck);
        if !verdict.refused.is_empty() {
            return Ok(());
        }
    }
    Err(format!("{} was not found out in {ROUNDS} rounds", Sabotage::DeafWithoutLeaseCheck).into())
}

async fn sleep_and_wake_blind(world: &Arc<World>, run: &Run) -> Result<linear::Verdict, Failed> {
    // Orders that the sleeper has in memory must still be worked on when it wakes up.
    let callers = calls::Options { orders: 24, bursts: u32::MAX, impatient: 0, ..run.callers() };
    world.until_shared().await?;
    let working = Working::begin(world, callers)?;
    let nemesis = Nemesis::of(world.clone());
    until_more(&working, 500).await?;
    let sleeper = world.richest().await?;
    nemesis.pause_until_replaced(sleeper).await?;
    until_more(&working, 500).await?;
    world.diary.mark("wakes", &json!({ "node": sleeper + 1 }));
    nemesis.wake_blind(sleeper, Duration::from_secs(3)).await?;
    world.diary.mark("sees", &json!({ "node": sleeper + 1 }));
    let history = working.end().await?;
    nemesis.rest().await?;
    Ok(linear::check(&history))
}

/// Waits until `more` further operations have ended.
async fn until_more(working: &Working, more: usize) -> Result<(), Failed> {
    let enough = working.count() + more;
    let give_up = Instant::now() + Duration::from_mins(2);
    while working.count() < enough {
        if Instant::now() > give_up {
            return Err(format!("callers got {} of {enough} answers in two minutes", working.count()).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
