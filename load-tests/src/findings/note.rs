//! Noting what was found, as a scenario goes.
//!
//! Deliberately absent: measuring it.

use super::{Axis, Figure, Findings, Line, Plot};
use crate::checkers::Report;

impl Findings {
    /// Nothing found yet.
    pub fn of(scenario: &str, question: &str) -> Self {
        Self { scenario: scenario.to_owned(), question: question.to_owned(), ..Self::default() }
    }

    /// Notes how it is set up.
    #[must_use]
    pub fn set_up(mut self, name: &str, value: impl ToString) -> Self {
        self.setup.push((name.to_owned(), value.to_string()));
        self
    }

    /// Notes a value.
    pub fn figure(&mut self, of: &str, name: &str, value: f64, unit: &str) {
        self.figures.push(Figure { of: of.to_owned(), name: name.to_owned(), value, unit: unit.to_owned() });
    }

    /// Notes the median of what several rounds found.
    pub fn median<T>(&mut self, of: &str, name: &str, unit: &str, rounds: &[T], value: impl Fn(&T) -> f64) {
        self.figure(of, name, rounded(median(rounds.iter().map(value).collect()), 4), unit);
    }

    /// The value of a figure; not a number if there is none.
    pub fn value(&self, of: &str, name: &str) -> f64 {
        let found = self.figures.iter().find(|figure| figure.of == of && figure.name == name);
        found.map_or(f64::NAN, |figure| figure.value)
    }

    /// Notes how many times the figure `name` of `base` is that of each other thing that has one.
    pub fn ratios(&mut self, base: &str, name: &str) {
        let reference = self.value(base, name);
        let others = self.figures.iter().filter(|figure| figure.name == name && figure.of != base);
        let ratios: Vec<Figure> = others
            .map(|figure| Figure {
                of: figure.of.clone(),
                name: format!("{name}, of that of {base}"),
                value: rounded(figure.value / reference, 3),
                unit: "x".to_owned(),
            })
            .collect();
        self.figures.extend(ratios);
    }

    /// Notes curves over one pair of axes; `x` and `y` name them, with their units.
    pub fn plot(&mut self, title: &str, x: Axis, y: Axis, lines: Vec<Line>) {
        self.plots.push(Plot { title: title.to_owned(), x, y, lines });
    }

    /// Notes what an account found broken.
    pub fn breached(&mut self, report: &Report) {
        let of_report = report.violations().map(|(breach, found)| {
            let samples: Vec<String> =
                found.samples.iter().map(|sample| format!("{}: {}", sample.id, sample.what)).collect();
            format!("{} {}: {} ({})", breach.invariant(), breach.words(), found.count, samples.join("; "))
        });
        self.breaches.extend(of_report);
    }

    /// Whether no promise was found broken.
    pub const fn is_clean(&self) -> bool {
        self.breaches.is_empty()
    }
}

impl Axis {
    /// A linear axis.
    pub fn linear(label: &str) -> Self {
        Self { label: label.to_owned(), is_logarithmic: false }
    }

    /// A logarithmic one.
    pub fn logarithmic(label: &str) -> Self {
        Self { label: label.to_owned(), is_logarithmic: true }
    }
}

/// The middle one; of an even number, the mean of both; 0 of none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures[..] {
        [] => 0.0,
        _ if figures.len().is_multiple_of(2) => f64::midpoint(figures[middle - 1], figures[middle]),
        _ => figures[middle],
    }
}

/// A value with this number of digits behind its point.
pub fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::Breach;

    #[test]
    fn ratios_are_of_the_same_figure_of_the_base() {
        let mut findings = Findings::of("data", "?");
        for (of, value) in [("10", 4.0), ("100", 5.0)] {
            findings.figure(of, "WAL", value, "bytes");
            findings.figure(of, "CPU", 2.0 * value, "µs");
        }
        findings.ratios("10", "WAL");
        let last = findings.figures.last().cloned().expect("noted");
        assert_eq!((last.of.as_str(), last.name.as_str(), last.value), ("100", "WAL, of that of 10", 1.25));
        assert_eq!(findings.figures.len(), 5);
    }

    #[test]
    fn median_is_the_middle_one_or_between_the_two() {
        let medians = [vec![], vec![3.0], vec![9.0, 1.0], vec![5.0, 1.0, 2.0]].map(|all| median(all).to_string());
        assert_eq!(medians, ["0", "3", "5", "2"]);
    }

    #[test]
    fn median_is_the_middle_of_the_rounds() {
        let mut findings = Findings::default();
        findings.median("x", "odd", "ms", &[9.0, 1.0, 2.0], |value| *value);
        findings.median("x", "even", "ms", &[4.0, 1.0, 2.0, 9.0], |value| *value);
        assert_eq!((findings.value("x", "odd"), findings.value("x", "even")), (2.0, 3.0));
    }

    #[test]
    fn broken_promise_names_its_invariant_and_a_case() {
        let (mut findings, mut report) = (Findings::default(), Report::default());
        findings.breached(&report);
        assert!(findings.is_clean());
        report.breach(Breach::Lost, "x", "no trace");
        findings.breached(&report);
        assert_eq!(findings.breaches, ["I7 lost: 1 (x: no trace)"]);
    }
}
