//! Partitions that grow twice under load from three producers: ours, Kafka's own Java client that goes by old
//! metadata, and one with another hash.
//!
//! Upholds I1–I4, I7, I8 and I10 across growth, by the checkers of `load-tests`; that they would notice shows
//! a build in which records of new partitions wait for nothing. Prints how long orders had to wait and judges
//! none of that: it is the machine's. The first growth is by `holdfast partitions grow`, the second by
//! Kafka's own means, topic after topic, behind everybody's back. Each producer has orders of its own, since
//! between producers there is no order, and awaits a record's acknowledgement before the next of its key, as
//! who wants order across growth must.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast::infrastructure::ORDERING;
use holdfast_load_tests::{
    checkers::{self, Breach, EventRecord, Latencies, percentiles, times_to},
    faults::{java, load::Crowd, proxy::Mode},
    kafka,
    producer::{self, Ledger, Options, Partitioner},
    work::now_ms,
};
use libtest_mimic::Failed;
use serde_json::json;
use tokio::{io::AsyncBufReadExt as _, process::Command};
use uuid::Uuid;

use crate::{
    sabotage::Sabotage,
    world::{Settings, World},
};

/// How many of each producer's slowest commands are printed.
const SLOWEST: usize = 3;

/// What to do.
#[derive(Clone, Debug)]
pub struct Growth {
    /// Load follows from it.
    pub seed: u64,
    /// Commands a second of each producer.
    pub rate: u32,
    /// Orders of each producer.
    pub orders: u32,
    /// Before the first growth, and between the two.
    pub calm: Duration,
    /// How old the metadata is by which the Java client goes, at most.
    pub stale: Duration,
    /// How much later the first node hears of the database, and that of it.
    pub slow: Duration,
    /// The group's session timeout.
    pub session: Duration,
    /// How long an owner may answer without asking the database.
    pub lease: Duration,
    /// Where history and logs go.
    pub dir: PathBuf,
}

impl Growth {
    /// In half a minute.
    pub fn short(seed: u64, dir: PathBuf) -> Self {
        Self {
            seed,
            rate: 250,
            orders: 120,
            calm: Duration::from_secs(6),
            stale: Duration::from_secs(8),
            slow: Duration::ZERO,
            session: Duration::from_secs(10),
            lease: Duration::from_secs(2),
            dir,
        }
    }

    /// Few orders, and one node that is slow to commit: what is sent to others behind its back gets there
    /// first.
    pub fn uneven(seed: u64, dir: PathBuf) -> Self {
        Self { orders: 30, slow: Duration::from_millis(150), ..Self::short(seed, dir) }
    }

    /// Until the stalest producer has heard of everything, and a little longer.
    fn lasts(&self) -> Duration {
        self.calm * 3 + self.stale
    }

    fn settings(&self, how: Sabotage) -> Settings {
        Settings {
            nodes: 3,
            how,
            session: self.session,
            lease: self.lease,
            dir: self.dir.clone(),
            // Nothing is under way for long here.
            producers_max_age: self.stale + Duration::from_secs(2),
        }
    }

    fn crowd(&self, number: u32) -> Crowd {
        let seed = self.seed ^ (u64::from(number) << 32);
        let seconds = u32::try_from(self.lasts().as_secs()).unwrap_or(60);
        Crowd { commands: self.rate * seconds, orders: self.orders, hot: 0, repeated: 0, seed, time_ms: now_ms() }
    }
}

