//! The page: what a run found, scenario by scenario, beside what earlier runs found.
//!
//! Invariant: it needs nothing but itself: no script, no font, no image and no style from elsewhere. What
//! comes from findings is escaped, by maud or by the library that draws. Deliberately absent: looks, which
//! are in `style.css`.

use std::path::{Path, PathBuf};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    bars::Bars,
    drawing::{COLOURS, Failed},
    lines,
    matrix::{Cell, Matrix, Row},
    number::{change, short},
    results::{Entry, Error, Results},
};
use crate::findings::{Findings, Plot};

const STYLE: &str = include_str!("page/style.css");
const TITLE: &str = "Holdfast under load";

/// Writes a run's page and its JSON into `directory`; returns the page's path.
pub fn write(results: &Results, earlier: &[Results], directory: &Path) -> Result<PathBuf, Error> {
    let page = results.write(directory)?.with_file_name("index.html");
    std::fs::write(&page, html(results, earlier)).map_err(|source| Error::File { path: page.clone(), source })?;
    Ok(page)
}

/// The page of a run, beside earlier ones.
pub fn html(results: &Results, earlier: &[Results]) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (TITLE) ", " (results.name()) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (TITLE) }
                    p { (results.name()) br; (results.machine) }
                    (compared(results, earlier))
                }
                main {
                    (headline(results, earlier))
                    @for entry in &results.scenarios { (scenario(entry, earlier)) }
                }
                footer {
                    p {
                        "Everything ran on this one machine: load, Kafka, Postgres and what is measured. Ratios within a "
                        "run say more than rates and times, which change with what else the machine does. The method and its "
                        "limits are in load-tests/README.md; the same figures and curves are in results.json beside this page."
                    }
                }
            }
        }
    };
    page.into_string()
}

/// Which earlier runs stand beside this one, and what makes them hard to compare with.
fn compared(results: &Results, earlier: &[Results]) -> Markup {
    html! {
        @if !earlier.is_empty() {
            p { "Earlier results, in small print and in faint lines and bars:" }
            ol {
                @for run in earlier {
                    li {
                        (run.name())
                        @if run.machine != results.machine {
                            br; span class="warning" { "on another machine: " (run.machine) }
                        }
                        @if run.form != results.form {
                            br; span class="warning" { "in another form: the " (run.form) " one" }
                        }
                    }
                }
            }
        }
    }
}

fn headline(results: &Results, earlier: &[Results]) -> Markup {
    html! {
        div class="wide" {
            table class="headline" {
                thead { tr { th { "scenario" } th { "promises" } th { "headline" } th class="number" { "took" } } }
                tbody {
                    @for entry in &results.scenarios {
                        @let findings = &entry.findings;
                        tr {
                            th scope="row" { a href={ "#" (anchor(&findings.scenario)) } { (findings.scenario) } }
                            td { (state(entry)) }
                            td { (first(findings, &of(earlier, findings))) }
                            td class="number" { (short(entry.seconds)) " s" }
                        }
                    }
                }
            }
        }
    }
}

fn state(entry: &Entry) -> Markup {
    html! {
        @if entry.failure.is_some() { strong class="bad" { "failed" } }
        @else if entry.findings.breaches.is_empty() { span class="good" { "kept" } }
        @else { strong class="bad" { (entry.findings.breaches.len()) " broken" } }
    }
}

/// The figures with the first one's name.
fn first(findings: &Findings, earlier: &[Option<&Findings>]) -> Markup {
    let matrix = Matrix::of(findings, earlier);
    html! {
        @if let Some(row) = matrix.rows.first() {
            (row.name) ", " (row.unit)
            ul class="plain" {
                @for (of, cell) in matrix.columns.iter().zip(&row.cells) {
                    @if let Some(cell) = cell { li { (of) ": " b { (short(cell.value)) } (before(cell)) } }
                }
            }
        }
    }
}

fn scenario(entry: &Entry, earlier: &[Results]) -> Markup {
    let findings = &entry.findings;
    let of = of(earlier, findings);
    let found: Vec<&Findings> = of.iter().copied().flatten().collect();
    let names = names(findings);
    html! {
        section id=(anchor(&findings.scenario)) {
            h2 { (findings.scenario) }
            p { (findings.question) }
            @if let Some(failure) = &entry.failure { p class="bad" { strong { "It failed: " } (failure) } }
            @if !findings.breaches.is_empty() {
                div class="bad" {
                    strong { "Promises that were broken" }
                    ul { @for breach in &findings.breaches { li { (breach) } } }
                }
            }
            @if !findings.setup.is_empty() { (setup(findings, &found)) }
            @if !findings.figures.is_empty() { (figures(findings, &of)) }
            @for plot in &findings.plots { (lines_of(plot, &found, &names)) }
            @for bars in Bars::of(findings) { (bars_of(&bars, findings, &found)) }
        }
    }
}

