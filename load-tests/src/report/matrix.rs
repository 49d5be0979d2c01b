//! Figures as rows and columns: a row is what was measured, a column is what it was measured of.
//!
//! Invariant: each figure is in one cell, and an earlier result's is beside it if it has the same names and
//! unit. Deliberately absent: how a cell is shown.

use crate::findings::{Figure, Findings};

/// The figures of one scenario.
pub(super) struct Matrix<'a> {
    /// What was measured, in the order of first figures.
    pub(super) columns: Vec<&'a str>,
    /// Likewise.
    pub(super) rows: Vec<Row<'a>>,
}

/// What was measured in one way.
pub(super) struct Row<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its unit.
    pub(super) unit: &'a str,
    /// One a column, where there is one.
    pub(super) cells: Vec<Option<Cell>>,
}

/// A value, and what it was in each of the earlier results.
pub(super) struct Cell {
    pub(super) value: f64,
    pub(super) earlier: Vec<Option<f64>>,
}

impl Row<'_> {
    /// The largest of its present values.
    pub(super) fn max(&self) -> f64 {
        self.cells.iter().flatten().map(|cell| cell.value).fold(0.0, f64::max)
    }
}

/// The value of the figure of these names and this unit.
pub(super) fn value(findings: &Findings, of: &str, name: &str, unit: &str) -> Option<f64> {
    let is_it = |figure: &&Figure| figure.of == of && figure.name == name && figure.unit == unit;
    findings.figures.iter().find(is_it).map(|figure| figure.value)
}

impl<'a> Matrix<'a> {
    /// The figures of `findings`, with those of `earlier`.
    pub(super) fn of(findings: &'a Findings, earlier: &[Option<&Findings>]) -> Self {
        let (mut columns, mut names): (Vec<&str>, Vec<(&str, &str)>) = (Vec::new(), Vec::new());
        for figure in &findings.figures {
            if !columns.contains(&&*figure.of) {
                columns.push(&figure.of);
            }
            if !names.contains(&(&*figure.name, &*figure.unit)) {
                names.push((&figure.name, &figure.unit));
            }
        }
        let cell = |of: &str, name: &str, unit: &str| {
            let earlier = earlier.iter().map(|findings| findings.and_then(|it| value(it, of, name, unit)));
            value(findings, of, name, unit).map(|value| Cell { value, earlier: earlier.collect() })
        };
        let row = |(name, unit)| Row { name, unit, cells: columns.iter().map(|of| cell(of, name, unit)).collect() };
        let rows = names.into_iter().map(row).collect();
        Self { columns, rows }
    }
}