/// The product as it is: nothing lost, doubled or overtaken, and figures.
pub async fn keeps_order(growth: Growth) -> Result<(), Failed> {
    let (world, ledgers, marks) = grow(&growth, Sabotage::None).await?;
    checkers::settled(&world.target, Duration::from_mins(3), |_| {}).await?;
    // All has grown already: this only waits until it is over.
    partitions_grow(&world, 48, &["--wait"]).await?;
    let ledger = together(&ledgers);
    let report = checkers::account(&world.target, &ledger).await?;
    let (brokers, patience) = (world.stack.brokers(), world.target.patience);
    let events = checkers::events(brokers, "orders.events", patience).await?;
    tell(&ledgers, &events, &marks);
    eprintln!("{report}");
    if report.is_clean() {
        return Ok(());
    }
    let mut lines = kafka::read_all(brokers, "orders.commands", patience, |seen| {
        let (r#type, id) = (seen.header("ce_type"), seen.header("ce_id"));
        let line = format!("orders.commands-{}@{} {type} {id}", seen.partition, seen.offset);
        (seen.key.clone(), seen.time_ms, line)
    })
    .await?;
    let others = checkers::events(brokers, "inventory.events", patience).await?;
    let of = |topic| move |event| (topic, event);
    for (topic, event) in events.iter().map(of("orders")).chain(others.iter().map(of("inventory"))) {
        let EventRecord { partition, offset, time_ms, key, sequence, causation, .. } = event;
        let line = format!("{topic}.events-{partition}@{offset} {sequence} by {causation:?}");
        lines.push((key.clone(), *time_ms, line));
    }
    lines.sort_unstable();
    for sample in report.violations().flat_map(|(_, found)| &found.samples) {
        trace(&ledger, &lines, &sample.id);
    }
    Err(report.to_string().into())
}

/// Prints what there is of a command, or of an order: what was sent, and where the records of its order lie,
/// by time. `lines` have the order's key, the time, ms since 1970, and the record.
fn trace(ledger: &Ledger, lines: &[(String, i64, String)], id: &str) {
    let sent = id.parse().ok().and_then(|id: Uuid| ledger.commands.get(&id));
    let order = sent.map_or_else(|| id.to_owned(), |sent| sent.order.to_string());
    eprintln!("{id}: of order {order}, {sent:?}");
    for (_, time_ms, line) in lines.iter().filter(|(key, ..)| *key == order) {
        eprintln!("    {time_ms} ms: {line}");
    }
}

/// A build in which records of new partitions wait for nothing.
pub async fn no_wait_is_found_out(growth: Growth) -> Result<(), Failed> {
    let (world, ledgers, _) = grow(&growth, Sabotage::NoWait).await?;
    checkers::settled(&world.target, Duration::from_mins(3), |_| {}).await?;
    let report = checkers::account(&world.target, &together(&ledgers)).await?;
    let found = report.count(Breach::Overtaken);
    eprintln!("{}: {found} commands overtaken", Sabotage::NoWait);
    if found > 0 { Ok(()) } else { Err(format!("{} was not found out: {report}", Sabotage::NoWait).into()) }
}

/// When what was done.
struct Marks {
    /// The first growth was asked for.
    begun: Duration,
    /// The second one was all there, and all homes served.
    moved: Duration,
}

async fn grow(growth: &Growth, how: Sabotage) -> Result<(Arc<World>, Vec<(&'static str, Ledger)>, Marks), Failed> {
    eprintln!("seed {}; history and logs in {}", growth.seed, growth.dir.display());
    let world = World::open(growth.settings(how)).await?;
    world.slot(0).database.set(Mode::Delay(growth.slow));
    let sending = send(&world, growth);
    let began = Instant::now();
    tokio::time::sleep(growth.calm).await;
    let begun = began.elapsed();
    partitions_grow(&world, 24, &[]).await?;
    world.diary.mark("grown", &json!({ "to": 24, "by": "holdfast" }));
    tokio::time::sleep(growth.calm).await;
    for topic in topics() {
        kafka::grow_topic(world.stack.brokers(), &topic, 48).await?;
        world.diary.mark("grown", &json!({ "to": 48, "topic": topic }));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    partitions_grow(&world, 48, &[]).await?;
    let moved = began.elapsed();
    let mut ledgers = Vec::new();
    for (name, sent) in sending {
        ledgers.push((name, sent.await??));
    }
    Ok((world, ledgers, Marks { begun, moved }))
}

fn topics() -> Vec<String> {
    let kinds = ["events", "commands", "dlq"];
    ORDERING.iter().flat_map(|context| kinds.iter().map(move |kind| format!("{context}.{kind}"))).collect()
}

type Sending = Vec<(&'static str, tokio::task::JoinHandle<Result<Ledger, Failed>>)>;

/// Starts the three producers.
fn send(world: &World, growth: &Growth) -> Sending {
    let to = || Options { rate: growth.rate, awaits: true, ..Options::to("orders.commands") };
    let (brokers, dir) = (world.stack.brokers().to_owned(), growth.dir.clone());
    let ours = |number, options: Options| {
        let (brokers, records) = (brokers.clone(), growth.crowd(number).records());
        tokio::spawn(async move { Ok(producer::produce_at_pace(&brokers, records, options, |_| {}).await?) })
    };
    let quick = ours(0, Options { metadata_max_age: Duration::from_secs(1), ..to() });
    let other = ours(1, Options { metadata_max_age: growth.stale, partitioner: Partitioner::Crc32, ..to() });
    let (records, options) = (growth.crowd(2).records(), Options { metadata_max_age: growth.stale, ..to() });
    let (java, at) = (world.stack.java(), brokers.clone());
    let stale = tokio::spawn(async move { Ok(java::produce(java, &dir, &at, records, options).await?) });
    vec![("librdkafka murmur2", quick), ("librdkafka CRC32", other), ("Java, stale", stale)]
}

fn together(ledgers: &[(&'static str, Ledger)]) -> Ledger {
    let mut all = Ledger::default();
    let mut sorted: Vec<&Ledger> = ledgers.iter().map(|(_, ledger)| ledger).collect();
    sorted.sort_by_key(|ledger| ledger.started_ms);
    for (number, ledger) in sorted.into_iter().enumerate() {
        if number == 0 { all = ledger.clone() } else { all.absorb(ledger.clone()) }
    }
    all
}

/// Runs the real program, and prints what it says.
async fn partitions_grow(world: &World, to: u32, more: &[&str]) -> Result<(), Failed> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["partitions", "grow", "--to", &to.to_string()])
        .args(more)
        .envs(world.beside())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let began = Instant::now();
    let mut lines = tokio::io::BufReader::new(process.stdout.take().ok_or("it has no output")?).lines();
    while let Some(line) = lines.next_line().await? {
        eprintln!("{:8.2} s  {line}", began.elapsed().as_secs_f64());
    }
    let status = process.wait().await?;
    if status.success() { Ok(()) } else { Err(format!("holdfast partitions grow --to {to}: {status}").into()) }
}

/// How long orders waited: each order's longest wait for one of its commands, before and while partitions
/// grew.
fn tell(ledgers: &[(&'static str, Ledger)], events: &[EventRecord], marks: &Marks) {
    let moved = moved(events);
    eprintln!("longest wait of an order, ms (p50 / p99 / max over orders):");
    for (name, ledger) in ledgers {
        let waits = |when: &dyn Fn(Duration) -> bool, has_moved: Option<bool>| {
            let mut longest: HashMap<Uuid, u64> = HashMap::new();
            for (_, sent, took) in times_to(ledger, events) {
                if when(sent.after) && has_moved.is_none_or(|wanted| moved.contains(&sent.order) == wanted) {
                    let wait = longest.entry(sent.order).or_default();
                    *wait = (*wait).max(took);
                }
            }
            percentiles(longest.into_values())
        };
        // Half a second to come to speed, and before anything is done.
        let calm = |at: Duration| at > marks.begun / 2 && at + Duration::from_millis(500) < marks.begun;
        let growing = |at: Duration| at >= marks.begun && at <= marks.moved + Duration::from_secs(2);
        let later = |at: Duration| at > marks.moved + Duration::from_secs(2);
        eprintln!(
            "  {name:20} calm {}; while growing: orders that move {}, others {}; afterwards {}",
            short(&waits(&calm, None)),
            short(&waits(&growing, Some(true))),
            short(&waits(&growing, Some(false))),
            short(&waits(&later, None)),
        );
        let mut slowest: Vec<_> = times_to(ledger, events).filter(|(_, sent, _)| growing(sent.after)).collect();
        slowest.sort_unstable_by_key(|(_, _, took)| std::cmp::Reverse(*took));
        for (id, sent, took) in slowest.into_iter().take(SLOWEST) {
            let partition =
                events.iter().find(|event| event.causation == Some(*id)).map_or(-1, |event| event.partition);
            let after = sent.after.saturating_sub(marks.begun).as_millis();
            eprintln!(
                "  {:20} slowest: {took} ms, sent {after} ms after the first growth began, done in home {partition}",
                ""
            );
        }
    }
}

fn short(found: &Latencies) -> String {
    format!("{} / {} / {} of {}", found.p50_ms, found.p99_ms, found.max_ms, found.count)
}

/// Orders whose events are in more than one partition.
fn moved(events: &[EventRecord]) -> HashSet<Uuid> {
    let mut of: HashMap<&str, HashSet<i32>> = HashMap::new();
    for event in events {
        of.entry(&event.key).or_default().insert(event.partition);
    }
    let several = of.into_iter().filter(|(_, partitions)| partitions.len() > 1);
    several.filter_map(|(key, _)| key.parse().ok()).collect()
}
