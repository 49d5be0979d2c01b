//! Figures named `whole: part` as bars: stacked in one plot if their units are the same, or a plot for each
//! part. What an earlier result had is a thinner, faint bar below.
//!
//! Deliberately absent: figures of other names; they are in the table alone.

use plotters::{
    prelude::{Color as _, Rectangle, Text},
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    drawing::{FAINT, Failed, Scale, colour, letters, svg},
    matrix::value,
    number::short,
};
use crate::findings::{Axis, Findings};

/// Bars over one axis.
pub(super) struct Bars<'a> {
    /// What they show.
    pub(super) title: String,
    /// The unit of all.
    unit: &'a str,
    /// The parts that they are made of; one if they are not stacked.
    pub(super) parts: Vec<&'a str>,
    /// The figures' names, by part.
    names: Vec<String>,
    /// What each bar is of.
    of: Vec<&'a str>,
}

/// Letters of a name that there is room for.
const NAME_MAX: usize = 30;
/// Room for names on the left.
const LEFT: u32 = 230;
/// Pixels of a bar with the space around it.
const BAR: u32 = 34;

impl<'a> Bars<'a> {
    /// All bars of a scenario, in the order of their figures.
    pub(super) fn of(findings: &'a Findings) -> Vec<Self> {
        let mut wholes: Vec<&str> = Vec::new();
        let whole = |name: &'a str| name.split_once(": ").map(|(whole, _)| whole);
        for figure in &findings.figures {
            if let Some(whole) = whole(&figure.name).filter(|whole| !wholes.contains(whole)) {
                wholes.push(whole);
            }
        }
        let mut all = Vec::new();
        for title in wholes {
            let mut parts: Vec<(&str, &str)> = Vec::new();
            for figure in findings.figures.iter().filter(|figure| whole(&figure.name) == Some(title)) {
                let part = (&figure.name[title.len() + 2..], figure.unit.as_str());
                if !parts.contains(&part) {
                    parts.push(part);
                }
            }
            let is_stacked = parts.iter().all(|(_, unit)| *unit == parts[0].1);
            let plots: Vec<Vec<(&str, &str)>> =
                if is_stacked { vec![parts] } else { parts.into_iter().map(|part| vec![part]).collect() };
            for parts in plots {
                let unit = parts[0].1;
                let names: Vec<String> = parts.iter().map(|(part, _)| format!("{title}: {part}")).collect();
                let mut of: Vec<&str> = Vec::new();
                for figure in findings.figures.iter().filter(|it| it.unit == unit && names.contains(&it.name)) {
                    if !of.contains(&&*figure.of) {
                        of.push(&figure.of);
                    }
                }
                let title = if let [name] = &names[..] { name.clone() } else { title.to_owned() };
                let parts = parts.into_iter().map(|(part, _)| part).collect();
                all.push(Self { title, unit, parts, names, of });
            }
        }
        all
    }

    /// Their SVG; none if nothing of them is more than 0.
    pub(super) fn draw(&self, findings: &Findings, earlier: &[&Findings]) -> Result<Option<String>, Failed> {
        let values = |from: &Findings, of: &str| -> Vec<f64> {
            self.names.iter().map(|name| value(from, of, name, self.unit).unwrap_or(0.0).max(0.0)).collect()
        };
        let present: Vec<Vec<f64>> = self.of.iter().map(|of| values(findings, of)).collect();
        let before: Vec<Vec<Vec<f64>>> =
            self.of.iter().map(|of| earlier.iter().map(|findings| values(findings, of)).collect()).collect();
        let max = present.iter().chain(before.iter().flatten()).map(|parts| parts.iter().sum()).fold(0.0, f64::max);
        let axis = Axis::linear(self.unit);
        // Room for the sum that stands at the end of the longest bar.
        let Some(x) = Scale::of(&axis, std::iter::once(max * 1.08)).filter(|_| max > 0.0) else { return Ok(None) };
        let rows = Scale::of_rows(self.of.iter().map(|of| shortened(of)).collect());
        let height = u32::try_from(self.of.len()).unwrap_or(1) * BAR + 58;
        svg(height, LEFT, (x, self.unit), (rows, ""), |chart| {
            for (row, (parts, before)) in (0_u32..).map(f64::from).zip(present.iter().zip(&before)) {
                let bottom = if before.is_empty() { 0.82 } else { 0.6 };
                chart.draw_series(bar(parts, row + 0.18, row + bottom, 1.0))?;
                let each = 0.3 / f64::from(u32::try_from(before.len()).unwrap_or(1).max(1));
                for (at, parts) in (0_u32..).map(f64::from).zip(before) {
                    let top = row + bottom + at * each;
                    chart.draw_series(bar(parts, top, top + each, FAINT))?;
                }
                let sum: f64 = parts.iter().sum();
                let style = letters().pos(Pos::new(HPos::Left, VPos::Center));
                let at = (sum + max * 0.008, row + f64::midpoint(0.18, bottom));
                chart.draw_series(std::iter::once(Text::new(short(sum), at, style)))?;
            }
            Ok(())
        })
        .map(Some)
    }
}

/// A bar of these parts, one after the other.
fn bar(parts: &[f64], top: f64, bottom: f64, opacity: f64) -> Vec<Rectangle<(f64, f64)>> {
    let mut from = 0.0;
    let mut drawn = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        drawn.push(Rectangle::new([(from, top), (from + part, bottom)], colour(index).mix(opacity).filled()));
        from += part;
    }
    drawn
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_MAX {
        return name.to_owned();
    }
    name.chars().take(NAME_MAX - 1).chain(['…']).collect()
}
