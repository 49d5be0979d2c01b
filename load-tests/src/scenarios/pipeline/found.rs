//! The benchmark's outcome as findings: medians of the rounds, and curves.
//!
//! Invariant: names are the same from run to run, as results are compared by them. Deliberately absent: what
//! is measured; that is in [`Outcome`].

use super::{
    QUESTION,
    curves::{Curves, Steps, between},
    designs::Design,
    outcome::{Contender, Outcome, Tally, Turn},
    stages::Stage,
};
use crate::{
    findings::{Axis, Findings, Line, Plot, median},
    report::number::grouped,
    scenarios::{cpu::Cpu, database::Database},
};

/// Steps of the plots over time, ms: the short one if the quickest design is done soon.
const WIDTHS_MS: [u32; 2] = [100, 250];
/// Soon, in seconds.
const SOON: f64 = 5.0;

/// One figure of what was measured.
type Of<T> = fn(&T) -> f64;

impl Outcome {
    /// The findings.
    pub fn findings(&self) -> Findings {
        let mut setup = self.setup.clone();
        if let Some(settings) = self.streams {
            setup.push((
                "Kafka Streams".into(),
                format!("{settings}, the best of those tried; for latency, {}", settings.prompt()),
            ));
        }
        let others = format!("{:.0}%", self.disturbance() * 100.0);
        setup.push(("CPU taken by other processes, at most".into(), others));
        let mut findings = Findings { setup, plots: self.plots(), ..Findings::of("pipeline", QUESTION) };
        self.figures(&mut findings);
        self.stage_figures(&mut findings);
        self.breaches(&mut findings);
        findings
    }

    fn figures(&self, findings: &mut Findings) {
        let mut each = |name: &str, unit: &str, of: &dyn Fn(&Contender) -> Option<f64>| {
            for contender in &self.contenders {
                if let Some(value) = of(contender) {
                    findings.figure(contender.name, name, value, unit);
                }
            }
        };
        let rates: [(&str, Of<Turn>); 3] = [
            ("drain, warm", |turn| turn.warm.per_second),
            ("drain, cold", |turn| turn.cold.per_second),
            ("live", |turn| turn.live.per_second),
        ];
        for (name, of) in rates {
            each(name, "commands/s", &|contender| Some(contender.median(of)));
        }
        let mut at: Vec<u32> = self.contenders.iter().flat_map(Contender::latencies).map(|it| it.rate).collect();
        at.sort_unstable();
        at.dedup();
        for rate in at {
            let one = |contender: &Contender| contender.latencies().into_iter().find(|it| it.rate == rate);
            let rate = grouped(rate.into());
            each(&format!("latency at {rate}/s, p50"), "ms", &|contender| Some(one(contender)?.p50_ms));
            each(&format!("latency at {rate}/s, p99"), "ms", &|contender| Some(one(contender)?.p99_ms));
        }
        let parts: [(&str, Of<Cpu>); 4] = [
            ("CPU per command, warm: design", |cpu| cpu.design),
            ("CPU per command, warm: Kafka", |cpu| cpu.kafka),
            ("CPU per command, warm: Postgres", |cpu| cpu.postgres),
            ("CPU per command, warm: counter", |cpu| cpu.counter),
        ];
        for (name, of) in parts {
            each(name, "µs", &|contender| Some(contender.median(|turn| of(&turn.warm.cpu_us))));
        }
        let counted: [(&str, &str, Of<Database>); 5] = [
            ("Postgres per command: WAL", "bytes", |counted| counted.wal_bytes),
            ("Postgres per command: rows written", "rows", |counted| counted.rows),
            ("Postgres per command: stored orders read", "rows", |counted| counted.aggregates_read),
            ("Postgres per command: transactions", "transactions", |counted| counted.transactions),
            ("Postgres per command: WAL made durable", "times", |counted| counted.wal_syncs),
        ];
        for (name, unit, of) in counted {
            each(name, unit, &|contender| {
                let is_counted = contender.turns.iter().all(|turn| turn.database.is_some());
                is_counted.then(|| contender.median(|turn| turn.database.as_ref().map_or(0.0, of)))
            });
        }
        for (of, [cold, warm, live]) in self.ratios() {
            for (name, value) in [("warm", warm), ("cold", cold), ("live", live)] {
                findings.figure(of, &format!("holdfast's rate by this one's, {name}"), value, "x");
            }
        }
        if !self.ceiling.is_empty() {
            let rate = median(self.ceiling.iter().map(|rate| rate.per_second).collect());
            findings.figure("bare group commit", "commits in a loop, Postgres alone", rate, "commands/s");
        }
    }

