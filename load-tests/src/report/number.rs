//! Numbers as people read them.
//!
//! Deliberately absent: units, which stand beside them.

/// With a comma after each three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let parts: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|part| std::str::from_utf8(part).ok()).collect();
    parts.join(",")
}

/// With three digits that matter, or all of those before the point: `12,345`, `345`, `34.5`, `3.45`,
/// `0.0345`.
pub fn short(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    let sign = if value < 0.0 { "-" } else { "" };
    if size >= 1e15 {
        return format!("{value:.2e}");
    }
    if size >= 99.95 {
        // Below 2^53, and not negative.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let whole = size.round() as u64;
        return format!("{sign}{}", grouped(whole));
    }
    // Digits after the point, so that three matter; no more than six are shown.
    let decimals = (0..6).find(|decimals| size * 10_f64.powi(*decimals) >= 99.95).unwrap_or(6);
    let text = format!("{size:.*}", usize::try_from(decimals).unwrap_or(0));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "0" { "0".to_owned() } else { format!("{sign}{text}") }
}

/// How much `value` is above or below `earlier`, in percent; nothing if that can't be said.
pub fn change(value: f64, earlier: f64) -> Option<String> {
    let percent = (value / earlier - 1.0) * 100.0;
    let is_known = percent.is_finite() && earlier > 0.0;
    // Neither `+0%` nor `-0%`.
    is_known.then(|| if percent.abs() < 0.5 { "0%".to_owned() } else { format!("{percent:+.0}%") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        let groups = [(7, "7"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        assert!(groups.iter().all(|(number, text)| grouped(*number) == *text));
    }

    #[test]
    fn three_digits_matter() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (12_345.6, "12,346"),
            (345.6, "346"),
            (99.96, "100"),
            (34.56, "34.6"),
            (3.0, "3"),
            (3.456, "3.46"),
            (0.012_345, "0.0123"),
            (0.000_000_1, "0"),
            (-2.5, "-2.5"),
            (f64::NAN, "–"),
            (1e18, "1.00e18"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text, "{value}");
        }
    }

    #[test]
    fn change_of_nothing_is_not_said() {
        assert_eq!(change(110.0, 100.0).as_deref(), Some("+10%"));
        assert_eq!(change(50.0, 100.0).as_deref(), Some("-50%"));
        assert_eq!(change(99.9, 100.0).as_deref(), Some("0%"));
        assert_eq!((change(1.0, 0.0), change(f64::NAN, 1.0)), (None, None));
    }
}
