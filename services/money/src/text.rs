//! Amounts as text: `12.34 EUR`, `-0.005 BHD`, `1234 JPY`.
//!
//! What is written is read back as the same amount. Reading takes fewer decimals than the currency has, never
//! more: nothing is rounded. Deliberately absent: thousands separators, symbols, locales.

use std::{fmt, str::FromStr};

use crate::{Currency, Error, Money};

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.minor < 0 { "-" } else { "" };
        let per_major = self.currency.minor_per_major().unsigned_abs();
        let (major, minor) = (self.minor.unsigned_abs() / per_major, self.minor.unsigned_abs() % per_major);
        match usize::from(self.currency.exponent()) {
            0 => write!(f, "{sign}{major} {}", self.currency),
            digits => write!(f, "{sign}{major}.{minor:0digits$} {}", self.currency),
        }
    }
}

impl Money {
    /// Reads a decimal number as major units of `currency`: `12.34`, `-5`, `12.3`.
    ///
    /// # Errors
    /// [`Error::InvalidAmount`] for anything else, and for more decimals than the currency has;
    /// [`Error::Overflow`].
    pub fn parse(amount: &str, currency: Currency) -> Result<Self, Error> {
        let (negative, digits) = match amount.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, amount),
        };
        let (major, decimals) = match digits.split_once('.') {
            Some((_, "")) => return Err(Error::InvalidAmount),
            Some(both) => both,
            None => (digits, ""),
        };
        let exponent = usize::from(currency.exponent());
        if major.is_empty() || decimals.len() > exponent {
            return Err(Error::InvalidAmount);
        }
        if !major.bytes().chain(decimals.bytes()).all(|digit| digit.is_ascii_digit()) {
            return Err(Error::InvalidAmount);
        }
        let missing = std::iter::repeat_n(b'0', exponent - decimals.len());
        // Counts on the side of the sign, for the most negative amount has no positive counterpart.
        let minor = major.bytes().chain(decimals.bytes()).chain(missing).try_fold(0_i64, |minor, digit| {
            let digit = i64::from(digit - b'0');
            minor.checked_mul(10)?.checked_add(if negative { -digit } else { digit })
        });
        minor.map(|minor| Self { minor, currency }).ok_or(Error::Overflow)
    }
}

impl FromStr for Money {
    type Err = Error;

    /// Reads what `Display` writes: a number, a space, a code.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (amount, code) = text.split_once(' ').ok_or(Error::InvalidAmount)?;
        Self::parse(amount, Currency::from_code(code)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_follows_the_exponent() {
        for text in [
            "12.34 EUR",
            "-0.05 EUR",
            "0.00 USD",
            "1234 JPY",
            "-7 JPY",
            "1.005 BHD",
            "0.0001 CLF",
            "-92233720368547758.08 EUR",
            "9223372036854775807 JPY",
        ] {
            assert_eq!(text.parse::<Money>().map(|money| money.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn fewer_decimals_are_filled_up() {
        assert_eq!(Money::parse("12.3", Currency::EUR), Ok(Money::new(1230, Currency::EUR)));
        assert_eq!(Money::parse("12", Currency::EUR), Ok(Money::new(1200, Currency::EUR)));
        assert_eq!(Money::parse("007", Currency::JPY), Ok(Money::new(7, Currency::JPY)));
    }

    #[test]
    fn what_is_no_amount_is_refused_and_nothing_is_rounded() {
        for amount in ["", "-", ".", ".5", "5.", "-.5", "1.234", "1,20", "1e3", "+1", " 1", "--1", "1.2.3", "٣", "NaN"]
        {
            assert_eq!(Money::parse(amount, Currency::EUR), Err(Error::InvalidAmount), "{amount:?}");
        }
        assert_eq!(Money::parse("1.0", Currency::JPY), Err(Error::InvalidAmount));
        assert_eq!(Money::parse("92233720368547758.08", Currency::EUR), Err(Error::Overflow));
        assert_eq!("12.34".parse::<Money>(), Err(Error::InvalidAmount));
        assert_eq!("12.34 ".parse::<Money>(), Err(Error::UnknownCurrency));
        assert_eq!("1 XAU".parse::<Money>(), Err(Error::NoMinorUnit));
    }
}
