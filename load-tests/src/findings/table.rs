//! Findings as a table for people.

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use super::Findings;

impl Findings {
    /// The figures, one a row, and what broke a promise.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let setup: Vec<String> = self.setup.iter().map(|(name, value)| format!("{name} {value}")).collect();
        table.set_header([self.scenario.clone(), setup.join(", "), String::new(), String::new()]);
        let mut before = "";
        for figure in &self.figures {
            let of = if figure.of == before { "" } else { &figure.of };
            before = &figure.of;
            table.add_row([of, &figure.name, &number(figure.value), &figure.unit]);
        }
        let verdict = if self.is_clean() { "none".to_owned() } else { self.breaches.len().to_string() };
        table.add_row(["broken promises", "", &verdict, ""]);
        if let Some(column) = table.column_mut(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

/// As many digits as say something.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        let left = whole.len() - place;
        if place > 0 && left.is_multiple_of(3) && digit.is_ascii_digit() && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    rest.map_or_else(|| grouped.clone(), |rest| format!("{grouped}.{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_digits_that_say_something() {
        let texts = [0.0456, 1.5, 12.34, 123.4, 12_345.6, -1_234.0, -123.0].map(number);
        assert_eq!(texts, ["0.05", "1.50", "12.3", "123", "12,346", "-1,234", "-123"]);
    }

    #[test]
    fn table_shows_figures_and_the_number_of_broken_promises() {
        let mut findings = Findings::of("poison", "?").set_up("commands", 10);
        findings.figure("clean", "rate", 9_000.0, "commands/s");
        findings.breaches.push("I7 lost: 1".into());
        let text = findings.table().to_string();
        assert!(text.contains("commands 10") && text.contains("9,000") && text.contains("broken promises"), "{text}");
    }
}
