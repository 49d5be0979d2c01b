//! What all plots share: axes, colours, and an SVG of the library's making.
//!
//! Colours are tokens that the page's style gives others in the dark; a colour here is the light one.
//! Invariant: no range is empty or infinite, so nothing that was measured makes a plot fail. Deliberately
//! absent: legends, which the page puts below a plot, where they cover no line.

use std::ops::Range;

use plotters::{
    coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    prelude::{
        ChartBuilder, Color as _, DrawingArea, IntoDrawingArea as _, IntoFont as _, RGBColor, SVGBackend, TextStyle,
    },
};

use super::number::short;
use crate::findings::Axis;

/// Colours of lines and parts, in the order of the legend; `style.css` knows them as `--c0` and so on.
pub(super) const COLOURS: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x8F, 0x68),
    RGBColor(0x8B, 0x5F, 0xBF),
    RGBColor(0xB0, 0x82, 0x00),
    RGBColor(0x0F, 0x8F, 0xA3),
    RGBColor(0x8C, 0x56, 0x4B),
    RGBColor(0x6B, 0x72, 0x80),
];
/// Text.
const INK: RGBColor = RGBColor(0x11, 0x11, 0x11);
/// Axes.
const AXIS: RGBColor = RGBColor(0x88, 0x88, 0x88);
/// Lines across the plot.
const GRID: RGBColor = RGBColor(0xDD, 0xDD, 0xDD);
/// How much of the colour an earlier result has.
pub(super) const FAINT: f64 = 0.35;
const WIDTH: u32 = 860;
/// Labels are these times a power of ten.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];
/// The size of letters; the library draws them a fifth smaller.
const LETTERS: f64 = 15.0;

/// The colour of the line or part at `index`.
pub(super) fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// The style of text.
pub(super) fn letters() -> TextStyle<'static> {
    ("sans-serif", LETTERS).into_font().color(&INK)
}

/// The values of one axis.
pub(super) struct Scale {
    range: Range<f64>,
    is_logarithmic: bool,
    /// What stands beside the middle of each whole number instead of a number; the first is at the top.
    names: Vec<String>,
}

impl Scale {
    /// An axis that has room for `values`; none of 0 or less, if it is logarithmic.
    pub(super) fn of(axis: &Axis, values: impl Iterator<Item = f64>) -> Option<Self> {
        let values = values.filter(|value| is_drawn(*value, axis));
        let (min, max) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), it| (it.min(min), it.max(max)));
        if min > max {
            return None;
        }
        let range = if axis.is_logarithmic {
            let (low, high) = (rounded_down(min).max(f64::MIN_POSITIVE), rounded_up(max));
            low..high.max(low * 10.0)
        } else {
            let (min, max) = (min.min(0.0), max.max(0.0));
            let room = if max > min { (max - min) * 0.04 } else { 1.0 };
            (if min < 0.0 { min - room } else { min })..(max + room)
        };
        Some(Self { range, is_logarithmic: axis.is_logarithmic, names: Vec::new() })
    }

    /// An axis with a name at the middle of each row, from the top.
    #[allow(clippy::cast_precision_loss)] // a number of bars
    pub(super) fn of_rows(names: Vec<String>) -> Self {
        Self { range: 0.0..names.len() as f64, is_logarithmic: false, names }
    }
}

/// Whether an axis has a place for `value`.
pub(super) fn is_drawn(value: f64, axis: &Axis) -> bool {
    value.is_finite() && (value > 0.0 || !axis.is_logarithmic)
}

/// The smallest of 1, 2, 5, 10, 20 and so on that is not less.
fn rounded_up(value: f64) -> f64 {
    let ten = 10_f64.powf(value.log10().floor());
    STEPS.into_iter().map(|step| step * ten).find(|step| *step >= value).unwrap_or(ten * 10.0)
}

/// The largest of them that is not more.
fn rounded_down(value: f64) -> f64 {
    let ten = 10_f64.powf(value.log10().floor());
    STEPS.into_iter().rev().map(|step| step * ten).find(|step| *step <= value).unwrap_or(ten)
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let on_line = |value: f64| if self.is_logarithmic { value.ln() } else { value };
        let (start, end) = (on_line(self.range.start), on_line(self.range.end));
        let mut part = ((on_line(*value) - start) / (end - start)).clamp(0.0, 1.0);
        if !self.names.is_empty() {
            part = 1.0 - part;
        }
        // Pixels.
        #[allow(clippy::cast_possible_truncation)]
        let pixels = (part * f64::from(to - from)).round() as i32;
        from + pixels
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let Range { start, end } = self.range.clone();
        let most = hint.max_num_points().max(2);
        if !self.names.is_empty() {
            #[allow(clippy::cast_precision_loss)] // a number of bars
            return (0..self.names.len()).map(|row| row as f64 + 0.5).collect();
        }
        if self.is_logarithmic {
            let ten = 10_f64.powf(start.log10().floor());
            let is_within = |value: &f64| *value >= start * 0.999_999 && *value <= end * 1.000_001;
            let tens = (0..40).map(|at| ten * 10_f64.powi(at)).take_while(|value| *value <= end * 1.000_001);
            let fine: Vec<f64> = tens.clone().flat_map(|ten| STEPS.map(|step| step * ten)).filter(is_within).collect();
            let tens: Vec<f64> = tens.filter(is_within).collect();
            return if fine.len() <= most { fine } else { tens };
        }
        #[allow(clippy::cast_precision_loss)] // a number of labels
        let step = rounded_up((end - start) / most as f64);
        let first = (start / step).ceil();
        (0..=100_u8).map(|at| (first + f64::from(at)) * step).take_while(|value| *value <= end).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, value: &f64) -> String {
        if self.names.is_empty() {
            return short(*value);
        }
        // Rows are few, and not negative.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let row = value.max(0.0) as usize;
        self.names.get(row).cloned().unwrap_or_default()
    }
}

