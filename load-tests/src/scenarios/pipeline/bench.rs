//! One design's turn: two full loads drained, one while the producer runs, and latency; then each command's
//! event is looked for.
//!
//! Times are those at which the counter read events; a command's latency begins when the broker appended it.
//! Deliberately absent: which designs there are, and what their figures mean.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use hdrhistogram::Histogram;
use rdkafka::Message as _;
use uuid::Uuid;

use super::{
    Options, Progress, Watcher,
    curves::{Curves, Steps},
    designs::{Design, Place, Purpose},
    outcome::{Latency, Rate, Tally, Turn},
    stages::Stages,
};
use crate::{
    counter::{Counted, Counter},
    findings::{Line, times},
    kafka::{self, Ends},
    producer::{self, Ledger},
    rivals::Running,
    scenarios::{
        Error, PATIENCE, ceiling,
        cpu::{Cpu, Pids},
        database::{Database, settle},
        precise,
    },
    work::Mix,
};

const COMMANDS_PER_ORDER: u32 = 4;

pub(super) struct Bench<'a> {
    pub(super) place: Place<'a>,
    pub(super) servers: Pids,
    pub(super) counter: Counter,
    pub(super) ends: Ends,
    pub(super) options: &'a Options,
    pub(super) stages: &'static Stages,
    pub(super) progress: Watcher,
    /// Loads made so far: each has a seed of its own.
    pub(super) loads: AtomicU64,
}

/// A load that was drained: from the first look at which one of its events was there.
struct Begun {
    at: u64,
    cpu: Cpu,
}

