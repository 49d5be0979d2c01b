//! What the old build left, in this build's hands: no repeat has a second effect, nothing is lost, and
//! orders go on.
//!
//! Upholds the rule "Format" where the old build can't be built: by what it wrote, in the files of
//! `dump`. I9: the same without the claims' tables must be found out. Deliberately absent: nodes of both
//! builds ([`super`]).

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use holdfast_load_tests::{
    checkers::{self, Backlog, Breach, Report, Written},
    faults::dump::Dump,
    producer,
    work::Mix,
};
use libtest_mimic::Failed;

use super::{
    build,
    fleet::{Build, End, Fleet},
    until_new_format,
};
use crate::world::PATIENCE;

const DUMP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/roll/dump");
/// New orders each time.
const ORDERS: u32 = 40;

/// Before and after the new format begins, and by a node that has nothing in memory.
pub async fn has_no_second_effect(seed: u64, dir: PathBuf) -> Result<(), Failed> {
    let (mut fleet, mut dump) = take_up(dir, &[]).await?;
    clean(&account(&fleet, &dump).await?, "as it was left")?;
    let before = fleet.written().await?;
    again(&fleet, &mut dump, seed).await?;
    clean(&account(&fleet, &dump).await?, "in the old format")?;
    let after = fleet.written().await?;
    let has_grown = after.iter().zip(&before).all(|(after, before)| after.rows > before.rows);
    // Inventory hears events alone, whose repeats it knows by their sequence.
    if !after.iter().all(Written::is_old) || !has_grown || after[0].claims <= before[0].claims {
        return Err(format!("the old build could not read what was written: {after:?} after {before:?}").into());
    }
    fleet.must(Build::New, &["migrate", Fleet::contexts(), "--finish"]).await?;
    let mut rounds = 1..;
    let work = async || again(&fleet, &mut dump, seed.wrapping_add(rounds.next().unwrap_or_default())).await;
    until_new_format(&fleet, work).await?;
    clean(&account(&fleet, &dump).await?, "in the new format")?;
    fleet.end(0, End::Kill).await?;
    fleet.launch(0, Build::New).await?;
    fleet.until_shared().await?;
    again(&fleet, &mut dump, !seed).await?;
    clean(&account(&fleet, &dump).await?, "in the new format, by another node")
}

/// A build that knows nothing of the claims' tables applies again what was applied.
pub async fn lost_claims_are_found_out(dir: PathBuf) -> Result<(), Failed> {
    let (fleet, mut dump) = take_up(dir, &["claims"]).await?;
    dump.send_again(fleet.stack.brokers()).await?;
    checkers::settled(&fleet.target, PATIENCE, |_| {}).await?;
    let report = account(&fleet, &dump).await?;
    let found = report.count(Breach::Doubled);
    eprintln!("without claims: {found} commands doubled");
    if found > 0 { Ok(()) } else { Err(format!("lost claims were not found out: {report}").into()) }
}

/// Servers with what the dump has, without the rows of some tables, and one node of this build.
async fn take_up(dir: PathBuf, without: &[&str]) -> Result<(Fleet, Dump), Failed> {
    let from = Path::new(DUMP);
    let mut fleet = Fleet::open(build::new(), build::new(), dir).await?;
    let dump = Dump::read(from)?;
    for schema in fleet.schemas() {
        Dump::load_schema(&schema, from, without).await?;
    }
    fleet.must(Build::New, &["topics", "apply", Fleet::contexts()]).await?;
    dump.load_topics(fleet.stack.brokers()).await?;
    fleet.must(Build::New, &["migrate", Fleet::contexts()]).await?;
    let Backlog { waiting: mail, unpublished, .. } = checkers::backlog(&fleet.target.clone().orders_only()).await;
    let due: i64 = fleet.written().await?.iter().map(|written| written.due).sum();
    fleet.say(format_args!("{mail} messages wait, {unpublished} records are unpublished, {due} timers are due"));
    if mail == 0 || unpublished == 0 || due == 0 {
        return Err("the dump leaves nothing to do".into());
    }
    fleet.launch(0, Build::New).await?;
    fleet.until_shared().await?;
    checkers::settled(&fleet.target, PATIENCE, |_| {}).await?;
    // Those of the dump are due.
    let give_up = Instant::now() + PATIENCE;
    while fleet.written().await?.iter().any(|written| written.due > 0) {
        if Instant::now() > give_up {
            return Err("timers of the dump are not fired".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    checkers::settled(&fleet.target, PATIENCE, |_| {}).await?;
    Ok((fleet, dump))
}

/// Everything that was ever sent is sent again, and new orders.
async fn again(fleet: &Fleet, dump: &mut Dump, seed: u64) -> Result<(), Failed> {
    let brokers = fleet.stack.brokers();
    let count = dump.send_again(brokers).await?;
    let mix = Mix { window: 20, unknown_sku: 50, empty: 50, bad: 60, repeated: 100, ..Mix::demo(ORDERS, seed) };
    let options = producer::Options { rate: 400, ..producer::Options::to("orders.commands") };
    dump.ledger.absorb(producer::produce(brokers, &mix, options, |_| {}).await?);
    checkers::settled(&fleet.target, PATIENCE, |_| {}).await?;
    fleet.say(format_args!("{count} commands sent again, {ORDERS} new orders"));
    Ok(())
}

async fn account(fleet: &Fleet, dump: &Dump) -> Result<Report, Failed> {
    Ok(checkers::account(&fleet.target, &dump.ledger).await?)
}

fn clean(report: &Report, when: &str) -> Result<(), Failed> {
    eprintln!("{when}: {report}");
    if report.is_clean() { Ok(()) } else { Err(format!("{when}: {report}").into()) }
}