/// A pair of axes to draw on.
pub(super) type Chart<'a, 'b> =
    plotters::chart::ChartContext<'a, SVGBackend<'b>, plotters::coord::cartesian::Cartesian2d<Scale, Scale>>;
/// Why a plot could not be drawn; into memory, that does not happen.
pub(super) type Failed = plotters::drawing::DrawingAreaErrorKind<std::io::Error>;

/// An SVG of this height with axes on which `draw` draws.
pub(super) fn svg(
    height: u32,
    left: u32,
    (x, x_label): (Scale, &str),
    (y, y_label): (Scale, &str),
    draw: impl FnOnce(&mut Chart<'_, '_>) -> Result<(), Failed>,
) -> Result<String, Failed> {
    let mut text = String::new();
    {
        let area: DrawingArea<_, _> = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin_top(12)
            .margin_right(24)
            .x_label_area_size(if x_label.is_empty() { 24 } else { 46 })
            .y_label_area_size(left)
            .build_cartesian_2d(x, y)?;
        let has_rows = y_label.is_empty();
        let mut mesh = chart.configure_mesh();
        if has_rows {
            mesh.disable_y_mesh();
        }
        mesh.x_labels(9)
            .y_labels(if has_rows { 99 } else { 7 })
            .x_desc(x_label)
            .y_desc(y_label)
            .axis_style(AXIS)
            .bold_line_style(GRID)
            .max_light_lines(0)
            .light_line_style(GRID.mix(0.0))
            .label_style(letters())
            .axis_desc_style(letters())
            .draw()?;
        draw(&mut chart)?;
        area.present()?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use plotters::coord::ranged1d::BoldPoints;

    use super::*;

    fn axis(is_logarithmic: bool) -> Axis {
        Axis { label: "a".into(), is_logarithmic }
    }

    #[test]
    fn range_is_never_empty() {
        for is_logarithmic in [false, true] {
            for values in [vec![1.0], vec![0.5, 0.5], vec![1e-300], vec![3.0, 1e300], vec![f64::NAN, 1.0]] {
                let scale = Scale::of(&axis(is_logarithmic), values.iter().copied()).expect("drawn");
                assert!(scale.range.start < scale.range.end, "{values:?}: {:?}", scale.range);
                assert!(!scale.key_points(BoldPoints(8)).is_empty(), "{values:?}: {:?}", scale.range);
            }
            assert!(Scale::of(&axis(is_logarithmic), std::iter::empty()).is_none());
        }
        assert!(Scale::of(&axis(true), [0.0, -1.0].into_iter()).is_none());
        assert!(Scale::of(&axis(false), std::iter::once(0.0)).is_some());
    }

    #[test]
    fn labels_are_round_numbers() {
        let at = |is_logarithmic, values: [f64; 2], most| {
            let scale = Scale::of(&axis(is_logarithmic), values.into_iter()).expect("drawn");
            let points = scale.key_points(BoldPoints(most));
            points.iter().map(|value| scale.format_ext(value)).collect::<Vec<_>>()
        };
        assert_eq!(at(false, [3.0, 47.0], 8), ["0", "10", "20", "30", "40"]);
        assert_eq!(at(true, [2.5, 40.0], 8), ["2", "5", "10", "20", "50"]);
        assert_eq!(at(true, [3.0, 3.0], 8), ["2", "5", "10", "20"]);
        assert_eq!(at(true, [1.0, 10_000.0], 8), ["1", "10", "100", "1,000", "10,000"]);
    }

    #[test]
    fn first_row_is_at_the_top() {
        let rows = Scale::of_rows(vec!["a".into(), "b".into()]);
        let points = rows.key_points(BoldPoints(9));
        assert_eq!(points.iter().map(|row| rows.format_ext(row)).collect::<Vec<_>>(), ["a", "b"]);
        // The vertical axis runs from the bottom to the top.
        assert_eq!(points.iter().map(|row| rows.map(row, (100, 0))).collect::<Vec<_>>(), [25, 75]);
    }
}