impl Bench<'_> {
    /// Measures `design`, and returns what it was given.
    pub(super) async fn turn(&self, design: Design) -> Result<(Turn, Ledger), Error> {
        let (commands, rates) = design.load(self.options);
        let before = self.counter.count(design.number());
        let each = whole(commands);
        let number = self.begin(design).await?;
        let mut ledger = self.produce(design, "load to drain", 2 * each, 0).await?;
        settle(&self.place.url).await?;
        let counted = self.counted(design).await?;
        let mut running = design.start(&self.place, number, Purpose::Rate, self.options).await?;
        let cold = self.stretch(design, &mut *running, "drain, cold", before..before + each).await?;
        let warm = self.stretch(design, &mut *running, "drain, warm", before + each..before + 2 * each).await?;
        let load = self.produce(design, "live load", each, 0);
        let live = self.stretch(design, &mut *running, "live", before + 2 * each..before + 3 * each);
        let (load, live) = tokio::try_join!(load, live)?;
        ledger.absorb(load);
        running.stop().await?;
        let database = match (counted, self.counted(design).await?) {
            (Some(then), Some(now)) => Some(now.per_command(then, precise(3 * each))),
            _ => None,
        };

        let mut running = design.start(&self.place, number, Purpose::Latency, self.options).await?;
        let mut at = before + 3 * each;
        let load = self.produce(design, "warming up", each / 4, 0).await?;
        at = self.reached(design, &mut *running, "warming up", at..at + load.records, |_| {}).await?;
        ledger.absorb(load);
        settle(&self.place.url).await?;
        let (mut latencies, mut stages, mut curves) = (Vec::new(), Vec::new(), Curves::default());
        self.stages.take();
        for rate in rates {
            let from = self.ends.of(design.commands()).await?;
            let seconds = self.options.latency_for.as_secs();
            let load = self.produce(design, "latency", u64::from(rate) * seconds, rate).await?;
            let first = at;
            at = self.reached(design, &mut *running, "latency", at..at + load.records, |_| {}).await?;
            let appended = self.appended(design, from).await?;
            let times = latencies_of(&load, &appended, &self.counter.since(design.number(), first));
            latencies.push(Latency::of(rate, &times));
            stages.push(self.stages.take());
            curves.latencies.push(Line::of_latency(design.name(), &times).points);
            ledger.absorb(load);
        }
        running.stop().await?;
        let events = self.counter.since(design.number(), before);
        let tally = tally(&ledger, &events);
        let (drained, after) = events.split_at(count(2 * each).min(events.len()));
        curves.drain = Steps::of(drained);
        curves.live = Steps::of(&after[..count(each).min(after.len())]);
        Ok((Turn { cold, warm, live, latencies, stages, database, tally, curves }, ledger))
    }

    /// How fast this one drains a load once it is warm, and what it was given.
    pub(super) async fn trial(&self, design: Design, commands: u32) -> Result<(Rate, Ledger), Error> {
        let before = self.counter.count(design.number());
        let each = whole(commands);
        let number = self.begin(design).await?;
        let ledger = self.produce(design, "load for a trial", 2 * each, 0).await?;
        let mut running = design.start(&self.place, number, Purpose::Rate, self.options).await?;
        self.stretch(design, &mut *running, "trial", before..before + each).await?;
        let warm = self.stretch(design, &mut *running, "trial", before + each..before + 2 * each).await?;
        running.stop().await?;
        Ok((warm, ledger))
    }

    /// Begins a turn, and returns its number.
    async fn begin(&self, design: Design) -> Result<u64, Error> {
        if design.forgets() {
            let ends = self.ends.of(design.commands()).await?;
            kafka::delete_records(self.place.stack.brokers(), design.commands(), &ends).await?;
        }
        Ok(self.loads.load(Ordering::Relaxed))
    }

    pub(super) async fn ceiling(&self) -> Result<Rate, Error> {
        let pids = self.pids(None);
        let mut cpu = pids.used();
        let (mut count, mut elapsed) = (0, Duration::ZERO);
        for commands in [self.options.commands / 4, self.options.commands] {
            self.tell("ceiling".into(), 0, u64::from(commands));
            settle(&self.place.url).await?;
            cpu = pids.used();
            (count, elapsed) = ceiling::run(&self.place.url, u64::from(commands), self.options.ids).await?;
        }
        let cpu = pids.used().per_command_us(cpu, precise(count));
        Ok(Rate::of(count, elapsed, cpu))
    }

    fn pids(&self, design: Option<u32>) -> Pids {
        Pids { design, counter: self.counter.pid(), ..self.servers }
    }

    fn tell(&self, phase: String, done: u64, of: u64) {
        (self.progress)(Progress { phase, done, of });
    }

    async fn counted(&self, design: Design) -> Result<Option<Database>, Error> {
        Ok(if design.stores() { Some(Database::counted(&self.place.url).await?) } else { None })
    }

    async fn produce(&self, design: Design, what: &str, commands: u64, rate: u32) -> Result<Ledger, Error> {
        let seed = self.loads.fetch_add(1, Ordering::Relaxed);
        let mix = Mix { ids: self.options.ids, form: self.options.form, ..Mix::benchmark(orders(commands), seed) };
        let options = producer::Options { rate, ..producer::Options::to(design.commands()) };
        self.tell(format!("{}: {what}", design.name()), 0, commands);
        Ok(producer::produce(self.place.stack.brokers(), &mix, options, |_| {}).await?)
    }

    /// Measures from the first event after `before` to the one that makes them `until`.
    async fn stretch(
        &self,
        design: Design,
        running: &mut dyn Running,
        what: &str,
        events: Range<u64>,
    ) -> Result<Rate, Error> {
        let Range { start: before, end: until } = events;
        let pids = self.pids(running.pid());
        let mut begun: Option<Begun> = None;
        let look = |total: u64| {
            if total > before && begun.is_none() {
                begun = Some(Begun { at: total, cpu: pids.used() });
            }
        };
        self.reached(design, running, what, before..until, look).await?;
        let end = pids.used();
        // A small load may be there at the first look; its CPU time was not seen then.
        let begun = begun.filter(|begun| begun.at < until).unwrap_or(Begun { at: before + 1, cpu: end });
        let events = self.counter.since(design.number(), begun.at - 1);
        let last = events.get(count(until - begun.at));
        let (first, last) = events.first().zip(last).ok_or_else(|| Error::Wrong(format!("{what}: lost count")))?;
        let (counted, elapsed) = (until - begun.at, Duration::from_micros(last.at_us.saturating_sub(first.at_us)));
        Ok(Rate::of(counted, elapsed, end.per_command_us(begun.cpu, precise(counted))))
    }

    /// Waits until there are `until` events of the design; tells `look` how many there are each time. Fails
    /// if nothing comes any more, or the design has failed.
    async fn reached(
        &self,
        design: Design,
        running: &mut dyn Running,
        what: &str,
        events: Range<u64>,
        mut look: impl FnMut(u64),
    ) -> Result<u64, Error> {
        let Range { start: before, end: until } = events;
        let look = |total: u64| {
            look(total);
            self.tell(format!("{}: {what}", design.name()), total.saturating_sub(before), until - before);
            Ok(())
        };
        let waiting = self.counter.reached(design.number(), until, design.name(), look);
        tokio::select! {
            done = waiting => done,
            error = running.failed() => Err(error),
        }
    }

    /// When the broker appended each command from these offsets on, ms since 1970.
    async fn appended(&self, design: Design, from: BTreeMap<i32, i64>) -> Result<HashMap<Uuid, u64>, Error> {
        let read = |record: &rdkafka::message::BorrowedMessage<'_>| {
            let time = record.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok())?;
            Some((Uuid::try_parse(kafka::Seen::of(record).header("ce_id")).ok()?, time))
        };
        let brokers = self.place.stack.brokers();
        let all = kafka::read_each(brokers, design.commands(), from, PATIENCE, read).await?;
        Ok(all.into_iter().flatten().collect())
    }
}

