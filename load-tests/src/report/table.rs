//! Findings as a table for a terminal.
//!
//! Deliberately absent: earlier results, and curves.

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use super::{matrix::Matrix, number::short};
use crate::findings::Findings;

/// All figures of a scenario: a row is what was measured.
pub fn table(findings: &Findings) -> Table {
    let matrix = Matrix::of(findings, &[]);
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([findings.scenario.as_str()].into_iter().chain(matrix.columns.iter().copied()));
    for row in &matrix.rows {
        let cells = row.cells.iter().map(|cell| cell.as_ref().map_or_else(String::new, |cell| short(cell.value)));
        table.add_row([format!("{}, {}", row.name, row.unit)].into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::Figure;

    #[test]
    fn table_has_each_figure_once() {
        let figure =
            |of: &str, name: &str, value| Figure { of: of.into(), name: name.into(), value, unit: "ms".into() };
        let figures = vec![figure("a", "p50", 1.25), figure("b", "p50", 12_345.0), figure("b", "p99", 77.0)];
        let shown = table(&Findings { scenario: "query".into(), figures, ..Findings::default() }).to_string();
        for text in ["query", "p50, ms", "1.25", "12,345", "p99, ms", "77"] {
            assert_eq!(shown.matches(text).count(), 1, "{text} in\n{shown}");
        }
    }
}