/// How it was set up; an earlier run's other values are beside.
fn setup(findings: &Findings, earlier: &[&Findings]) -> Markup {
    let others = |name: &str, value: &str| -> Vec<&str> {
        let values = earlier.iter().flat_map(|it| it.setup.iter().filter(|(other, _)| other == name));
        values.map(|(_, other)| other.as_str()).filter(|other| *other != value).collect()
    };
    html! {
        dl {
            @for (name, value) in &findings.setup {
                dt { (name) }
                dd {
                    (value)
                    @for other in others(name, value) { " " small { "earlier: " (other) } }
                }
            }
        }
    }
}

fn figures(findings: &Findings, earlier: &[Option<&Findings>]) -> Markup {
    let matrix = Matrix::of(findings, earlier);
    html! {
        div class="wide" {
            table {
                thead {
                    tr { th { "" } @for column in &matrix.columns { th class="number" { (column) } } }
                }
                tbody { @for row in &matrix.rows { (figures_row(row)) } }
            }
        }
    }
}

fn figures_row(row: &Row<'_>) -> Markup {
    let max = row.max();
    let width = |cell: &Cell| (cell.value / max * 100.0).clamp(0.0, 100.0);
    html! {
        tr {
            th scope="row" { (row.name) ", " span class="unit" { (row.unit) } }
            @for cell in &row.cells {
                td class="number" {
                    @if let Some(cell) = cell {
                        (short(cell.value))
                        (before(cell))
                        @if max > 0.0 {
                            div class="bar" { div style={ "width:" (format!("{:.1}", width(cell))) "%" } {} }
                        }
                    }
                }
            }
        }
    }
}

/// What a figure was in each earlier run.
fn before(cell: &Cell) -> Markup {
    html! {
        @for (run, value) in (1..).zip(&cell.earlier) {
            " "
            small {
                @if cell.earlier.len() > 1 { (run) ": " } @else { "earlier " }
                @if let Some(value) = value {
                    (short(*value))
                    @if let Some(change) = change(cell.value, *value) { " (" (change) ")" }
                } @else { "–" }
            }
        }
    }
}

/// The names of all lines of a scenario.
fn names(findings: &Findings) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for line in findings.plots.iter().flat_map(|plot| &plot.lines) {
        if !names.contains(&&*line.name) {
            names.push(&line.name);
        }
    }
    names
}

fn lines_of(plot: &Plot, earlier: &[&Findings], names: &[&str]) -> Markup {
    let earlier: Vec<&Plot> =
        earlier.iter().flat_map(|it| it.plots.iter().filter(|other| other.title == plot.title)).collect();
    let shown = plot.lines.iter().map(|line| line.name.as_str());
    let legend: Vec<(usize, &str)> =
        shown.map(|name| (names.iter().position(|other| *other == name).unwrap_or(0), name)).collect();
    figure(&plot.title, &legend, lines::draw(plot, &earlier, names))
}

fn bars_of(bars: &Bars<'_>, findings: &Findings, earlier: &[&Findings]) -> Markup {
    let parts = bars.parts.iter().copied().enumerate().filter(|_| bars.parts.len() > 1);
    figure(&bars.title, &parts.collect::<Vec<_>>(), bars.draw(findings, earlier))
}

/// A plot with its title and its legend: the numbers of colours, and what has them.
fn figure(title: &str, legend: &[(usize, &str)], svg: Result<Option<String>, Failed>) -> Markup {
    html! {
        figure {
            figcaption { (title) }
            @match svg {
                Ok(Some(svg)) => div role="img" aria-label=(title) { (PreEscaped(svg)) },
                Ok(None) => p class="empty" { "There is nothing to draw." },
                Err(error) => p class="bad" { "It could not be drawn: " (error) },
            }
            @if !legend.is_empty() {
                ul class="legend" {
                    @for (index, name) in legend {
                        li { span class={ "swatch c" (index % COLOURS.len()) } {} (name) }
                    }
                }
            }
        }
    }
}

/// The same scenario of each earlier run.
fn of<'a>(earlier: &'a [Results], findings: &Findings) -> Vec<Option<&'a Findings>> {
    earlier.iter().map(|run| run.findings(&findings.scenario)).collect()
}

/// A name as the target of a link.
fn anchor(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

#[cfg(test)]
mod tests;
