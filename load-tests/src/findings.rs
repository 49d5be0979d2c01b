//! What a scenario found, in one shape for all: figures, curves, and what broke a promise.
//!
//! Plain data. Scenarios fill it ([`note`]); tables, JSON and the page of `holdfast load all` are made of it,
//! and earlier results are read back from it. Invariant: a figure or curve is found again in an earlier
//! result by its names, so names stay as they are. Deliberately absent: how anything is drawn, and any
//! verdict on a time.
//!
//! Two conventions instead of more fields: the figures with the name of the first one are the scenario's
//! headline; and figures named `whole: part` are drawn as bars, stacked if their units are the same.

mod note;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub use note::{median, rounded};

/// What one scenario found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// The scenario, as on the command line: `pipeline`.
    pub scenario: String,
    /// What was asked, in a sentence or two.
    pub question: String,
    /// How it was set up: name and value, such as commands and rounds.
    pub setup: Vec<(String, String)>,
    /// Single values. Those with the name of the first one are the headline.
    pub figures: Vec<Figure>,
    /// What a plot is made of.
    pub plots: Vec<Plot>,
    /// Promises that were found broken; empty if everything is as it should be.
    pub breaches: Vec<String>,
}

/// A single value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is of: a design, a call, a size.
    pub of: String,
    /// What was measured: `drain, warm`; a part of something: `CPU per command: Kafka`.
    pub name: String,
    /// The value; the median if there were rounds.
    pub value: f64,
    /// `commands/s`, `ms`, `bytes`, `x` for a ratio.
    pub unit: String,
}

/// Lines over one pair of axes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// The horizontal axis, with its unit.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// In the order of the legend.
    pub lines: Vec<Line>,
}

/// An axis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// What and in which unit: `latency, ms`.
    pub label: String,
    /// Whether it is logarithmic. Values of 0 or less are not drawn then.
    pub is_logarithmic: bool,
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// x and y, by x.
    pub points: Vec<(f64, f64)>,
}

/// The largest x of a latency curve: beyond 99.99%, a single pause decides.
const SLOWER_MAX: f64 = 10_000.0;
/// Points of a latency curve in each tenfold of x.
const STEPS: i32 = 12;

/// An empty histogram of times in µs up to an hour, for [`Line::of_latency`].
pub fn times() -> Histogram<u64> {
    const HOUR_US: u64 = 60 * 60 * 1_000_000;
    Histogram::new_with_bounds(1, HOUR_US, 3).expect("the bounds are constants that fit")
}

/// The time, in ms to 1/100, that this part of `times` (in µs) did not exceed.
#[allow(clippy::cast_precision_loss)] // far below 2^52
pub fn ms_at(times: &Histogram<u64>, quantile: f64) -> f64 {
    (times.value_at_quantile(quantile) / 10) as f64 / 100.0
}

impl Plot {
    /// Latency curves, on axes that all scenarios share; the lines are made by [`Line::of_latency`].
    pub fn of_latency(title: impl Into<String>, lines: Vec<Line>) -> Self {
        let x = Axis::logarithmic("one in this many is slower (10: p90, 100: p99, 1,000: p99.9)");
        Self { title: title.into(), x, y: Axis::logarithmic("latency, ms"), lines }
    }
}

impl Line {
    /// The latency curve of times in µs: y is the time in ms that one in x exceeds.
    pub fn of_latency(name: impl Into<String>, times: &Histogram<u64>) -> Self {
        #[allow(clippy::cast_precision_loss)] // counts and µs are far below 2^52
        let (count, ms) = (times.len() as f64, |us: u64| us as f64 / 1_000.0);
        let slower = (0..).map(|step| 10_f64.powf(f64::from(step) / f64::from(STEPS)));
        let points = slower
            .take_while(|x| *x <= count.min(SLOWER_MAX * 1.000_001))
            .map(|x| (x, ms(times.value_at_quantile(1.0 - 1.0 / x))));
        Self { name: name.into(), points: points.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_curve_ends_where_one_is_slower() {
        let mut times = Histogram::new(3).expect("3 digits");
        assert_eq!(Line::of_latency("none", &times).points, []);
        (1..=1_000).for_each(|ms| times.record(ms * 1_000).expect("in range"));
        let points = Line::of_latency("some", &times).points;
        assert_eq!(points.len(), 37);
        let at = |x: f64| points.iter().find(|point| (point.0 / x - 1.0).abs() < 1e-9).expect("a point").1;
        for (x, ms) in [(1.0, 1.0), (10.0, 900.0), (100.0, 990.0), (1_000.0, 999.0)] {
            assert!((at(x) / ms - 1.0).abs() < 0.002, "{x}: {} instead of {ms}", at(x));
        }
    }
}
