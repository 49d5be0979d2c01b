//! Lines over a pair of axes, as SVG; those of earlier results are faint, and in the same colours.
//!
//! Deliberately absent: points that an axis has no place for, such as zeros on a logarithmic one.

use plotters::{
    prelude::{Circle, Color as _},
    series::LineSeries,
    style::ShapeStyle,
};

use super::drawing::{FAINT, Failed, Scale, colour, is_drawn, svg};
use crate::findings::{Line, Plot};

const HEIGHT: u32 = 340;
/// Room for labels on the left.
const LEFT: u32 = 74;
/// A plot whose lines have no more points than this has each of them marked.
const MARKED_MAX: usize = 12;

/// The plot with `earlier` ones of the same title; none if there is nothing to be drawn. A line's colour is
/// the place of its name among `names`, so that one design has one colour in all plots.
pub(super) fn draw(plot: &Plot, earlier: &[&Plot], names: &[&str]) -> Result<Option<String>, Failed> {
    let colour = |line: &Line| colour(names.iter().position(|name| *name == line.name).unwrap_or(0));
    let points = |line: &Line| -> Vec<(f64, f64)> {
        let is_drawn = |(x, y): &(f64, f64)| is_drawn(*x, &plot.x) && is_drawn(*y, &plot.y);
        line.points.iter().copied().filter(is_drawn).collect()
    };
    let mut drawn: Vec<(ShapeStyle, Vec<(f64, f64)>)> = Vec::new();
    for line in &plot.lines {
        let before = earlier.iter().flat_map(|plot| plot.lines.iter().filter(|other| other.name == line.name));
        drawn.extend(before.map(|line| (colour(line).mix(FAINT).stroke_width(2), points(line))));
    }
    for line in &plot.lines {
        drawn.push((colour(line).stroke_width(2), points(line)));
    }
    let xs = drawn.iter().flat_map(|(_, points)| points.iter().map(|(x, _)| *x));
    let ys = drawn.iter().flat_map(|(_, points)| points.iter().map(|(_, y)| *y));
    let (Some(x), Some(y)) = (Scale::of(&plot.x, xs), Scale::of(&plot.y, ys)) else { return Ok(None) };
    let is_marked = drawn.iter().all(|(_, points)| points.len() <= MARKED_MAX);
    let axes = ((x, plot.x.label.as_str()), (y, plot.y.label.as_str()));
    svg(HEIGHT, LEFT, axes.0, axes.1, |chart| {
        for (style, points) in drawn {
            if is_marked || points.len() == 1 {
                let marks = points.iter().map(|point| Circle::new(*point, 3, style.filled()));
                chart.draw_series(marks)?;
            }
            chart.draw_series(LineSeries::new(points, style))?;
        }
        Ok(())
    })
    .map(Some)
}