    /// Where the latency of the first design, Holdfast, goes.
    fn stage_figures(&self, findings: &mut Findings) {
        let Some(holdfast) = self.contenders.first() else { return };
        for (at, latency) in holdfast.latencies().iter().enumerate() {
            let of = format!("{} at {}/s", holdfast.name, grouped(latency.rate.into()));
            for Stage { name, p50_ms, p99_ms } in holdfast.stages(at) {
                findings.figure(&of, &format!("latency by stage, p50: {name}"), p50_ms, "ms");
                findings.figure(&of, &format!("latency by stage, p99: {name}"), p99_ms, "ms");
            }
        }
    }

    fn plots(&self) -> Vec<Plot> {
        let mut plots = vec![
            self.over_time(
                "Events a second while two loads are drained, the first cold, the second warm; without the echo",
                |it| &it.drain,
            ),
            self.over_time("Events a second while the producer runs on the same cores; without the echo", |it| {
                &it.live
            }),
        ];
        // A design that is slower than all rates has one of its own, and is in the plot of the first.
        let most = self.contenders.iter().map(|it| it.latencies().len()).max().unwrap_or(0);
        for at in 0..most {
            let mut rate = None;
            let (mut lines, mut others) = (Vec::new(), String::new());
            for contender in &self.contenders {
                let Some(latency) = contender.latencies().get(at).copied() else { continue };
                if *rate.get_or_insert(latency.rate) != latency.rate {
                    others = format!("{others}, {} at {}/s", contender.name, grouped(latency.rate.into()));
                }
                let curves = contender.turns.iter().filter_map(|turn| turn.curves.latencies.get(at));
                let curves: Vec<&[(f64, f64)]> = curves.map(Vec::as_slice).collect();
                lines.push(Line { name: contender.name.into(), points: between(&curves, median) });
            }
            let rate = grouped(rate.unwrap_or(0).into());
            let title =
                format!("Latency at {rate} commands/s{others}; from the broker's append to the reading of the event");
            plots.push(Plot::of_latency(title, lines));
        }
        plots
    }

    /// What the round in the middle, by its warm rate, looked like. Without the echo, which does nothing and
    /// would leave the others a strip at the bottom.
    fn over_time(&self, title: &str, of: fn(&Curves) -> &Steps) -> Plot {
        let of_design = |contender: &Contender| -> Steps {
            let mut turns: Vec<&Turn> = contender.turns.iter().collect();
            turns.sort_by(|a, b| a.warm.per_second.total_cmp(&b.warm.per_second));
            turns.get(turns.len().saturating_sub(1) / 2).map(|turn| of(&turn.curves).clone()).unwrap_or_default()
        };
        let shown = self.contenders.iter().filter(|contender| contender.name != Design::Echo.name());
        let all: Vec<(&str, Steps)> = shown.map(|it| (it.name, of_design(it))).collect();
        let quickest = all.iter().map(|(_, steps)| steps.seconds()).fold(f64::INFINITY, f64::min);
        let width = WIDTHS_MS[usize::from(quickest > SOON)];
        let lines = all.into_iter().map(|(name, steps)| Line { name: name.into(), points: steps.rates(width) });
        Plot {
            title: title.into(),
            x: Axis::linear("seconds since the first event"),
            y: Axis::linear(&format!("events a second, in steps of {width} ms")),
            lines: lines.collect(),
        }
    }

    fn breaches(&self, findings: &mut Findings) {
        findings.breached(&self.report);
        for (round, turn) in (1..).zip(self.promised()) {
            let Tally { commands, missing, repeated, foreign } = turn.tally;
            if (missing, repeated, foreign) != (0, 0, 0) {
                findings.breaches.push(format!(
                    "round {round}, {commands} commands: {missing} without an event, {repeated} events beyond the first, \
                     {foreign} events of commands that were not sent"
                ));
            }
        }
    }
}
