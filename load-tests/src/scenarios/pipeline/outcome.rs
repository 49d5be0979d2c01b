//! What the benchmark found, as a table for people and as JSON for machines.

use std::time::Duration;

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::precise;
use crate::{
    checkers::{Latencies, Report},
    scenarios::cpu::Cpu,
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

    /// Which part of the machine other processes had meanwhile.
    #[allow(clippy::cast_precision_loss)] // a number of cores
    fn others(&self) -> f64 {
        self.cpu_us.others * self.per_second / 1e6 / cores() as f64
    }
}

/// Latencies at a fixed rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Commands sent a second.
    pub rate: u32,
    /// How long they took.
    pub times: Latencies,
}

/// One design's figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Contender {
    /// From a full topic.
    pub drain: Rate,
    /// With the producer beside it.
    pub live: Rate,
    /// At a fixed rate.
    pub latency: Latency,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Holdfast.
    pub holdfast: Contender,
    /// One transaction per command, a polling relay.
    pub baseline: Contender,
    /// The bare group commit, Postgres alone.
    pub ceiling: Rate,
    /// The account of every command that Holdfast was given.
    pub report: Report,
}

impl Outcome {
    /// How many times the baseline's rate: draining, and live.
    pub fn times_baseline(&self) -> (f64, f64) {
        let ratio = |ours: Rate, theirs: Rate| ours.per_second / theirs.per_second.max(1.0);
        (ratio(self.holdfast.drain, self.baseline.drain), ratio(self.holdfast.live, self.baseline.live))
    }

    /// Which part of the ceiling's rate: draining, and live.
    pub fn of_ceiling(&self) -> (f64, f64) {
        let ratio = |ours: Rate| ours.per_second / self.ceiling.per_second.max(1.0);
        (ratio(self.holdfast.drain), ratio(self.holdfast.live))
    }

    /// The largest part of the machine that other processes had during a measurement; above a few percent the
    /// figures say little.
    pub fn disturbance(&self) -> f64 {
        let rates = [self.holdfast.drain, self.holdfast.live, self.baseline.drain, self.baseline.live, self.ceiling];
        rates.iter().map(Rate::others).fold(0.0, f64::max)
    }

    /// One JSON object.
    pub fn json(&self) -> serde_json::Value {
        let (times, of) = (self.times_baseline(), self.of_ceiling());
        let two = |number: f64| (number * 100.0).round() / 100.0;
        serde_json::json!({
            "cores": cores(),
            "holdfast": self.holdfast,
            "baseline": self.baseline,
            "ceiling": self.ceiling,
            "times_baseline": { "drain": two(times.0), "live": two(times.1) },
            "others": two(self.disturbance()),
            "of_ceiling": { "drain": two(of.0), "live": two(of.1) },
            "report": self.report,
        })
    }

    /// A table for people.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["", "drain", "live", "latency p50 / p99", "CPU per command"]);
        for (name, contender) in [("holdfast", &self.holdfast), ("one transaction per command", &self.baseline)] {
            let Latency { rate, times } = contender.latency;
            table.add_row([
                name.to_owned(),
                per_second(contender.drain),
                per_second(contender.live),
                format!("{} / {} ms at {}/s", times.p50_ms, times.p99_ms, grouped(u64::from(rate))),
                cpu(contender.drain.cpu_us),
            ]);
        }
        let ceiling = [
            "bare group commit (Postgres alone)".to_owned(),
            per_second(self.ceiling),
            String::new(),
            String::new(),
            cpu(self.ceiling.cpu_us),
        ];
        table.add_row(ceiling);
        let (times, of) = (self.times_baseline(), self.of_ceiling());
        let factor = |number: f64| format!("{number:.1}x");
        let percent = |number: f64| format!("{:.0}%", number * 100.0);
        table.add_row(["holdfast : one transaction per command".to_owned(), factor(times.0), factor(times.1)]);
        table.add_row(["holdfast : bare group commit".to_owned(), percent(of.0), percent(of.1)]);
        table.add_row(["CPU taken by other processes, at most".to_owned(), percent(self.disturbance())]);
        table
    }
}

fn per_second(rate: Rate) -> String {
    // A rounded rate is a whole number, and not negative.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = rate.per_second as u64;
    format!("{}/s", grouped(whole))
}

fn cpu(cpu: Cpu) -> String {
    format!("{:.0} µs + Kafka {:.0} + Postgres {:.0}", cpu.here, cpu.kafka, cpu.postgres)
}

/// With a comma after each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let parts: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|part| std::str::from_utf8(part).ok()).collect();
    parts.join(",")
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contender(drain: u64, live: u64) -> Contender {
        let rate = |commands| Rate::of(commands, Duration::from_secs(1), Cpu::default());
        let latency = Latency { rate: 4_000, times: Latencies { count: 1, p50_ms: 7, p99_ms: 30, max_ms: 31 } };
        Contender { drain: rate(drain), live: rate(live), latency }
    }

    fn outcome() -> Outcome {
        Outcome {
            holdfast: contender(20_000, 15_000),
            baseline: contender(2_000, 1_000),
            ceiling: Rate::of(160_000, Duration::from_secs(2), Cpu::default()),
            report: Report::default(),
        }
    }

    #[test]
    fn ratios_are_of_the_same_mode() {
        assert_eq!(outcome().times_baseline(), (10.0, 15.0));
        assert_eq!(outcome().of_ceiling(), (0.25, 0.1875));
    }

    #[test]
    fn table_and_json_say_the_same() {
        let table = outcome().table().to_string();
        for text in ["20,000/s", "15,000/s", "7 / 30 ms at 4,000/s", "80,000/s", "10.0x", "15.0x", "25%", "19%"] {
            assert!(table.contains(text), "{text} in\n{table}");
        }
        let json = outcome().json();
        assert_eq!(json["holdfast"]["drain"]["per_second"], 20_000.0);
        assert_eq!(json["times_baseline"]["live"], 15.0);
        assert_eq!(json["holdfast"]["latency"]["times"]["p99_ms"], 30);
    }

    #[test]
    fn the_worst_disturbed_measurement_counts() {
        let mut outcome = outcome();
        assert!(outcome.disturbance() < 1e-9);
        // 100 µs for each of 1,000 commands a second: a tenth of one core.
        outcome.baseline.live.cpu_us.others = 100.0;
        #[allow(clippy::cast_precision_loss)]
        let tenth = 0.1 / cores() as f64;
        assert!((outcome.disturbance() - tenth).abs() < 1e-9);
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        let groups = [(7, "7"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        assert!(groups.iter().all(|(number, text)| grouped(*number) == *text));
    }
}
