//! Nodes of two builds: rolled up, back and up again under load, and then brought to the new format.
//!
//! Upholds the rule "Format" of the design: until `holdfast migrate --finish` nodes of both builds run
//! and the way back is free; afterwards the earlier build takes no partition and says why. I1–I4, I7, I8
//! and I10 hold throughout, by the checkers of `load-tests`, I5 by [`linear`]. I9: with `--finish-early`
//! the way back is closed, and the trial must fail. Deliberately absent: two new builds in a row.

mod build;
mod fleet;
mod left;
mod load;
mod taken_up;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_load_tests::{
    checkers::{self, Written},
    faults::{
        answers,
        calls::{self, Call, Callers},
        diary::Diary,
    },
    producer::{self, Ledger, Options},
};
use libtest_mimic::Failed;
use tokio::{sync::watch, task::JoinHandle};

use self::{
    fleet::{Build, End, Fleet, GUEST, NODES},
    load::{Progress, Windows},
};
pub use self::{
    left::write as leave,
    taken_up::{has_no_second_effect, lost_claims_are_found_out},
};
use crate::{linear, world::PATIENCE};

/// What to do.
#[derive(Clone, Debug)]
pub struct Roll {
    /// The commit of the old build.
    pub old: String,
    /// Commands a second.
    pub rate: u32,
    /// New orders, at least; more are sent until the trial is over.
    pub orders: u32,
    /// The load follows from it.
    pub seed: u64,
    /// Whether the new format begins before the way back, which must fail.
    pub finish_early: bool,
    /// Where history and logs go.
    pub dir: PathBuf,
}

/// Load and calls that go on until [`Traffic::end`].
struct Traffic {
    progress: Progress,
    sending: JoinHandle<Result<Ledger, producer::Error>>,
    stop: watch::Sender<bool>,
    calling: JoinHandle<Vec<Call>>,
}

impl Traffic {
    fn begin(fleet: &Fleet, roll: &Roll) -> Result<Self, Failed> {
        let progress = Progress::default();
        let windows = Windows::new(roll.seed, progress.clone());
        let (brokers, options) =
            (fleet.stack.brokers().to_owned(), Options { rate: roll.rate, ..Options::to("orders.commands") });
        let sending = tokio::spawn(async move { producer::produce_windows(&brokers, windows, options, |_| {}).await });
        let diary = Arc::new(Diary::begin(&roll.dir.join("history.jsonl"))?);
        let options = calls::Options {
            orders: 4,
            callers: 3,
            operations: 4,
            bursts: 12,
            patience: Duration::from_mins(1),
            impatient: 20,
            think: Duration::from_millis(100),
            seed: roll.seed,
        };
        let (stop, stopped) = watch::channel(false);
        let calling = tokio::spawn(Callers::new(&fleet.addresses(), options, diary)?.work(stopped));
        Ok(Self { progress, sending, stop, calling })
    }

    /// Lets both end what they began.
    async fn end(self, orders: u32) -> Result<(Ledger, Vec<Call>), Failed> {
        while self.progress.orders() < orders && !self.sending.is_finished() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.progress.end();
        self.stop.send_replace(true);
        Ok((self.sending.await??, self.calling.await?))
    }

    /// Ends both, whatever they began.
    async fn cut_short(self) -> Result<(), Failed> {
        self.calling.abort();
        self.progress.cut();
        self.sending.await??;
        Ok(())
    }
}

/// Up, back and up again, finished, and no way back: nothing is lost, doubled or reordered.
pub async fn keeps_promises(roll: Roll) -> Result<(), Failed> {
    eprintln!("seed {}; history and logs in {}", roll.seed, roll.dir.display());
    let old = build::old(&roll.old).await?;
    let mut fleet = Fleet::open(old, build::new(), roll.dir.clone()).await?;
    fleet.begin(Build::Old).await?;
    fleet.say("three nodes of the old build serve");
    let traffic = Traffic::begin(&fleet, &roll)?;
    if let Err(failed) = story(&mut fleet, roll.finish_early).await {
        // While there is still a broker to send to: it would be waited for.
        traffic.cut_short().await?;
        return Err(failed);
    }
    let (ledger, history) = traffic.end(roll.orders).await?;
    let rest = checkers::settled(&fleet.target, PATIENCE, |_| {}).await;
    account(&fleet, &ledger, &history).await?;
    rest?;
    Ok(())
}