/// How long commands took to their first events, µs; without the first fifth of the load, in which
/// connections and caches warm up.
fn latencies_of(load: &Ledger, appended: &HashMap<Uuid, u64>, events: &[Counted]) -> Histogram<u64> {
    let steady = load.elapsed / 5;
    let mut histogram = times();
    let mut open: HashMap<&Uuid, u64> = load
        .commands
        .iter()
        .filter(|(_, sent)| sent.after >= steady)
        .filter_map(|(id, _)| Some((id, appended.get(id)? * 1_000)))
        .collect();
    for event in events {
        if let Some(at_us) = open.remove(&event.cause) {
            histogram.saturating_record(event.at_us.saturating_sub(at_us));
        }
    }
    histogram
}

/// Looks for each command's event.
fn tally(ledger: &Ledger, events: &[Counted]) -> Tally {
    let mut seen: HashMap<Uuid, u64> = HashMap::with_capacity(ledger.commands.len());
    for event in events {
        *seen.entry(event.cause).or_default() += 1;
    }
    let missing = ledger.commands.keys().filter(|id| !seen.contains_key(id)).count() as u64;
    let repeated = seen.values().map(|times| times - 1).sum();
    let foreign = seen.keys().filter(|id| !ledger.commands.contains_key(id)).count() as u64;
    Tally { commands: ledger.commands.len() as u64, missing, repeated, foreign }
}

/// The number of commands, rounded up to whole orders.
fn whole(commands: u32) -> u64 {
    u64::from(commands.next_multiple_of(COMMANDS_PER_ORDER))
}

/// A number of events in memory.
fn count(events: u64) -> usize {
    usize::try_from(events).unwrap_or(usize::MAX)
}

fn orders(commands: u64) -> u32 {
    u32::try_from(commands.div_ceil(u64::from(COMMANDS_PER_ORDER))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Planned;

    fn load() -> (Vec<Planned>, Ledger) {
        let records: Vec<Planned> = Mix::benchmark(2, 1).windows().flatten().collect();
        let mut ledger = Ledger::default();
        records.iter().enumerate().for_each(|(n, record)| ledger.note_at(record, Duration::from_millis(n as u64 * 10)));
        ledger.elapsed = Duration::from_millis(80);
        (records, ledger)
    }

    #[test]
    fn lost_doubled_and_foreign_events_are_told_apart() {
        let (records, ledger) = load();
        let counted = |id| Counted { cause: id, at_us: 0 };
        let mut events: Vec<Counted> = records.iter().map(|record| counted(record.id)).collect();
        assert_eq!(tally(&ledger, &events), Tally { commands: 8, ..Tally::default() });
        events.swap_remove(3);
        events.extend([counted(records[0].id), counted(records[0].id), counted(Uuid::nil())]);
        assert_eq!(tally(&ledger, &events), Tally { commands: 8, missing: 1, repeated: 2, foreign: 1 });
    }

    /// The first two of eight commands are in the first fifth.
    #[test]
    fn latency_runs_from_append_to_first_reading_in_the_steady_part() {
        let (records, ledger) = load();
        let appended: HashMap<Uuid, u64> = records.iter().map(|record| (record.id, 1_000)).collect();
        let event = |(n, record): (usize, &Planned)| Counted { cause: record.id, at_us: 1_000_000 + n as u64 * 100 };
        let mut events: Vec<Counted> = records.iter().enumerate().map(event).collect();
        events.push(Counted { cause: records[7].id, at_us: 9_000_000 });
        let found = latencies_of(&ledger, &appended, &events);
        assert_eq!((found.len(), found.min(), found.max()), (6, 200, 700));
    }
}
