//! What the benchmark found: each round's figures as JSON for machines, their medians as a table for people.

use std::time::Duration;

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{curves::Curves, stages::Stage};
use crate::{
    checkers::Report,
    findings::{median, ms_at},
    report::number::grouped,
    rivals::streams::Settings,
    scenarios::{
        cpu::{Cpu, cores},
        database::Database,
        precise,
    },
};

/// A measured rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Commands counted.
    pub commands: u64,
    /// Seconds in which they were counted.
    pub seconds: f64,
    /// Commands a second, hence.
    pub per_second: f64,
    /// CPU time for each, in µs.
    pub cpu_us: Cpu,
}

impl Rate {
    /// The rate of `commands` in `elapsed`.
    pub fn of(commands: u64, elapsed: Duration, cpu_us: Cpu) -> Self {
        let seconds = elapsed.as_secs_f64();
        let per_second = (precise(commands) / seconds.max(1e-9)).round();
        Self { commands, seconds: (seconds * 1_000.0).round() / 1_000.0, per_second, cpu_us }
    }

    /// Which part of the machine other processes had meanwhile. A short stretch says nothing of them, since
    /// CPU time is counted in ticks of 10 ms, of each process.
    #[allow(clippy::cast_precision_loss)] // a number of cores
    fn others(&self) -> f64 {
        const SHORT: f64 = 0.5;
        if self.seconds < SHORT { 0.0 } else { self.cpu_us.others * self.per_second / 1e6 / cores() as f64 }
    }
}

/// Latencies at a fixed rate, ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Commands sent a second.
    pub rate: u32,
    /// How many were measured.
    pub count: u64,
    /// Half were quicker.
    pub p50_ms: f64,
    /// 99 of 100 were quicker.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Latency {
    /// Of times in µs.
    pub fn of(rate: u32, times: &Histogram<u64>) -> Self {
        Self {
            rate,
            count: times.len(),
            p50_ms: ms_at(times, 0.5),
            p99_ms: ms_at(times, 0.99),
            max_ms: ms_at(times, 1.0),
        }
    }
}

/// What became of the commands of one turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Commands sent.
    pub commands: u64,
    /// Those without an event.
    pub missing: u64,
    /// Events beyond the first of a command.
    pub repeated: u64,
    /// Causes that nobody sent.
    pub foreign: u64,
}

/// One design's figures of one round.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Turn {
    /// From a full topic, just started.
    pub cold: Rate,
    /// Likewise, after as many commands.
    pub warm: Rate,
    /// With the producer beside it.
    pub live: Rate,
    /// At fixed rates.
    pub latencies: Vec<Latency>,
    /// For each of them, where Holdfast's time went; zeros of all other designs, which record nothing.
    pub stages: Vec<Vec<Stage>>,
    /// What Postgres counted for each command of the three stretches, if it works on Postgres.
    pub database: Option<Database>,
    /// What became of the commands.
    pub tally: Tally,
    /// What plots are made of; too long for a list of figures.
    #[serde(skip)]
    pub curves: Curves,
}

impl Default for Rate {
    fn default() -> Self {
        Self::of(0, Duration::ZERO, Cpu::default())
    }
}

/// One design's figures of all rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Contender {
    /// What it is.
    pub name: &'static str,
    /// By round.
    pub turns: Vec<Turn>,
}

impl Contender {
    pub(super) fn median(&self, of: impl Fn(&Turn) -> f64) -> f64 {
        median(self.turns.iter().map(of).collect())
    }

    /// The medians of what was measured at each rate.
    pub(super) fn latencies(&self) -> Vec<Latency> {
        let rates = self.turns.first().map_or(&[][..], |turn| &turn.latencies);
        let medians = |(at, latency): (usize, &Latency)| {
            let of = |figure: fn(&Latency) -> f64| self.median(|turn| turn.latencies.get(at).map_or(0.0, figure));
            Latency { p50_ms: of(|it| it.p50_ms), p99_ms: of(|it| it.p99_ms), max_ms: of(|it| it.max_ms), ..*latency }
        };
        rates.iter().enumerate().map(medians).collect()
    }

    /// The medians of the stages at the rate with this place.
    pub(super) fn stages(&self, rate: usize) -> Vec<Stage> {
        let stages = self.turns.first().and_then(|turn| turn.stages.get(rate)).map_or(&[][..], Vec::as_slice);
        let medians = |(at, stage): (usize, &Stage)| {
            let of =
                |figure: fn(&Stage) -> f64| self.median(|turn| turn.stages.get(rate).map_or(0.0, |it| figure(&it[at])));
            Stage { p50_ms: of(|it| it.p50_ms), p99_ms: of(|it| it.p99_ms), ..*stage }
        };
        stages.iter().enumerate().map(medians).collect()
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// The settings of Streams, the best of those tried; none if it was not measured.
    pub streams: Option<Settings>,
    /// The designs; Holdfast is the first.
    pub contenders: Vec<Contender>,
    /// The bare group commit's rate, by round.
    pub ceiling: Vec<Rate>,
    /// The account of every command that Holdfast was given.
    pub report: Report,
    /// What it was asked to measure, in words.
    #[serde(skip)]
    pub setup: Vec<(String, String)>,
}

impl Outcome {
    pub(super) fn new(streams: Option<Settings>, setup: Vec<(String, String)>) -> Self {
        Self { streams, setup, ..Self::default() }
    }