/// Everything that is done to the nodes, under load.
async fn story(fleet: &mut Fleet, finish_early: bool) -> Result<(), Failed> {
    fleet.moving(500).await?;
    fleet.must(Build::New, &["migrate", Fleet::contexts()]).await?;
    fleet.moving(300).await?;
    fleet.replace(0, Build::New, End::Term).await?;
    refused_to_finish(fleet).await?;
    fleet.replace(1, Build::New, End::Kill).await?;
    fleet.replace(2, Build::New, End::Term).await?;
    if finish_early {
        finish(fleet).await?;
    }
    for (which, end) in [(2, End::Kill), (0, End::Term), (1, End::Term)] {
        fleet.replace(which, Build::Old, end).await?;
    }
    for (which, end) in [(1, End::Term), (2, End::Term), (0, End::Kill)] {
        fleet.replace(which, Build::New, end).await?;
    }
    for written in fleet.written().await? {
        fleet.say(written);
        if !written.is_old() || written.claims == 0 {
            return Err(format!("the new build wrote what the old one can't read: {written:?}").into());
        }
    }
    finish(fleet).await?;
    fleet.moving(500).await?;
    closed_to_old(fleet).await?;
    fleet.moving(500).await
}

/// While nodes of the old build run.
async fn refused_to_finish(fleet: &Fleet) -> Result<(), Failed> {
    match fleet.verb(Build::New, &["migrate", Fleet::contexts(), "--finish"]).await? {
        Err(said) if said.contains("nodes that can't write the new format") => {
            fleet.say(format_args!("migrate --finish is refused: {said}"));
            Ok(())
        }
        other => Err(format!("migrate --finish while nodes of the old build run: {other:?}").into()),
    }
}

/// Tried again while the beats of nodes that have left are young.
async fn finish(fleet: &Fleet) -> Result<(), Failed> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match fleet.verb(Build::New, &["migrate", Fleet::contexts(), "--finish"]).await? {
            Ok(said) => {
                fleet.say(format_args!("new build: migrate --finish: {}", said.replace('\n', "; ")));
                return Ok(());
            }
            Err(said) if Instant::now() > give_up => return Err(said.into()),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// A node writes in the new format once it has read the rows of partitions again; each time `work` is done
/// before they are looked at.
async fn until_new_format(fleet: &Fleet, mut work: impl AsyncFnMut() -> Result<(), Failed>) -> Result<(), Failed> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        work().await?;
        let all = fleet.written().await?;
        if all.iter().all(Written::is_new) {
            fleet.say(format_args!("the new format is written: {}", all[0]));
            return Ok(());
        }
        if Instant::now() > give_up {
            return Err(format!("the new format is not written within {PATIENCE:?}: {all:?}").into());
        }
    }
}

/// A node of the old build, started by mistake, owns nothing at any time and says why.
async fn closed_to_old(fleet: &mut Fleet) -> Result<(), Failed> {
    until_new_format(fleet, async || fleet.moving(100).await).await?;
    fleet.launch(GUEST, Build::Old).await?;
    let give_up = Instant::now() + PATIENCE;
    loop {
        let refusals = fleet.refusals(GUEST)?;
        let owned = fleet.owned_by(GUEST).await?;
        if owned > 0 {
            return Err(format!("the old build has taken {owned} partitions of the new format").into());
        }
        let names =
            |schema: &&str| refusals.iter().any(|line| line.contains(&format!("the schema {schema} is written")));
        if Fleet::contexts().split(',').all(|schema| names(&schema)) {
            fleet.say(format_args!("the old build takes nothing: {}", refusals[0]));
            break;
        }
        if Instant::now() > give_up {
            return Err(format!("the old build does not say why it takes nothing: {}", fleet.log(GUEST)?).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fleet.end(GUEST, End::Kill).await?;
    fleet.until_shared().await
}

/// By Kafka, by Postgres, and by what callers saw; all of it is printed before any of it fails.
async fn account(fleet: &Fleet, ledger: &Ledger, history: &[Call]) -> Result<(), Failed> {
    let report = checkers::account(&fleet.target, ledger).await?;
    fleet.say(format_args!("kafka: {} records, {} repeats; {report}", ledger.records, ledger.repeats()));
    let events = checkers::events(fleet.stack.brokers(), "orders.events", fleet.target.patience).await?;
    let contradicted = answers::check(history, &events);
    let verdict = linear::check(history);
    fleet.say(format_args!("grpc: {verdict}"));
    if !report.is_clean() {
        return Err(report.to_string().into());
    }
    if let Some(first) = contradicted.first() {
        return Err(format!("{} answers are contradicted by events; {first}", contradicted.len()).into());
    }
    let least = 100 * NODES;
    if history.len() < least || ledger.repeats() < 1_000 {
        return Err(format!("too tame: {} calls, {} repeats", history.len(), ledger.repeats()).into());
    }
    if verdict.refused.is_empty() { Ok(()) } else { Err(verdict.to_string().into()) }
}
