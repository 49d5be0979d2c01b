//! What a scenario found, in one shape for all: figures, curves, and what broke a promise.
//!
//! Plain data. Scenarios fill it ([`note`]); tables ([`table`]), JSON and the page of `holdfast load all` are
//! made of it, and earlier results are read back from it. Invariant: a figure or curve is found again in an
//! earlier result by its names, so names stay as they are. Deliberately absent: how anything is drawn, and
//! any verdict on a time.

mod note;
mod table;

use serde::{Deserialize, Serialize};

pub use note::rounded;

/// What one scenario found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// The scenario, as on the command line: `pipeline`.
    pub scenario: String,
    /// What was asked, in a sentence or two.
    pub question: String,
    /// How it was set up: name and value, such as commands and rounds.
    pub setup: Vec<(String, String)>,
    /// Single values.
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
    /// What was measured: `drain, warm`.
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