    pub(super) fn contender(&mut self, name: &'static str) -> &mut Contender {
        let at = self.contenders.iter().position(|contender| contender.name == name);
        let at = at.unwrap_or_else(|| {
            self.contenders.push(Contender { name, ..Contender::default() });
            self.contenders.len() - 1
        });
        &mut self.contenders[at]
    }

    /// The largest part of the machine that other processes had during a measurement; above a few percent the
    /// figures say little.
    pub fn disturbance(&self) -> f64 {
        let turns = self.contenders.iter().flat_map(|contender| &contender.turns);
        let rates = turns.flat_map(|turn| [&turn.cold, &turn.warm, &turn.live]).chain(&self.ceiling);
        rates.map(Rate::others).fold(0.0, f64::max)
    }

    /// Whether each command that Holdfast was given had its one effect.
    pub fn is_clean(&self) -> bool {
        let is_whole = |Tally { missing, repeated, foreign, .. }: Tally| (missing, repeated, foreign) == (0, 0, 0);
        self.report.is_clean() && self.promised().all(|turn| is_whole(turn.tally))
    }

    /// The turns of the design that promises to lose and double nothing.
    pub(super) fn promised(&self) -> impl Iterator<Item = &Turn> {
        self.contenders.iter().filter(|contender| contender.name == "holdfast").flat_map(|contender| &contender.turns)
    }

    /// One JSON object.
    pub fn json(&self) -> serde_json::Value {
        let medians = self.contenders.iter().map(|contender| {
            let medians = serde_json::json!({
                "cold": contender.median(|turn| turn.cold.per_second),
                "warm": contender.median(|turn| turn.warm.per_second),
                "live": contender.median(|turn| turn.live.per_second),
                "latencies": contender.latencies(),
            });
            (contender.name.to_owned(), medians)
        });
        serde_json::json!({
            "cores": cores(),
            "medians": medians.collect::<serde_json::Map<_, _>>(),
            "others": (self.disturbance() * 100.0).round() / 100.0,
            "rounds": self,
        })
    }

    /// A table for people.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let header = [
            "medians of the rounds",
            "drain, cold",
            "drain, warm",
            "live",
            "p50 / p99",
            "CPU per command, warm",
            "Postgres per command",
        ];
        table.set_header(header);
        for contender in &self.contenders {
            let rate = |of: fn(&Turn) -> Rate| per_second(contender.median(|turn| of(turn).per_second));
            let [cold, warm, live] = [rate(|turn| turn.cold), rate(|turn| turn.warm), rate(|turn| turn.live)];
            let (latency, cpu, database) = (latency(contender), cpu(contender), database(contender));
            table.add_row([contender.name.to_owned(), cold, warm, live, latency, cpu, database]);
        }
        if !self.ceiling.is_empty() {
            let ceiling = median(self.ceiling.iter().map(|rate| rate.per_second).collect());
            table.add_row(["bare group commit (Postgres alone)".to_owned(), String::new(), per_second(ceiling)]);
        }
        for (name, ratios) in self.ratios() {
            let [cold, warm, live] = ratios.map(|ratio| format!("{ratio:.2}x"));
            table.add_row([format!("holdfast : {name}"), cold, warm, live]);
        }
        table.add_row([
            "CPU taken by other processes, at most".to_owned(),
            format!("{:.0}%", self.disturbance() * 100.0),
        ]);
        table
    }

    /// Where the latency of the first design, Holdfast, goes.
    pub fn stages(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let Some(holdfast) = self.contenders.first() else { return table };
        let rates = holdfast.latencies();
        let of: Vec<Vec<Stage>> = (0..rates.len()).map(|rate| holdfast.stages(rate)).collect();
        let header = rates.iter().map(|latency| format!("p50 / p99 at {}/s", grouped(latency.rate.into())));
        table.set_header(std::iter::once("holdfast's stages".to_owned()).chain(header));
        for (at, stage) in of.first().into_iter().flatten().enumerate() {
            let cells = of.iter().map(|stages| format!("{:.1} / {:.1} ms", stages[at].p50_ms, stages[at].p99_ms));
            table.add_row(std::iter::once(stage.name.to_owned()).chain(cells));
        }
        table
    }

    /// Holdfast's rates by those of each other design: medians of the rounds' ratios.
    pub(super) fn ratios(&self) -> Vec<(&'static str, [f64; 3])> {
        let Some((holdfast, others)) = self.contenders.split_first() else { return Vec::new() };
        let ratio = |other: &Contender, of: fn(&Turn) -> Rate| {
            let both = holdfast.turns.iter().zip(&other.turns);
            let each = both.map(|(ours, theirs)| of(ours).per_second / of(theirs).per_second.max(1.0));
            median(each.collect())
        };
        let all = |other: &Contender| {
            (
                other.name,
                [ratio(other, |turn| turn.cold), ratio(other, |turn| turn.warm), ratio(other, |turn| turn.live)],
            )
        };
        others.iter().map(all).collect()
    }
}

