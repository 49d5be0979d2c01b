//! Amounts as Stripe counts them, which is mostly but not always by ISO 4217.
//!
//! Invariant: an amount becomes exactly the same amount, or none: nothing is rounded. Deliberately absent:
//! the least and the most that Stripe takes in each currency, and which currencies an account may take;
//! Stripe says so by a decline.

use holdfast_money::{Currency, Money};

/// The currency is not one that Stripe counts in a way we know.
pub const CURRENCY_NOT_SUPPORTED: &str = "CURRENCY_NOT_SUPPORTED";
/// The amount has more decimals than Stripe takes for its currency.
pub const AMOUNT_NOT_REPRESENTABLE: &str = "AMOUNT_NOT_REPRESENTABLE";
/// The amount is more than Stripe can take in any currency.
pub const AMOUNT_TOO_LARGE: &str = "AMOUNT_TOO_LARGE";
/// There is nothing to move.
pub const AMOUNT_NOT_POSITIVE: &str = "AMOUNT_NOT_POSITIVE";

/// No amount of Stripe's has more digits than twelve.
const UNITS_MAX: i64 = 999_999_999_999;

/// How Stripe counts a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    /// Decimals of a unit.
    decimals: u32,
    /// Amounts are multiples of this number of Stripe's units.
    step: i64,
}

/// `None` for what Stripe does not take, or is said to count in two ways: for the Ugandan shilling its
/// documents say both 0 and 2 decimals at different times, and a guess would be wrong by a factor of a
/// hundred.
fn counted(currency: Currency) -> Option<Counted> {
    let (decimals, step) = match currency.code() {
        // No decimals, whatever ISO 4217 says of the ariary.
        "BIF" | "CLP" | "DJF" | "GNF" | "JPY" | "KMF" | "KRW" | "MGA" | "PYG" | "RWF" | "VND" | "VUV" | "XAF"
        | "XOF" | "XPF" => (0, 1),
        // The last digit must be 0.
        "BHD" | "JOD" | "KWD" | "OMR" | "TND" => (3, 10),
        // Without decimals since 2023, but still counted with two.
        "ISK" => (2, 100),
        "UGX" => return None,
        _ if currency.exponent() == 2 => (2, 1),
        _ => return None,
    };
    Some(Counted { decimals, step })
}

/// The amount in Stripe's units.
///
/// # Errors
/// Why Stripe can't take it, in `UPPER_SNAKE_CASE`.
pub fn to_stripe(amount: Money) -> Result<i64, &'static str> {
    let Counted { decimals, step } = counted(amount.currency).ok_or(CURRENCY_NOT_SUPPORTED)?;
    if amount.minor <= 0 {
        return Err(AMOUNT_NOT_POSITIVE);
    }
    let wide = i128::from(amount.minor) * 10_i128.pow(decimals);
    let per_major = i128::from(amount.currency.minor_per_major());
    if wide % per_major != 0 || wide / per_major % i128::from(step) != 0 {
        return Err(AMOUNT_NOT_REPRESENTABLE);
    }
    let units = i64::try_from(wide / per_major).map_err(|_| AMOUNT_TOO_LARGE)?;
    if units <= UNITS_MAX { Ok(units) } else { Err(AMOUNT_TOO_LARGE) }
}

/// What Stripe's units of a currency, by its code in lower case, amount to; `None` if that is no amount that
/// we know how to count.
pub fn from_stripe(units: i64, code: &str) -> Option<Money> {
    let currency = currency(code)?;
    let wide = i128::from(units) * i128::from(currency.minor_per_major());
    let scale = 10_i128.pow(counted(currency)?.decimals);
    (wide % scale == 0).then(|| i64::try_from(wide / scale).ok()).flatten().map(|minor| Money::new(minor, currency))
}

/// The currency of a code in lower case.
pub(crate) fn currency(code: &str) -> Option<Currency> {
    Currency::from_code(&code.to_ascii_uppercase()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(minor: i64, code: &str) -> Result<i64, &'static str> {
        to_stripe(Money::new(minor, code.parse().unwrap()))
    }

    #[test]
    fn an_amount_is_counted_as_stripe_counts_it() {
        for (minor, code, expected) in [
            (10_00, "EUR", 10_00),
            (500, "JPY", 500),
            (5_120, "KWD", 5_120),
            (1_000, "BHD", 1_000),
            (5, "ISK", 500),
            (1_200, "MGA", 12),
            (10_45, "HUF", 10_45),
        ] {
            assert_eq!(units(minor, code), Ok(expected), "{code}");
            let back = from_stripe(expected, &code.to_ascii_lowercase());
            assert_eq!(back, Some(Money::new(minor, code.parse().unwrap())), "{code}");
        }
    }

    #[test]
    fn what_stripe_cannot_take_has_a_name_and_is_never_rounded() {
        for (minor, code, expected) in [
            (5_124, "KWD", AMOUNT_NOT_REPRESENTABLE),
            (1, "BHD", AMOUNT_NOT_REPRESENTABLE),
            (1_250, "MGA", AMOUNT_NOT_REPRESENTABLE),
            (1, "UGX", CURRENCY_NOT_SUPPORTED),
            (1, "CLF", CURRENCY_NOT_SUPPORTED),
            (1, "IQD", CURRENCY_NOT_SUPPORTED),
            (0, "EUR", AMOUNT_NOT_POSITIVE),
            (-1, "EUR", AMOUNT_NOT_POSITIVE),
            (i64::MIN, "JPY", AMOUNT_NOT_POSITIVE),
            (i64::MAX, "EUR", AMOUNT_TOO_LARGE),
            (i64::MAX, "ISK", AMOUNT_TOO_LARGE),
            (i64::MAX, "JPY", AMOUNT_TOO_LARGE),
            (1_000_000_000_000, "EUR", AMOUNT_TOO_LARGE),
        ] {
            assert_eq!(units(minor, code), Err(expected), "{minor} {code}");
        }
    }

    #[test]
    fn every_currency_comes_back_as_it_went_or_does_not_go() {
        for currency in Currency::all() {
            for minor in [1, 10, 100, 12_340, 999_999_900] {
                let amount = Money::new(minor, currency);
                if let Ok(units) = to_stripe(amount) {
                    assert_eq!(from_stripe(units, &currency.code().to_ascii_lowercase()), Some(amount));
                }
            }
        }
    }
}
