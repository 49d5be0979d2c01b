//! Conversion at a given rate.
//!
//! A rate is in major units, as rates are quoted (1 EUR = 1.0837 USD is 10837/10000); the exponents of both
//! currencies are taken into account here. Deliberately absent: where rates come from, and which one an order
//! is pinned to.

use crate::{
    Currency, Error, Money, Ratio,
    ratio::{div_half_even, gcd},
};

/// What one major unit of `from` is worth in major units of `to`. Positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FxRate {
    from: Currency,
    to: Currency,
    rate: Ratio,
}

impl FxRate {
    /// One `from` is `rate` of `to`.
    ///
    /// # Errors
    /// [`Error::InvalidRatio`] unless the rate is positive, and exactly one between a currency and itself.
    pub fn new(from: Currency, to: Currency, rate: Ratio) -> Result<Self, Error> {
        let one = rate.numerator() == 1 && rate.denominator() == 1;
        if rate.numerator() <= 0 || (from == to && !one) {
            return Err(Error::InvalidRatio);
        }
        Ok(Self { from, to, rate })
    }

    /// The currency converted from.
    pub const fn from(self) -> Currency {
        self.from
    }

    /// The currency converted to.
    pub const fn to(self) -> Currency {
        self.to
    }

    /// Major units of [`Self::to`] for one of [`Self::from`].
    pub const fn rate(self) -> Ratio {
        self.rate
    }

    /// `amount` in the other currency, rounded half-to-even once, at the end.
    ///
    /// # Errors
    /// [`Error::CurrencyMismatch`] if `amount` is not of [`Self::from`]; [`Error::Overflow`].
    pub fn convert(self, amount: Money) -> Result<Money, Error> {
        if amount.currency != self.from {
            return Err(Error::CurrencyMismatch { left: self.from, right: amount.currency });
        }
        let up = i128::from(self.rate.numerator()) * i128::from(self.to.minor_per_major());
        let down = i128::from(self.rate.denominator()) * i128::from(self.from.minor_per_major());
        let shared = i128::try_from(gcd(up.unsigned_abs(), down.unsigned_abs())).map_err(|_| Error::Overflow)?;
        let exact = i128::from(amount.minor).checked_mul(up / shared).ok_or(Error::Overflow)?;
        Money::from_wide(div_half_even(exact, down / shared), self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(from: Currency, to: Currency, numerator: i64, denominator: i64) -> FxRate {
        FxRate::new(from, to, Ratio::new(numerator, denominator).expect("positive denominator")).expect("positive rate")
    }

    #[test]
    fn exponents_of_both_currencies_count() {
        let bhd: Currency = "BHD".parse().expect("known");
        let cases = [
            (
                rate(Currency::EUR, Currency::USD, 10_837, 10_000),
                Money::new(100, Currency::EUR),
                Money::new(108, Currency::USD),
            ),
            (
                rate(Currency::USD, Currency::JPY, 1_552, 10),
                Money::new(1_00, Currency::USD),
                Money::new(155, Currency::JPY),
            ),
            (
                rate(Currency::JPY, Currency::USD, 10, 1_552),
                Money::new(1_552, Currency::JPY),
                Money::new(10_00, Currency::USD),
            ),
            (rate(Currency::USD, bhd, 376, 1_000), Money::new(1_00, Currency::USD), Money::new(376, bhd)),
            (rate(bhd, Currency::JPY, 412, 1), Money::new(-1_500, bhd), Money::new(-618, Currency::JPY)),
        ];
        for (rate, amount, converted) in cases {
            assert_eq!(rate.convert(amount), Ok(converted), "{amount}");
        }
    }

    #[test]
    fn a_rate_is_positive_and_one_within_a_currency() {
        for (to, numerator, denominator) in [(Currency::USD, 0, 1), (Currency::USD, -1, 1), (Currency::EUR, 2, 1)] {
            let ratio = Ratio::new(numerator, denominator).expect("positive denominator");
            assert_eq!(FxRate::new(Currency::EUR, to, ratio), Err(Error::InvalidRatio));
        }
        let same = rate(Currency::EUR, Currency::EUR, 7, 7);
        assert_eq!(same.convert(Money::new(i64::MIN, Currency::EUR)), Ok(Money::new(i64::MIN, Currency::EUR)));
    }

    #[test]
    fn another_currency_or_too_large_a_result_is_refused() {
        let to_yen = rate(Currency::EUR, Currency::JPY, i64::MAX, 1);
        assert_eq!(to_yen.convert(Money::new(i64::MAX, Currency::EUR)), Err(Error::Overflow));
        let mismatch = Err(Error::CurrencyMismatch { left: Currency::EUR, right: Currency::USD });
        assert_eq!(to_yen.convert(Money::zero(Currency::USD)), mismatch);
    }
}