fn latency(contender: &Contender) -> String {
    let line = |Latency { rate, p50_ms, p99_ms, .. }: Latency| {
        format!("{p50_ms:.1} / {p99_ms:.1} ms at {}/s", grouped(rate.into()))
    };
    contender.latencies().into_iter().map(line).collect::<Vec<_>>().join("\n")
}

fn cpu(contender: &Contender) -> String {
    let of = |part: fn(&Cpu) -> f64| contender.median(|turn| part(&turn.warm.cpu_us));
    let (own, kafka, postgres) = (of(|cpu| cpu.design), of(|cpu| cpu.kafka), of(|cpu| cpu.postgres));
    let counter = of(|cpu| cpu.counter);
    format!("{own:.0} µs + Kafka {kafka:.0} + Postgres {postgres:.0}\n+ counter {counter:.0}")
}

fn database(contender: &Contender) -> String {
    if contender.turns.iter().any(|turn| turn.database.is_none()) {
        return String::new();
    }
    let of = |part: fn(&Database) -> f64| contender.median(|turn| turn.database.as_ref().map_or(0.0, part));
    let (transactions, syncs) = (of(|counted| counted.transactions), of(|counted| counted.wal_syncs));
    let (rows, wal) = (of(|counted| counted.rows), of(|counted| counted.wal_bytes));
    format!("{transactions:.4} transactions, {rows:.2} rows\n{wal:.0} bytes of WAL, {syncs:.4} syncs")
}

fn per_second(rate: f64) -> String {
    // A rate is not negative, and far below 2^64.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = rate.round() as u64;
    format!("{}/s", grouped(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(warm: u64, p50_ms: f64) -> Turn {
        let rate = |commands| Rate::of(commands, Duration::from_secs(1), Cpu::default());
        let latency = Latency { rate: 4_000, count: 1, p50_ms, p99_ms: 30.0, max_ms: 31.0 };
        let database = Some(Database { transactions: 0.0125, rows: 1.5, wal_bytes: 700.0, ..Database::default() });
        Turn {
            cold: rate(warm / 2),
            warm: rate(warm),
            live: rate(warm),
            latencies: vec![latency],
            database,
            ..Turn::default()
        }
    }

    fn outcome() -> Outcome {
        let mut outcome = Outcome::new(Some(Settings::TRIED[0]), Vec::new());
        for (ours, theirs) in [(20_000, 10_000), (30_000, 10_000), (22_000, 20_000)] {
            outcome.contender("holdfast").turns.push(turn(ours, 7.25));
            outcome.contender("echo").turns.push(turn(theirs, 2.0));
        }
        outcome.ceiling.push(Rate::of(160_000, Duration::from_secs(2), Cpu::default()));
        outcome
    }

    /// Rounds differ by what the machine does meanwhile; the two sides of a ratio are of the same round.
    #[test]
    fn ratios_are_medians_of_each_rounds_own() {
        assert_eq!(outcome().ratios(), [("echo", [2.0; 3])]);
    }

    #[test]
    fn table_and_json_say_the_same() {
        let table = outcome().table().to_string();
        for text in [
            "22,000/s",
            "11,000/s",
            "7.2 / 30.0 ms at 4,000/s",
            "80,000/s",
            "2.00x",
            "0.0125 transactions",
            "700 bytes",
        ] {
            assert!(table.contains(text), "{text} in\n{table}");
        }
        let json = outcome().json();
        assert_eq!(json["medians"]["holdfast"]["warm"], 22_000.0);
        assert_eq!(json["medians"]["echo"]["latencies"][0]["p50_ms"], 2.0);
        assert_eq!(json["rounds"]["contenders"][0]["turns"][2]["warm"]["per_second"], 22_000.0);
    }

    #[test]
    fn the_worst_disturbed_measurement_counts() {
        let mut outcome = outcome();
        assert!(outcome.disturbance() < 1e-9);
        // 100 µs for each of 10,000 commands a second: one core.
        outcome.contender("echo").turns[1].live.cpu_us.others = 100.0;
        #[allow(clippy::cast_precision_loss)]
        let one = 1.0 / cores() as f64;
        assert!((outcome.disturbance() - one).abs() < 1e-9);
        outcome.contender("echo").turns[1].live.seconds = 0.4;
        assert!(outcome.disturbance() < 1e-9, "ticks of 10 ms");
    }

    #[test]
    fn what_holdfast_loses_or_doubles_is_not_clean() {
        assert!(outcome().is_clean());
        for tally in [Tally { missing: 1, ..Tally::default() }, Tally { repeated: 1, ..Tally::default() }] {
            let mut outcome = outcome();
            outcome.contender("echo").turns[0].tally = tally;
            assert!(outcome.is_clean(), "it promises nothing");
            outcome.contender("holdfast").turns[2].tally = tally;
            assert!(!outcome.is_clean());
        }
    }
}
