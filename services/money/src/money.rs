//! An amount, and the arithmetic that never rounds.

use crate::{Currency, Error};

/// An exact amount of one currency. Any value is valid, negative ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    /// In the currency's smallest unit: cents for EUR, yen for JPY.
    pub minor: i64,
    /// Of which currency.
    pub currency: Currency,
}

impl Money {
    /// `minor` smallest units of `currency`.
    pub const fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// Nothing, in `currency`.
    pub const fn zero(currency: Currency) -> Self {
        Self::new(0, currency)
    }

    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.minor == 0
    }

    /// Whether it is less than nothing.
    pub const fn is_negative(self) -> bool {
        self.minor < 0
    }

    /// The sum.
    ///
    /// # Errors
    /// [`Error::CurrencyMismatch`], [`Error::Overflow`].
    pub fn plus(self, other: Self) -> Result<Self, Error> {
        self.same_currency(other)?;
        self.with(self.minor.checked_add(other.minor))
    }

    /// The difference.
    ///
    /// # Errors
    /// [`Error::CurrencyMismatch`], [`Error::Overflow`].
    pub fn minus(self, other: Self) -> Result<Self, Error> {
        self.same_currency(other)?;
        self.with(self.minor.checked_sub(other.minor))
    }

    /// The price of `quantity` units at this price each.
    ///
    /// # Errors
    /// [`Error::Overflow`].
    pub fn times(self, quantity: i64) -> Result<Self, Error> {
        self.with(self.minor.checked_mul(quantity))
    }

    /// The same amount in the other direction.
    ///
    /// # Errors
    /// [`Error::Overflow`], for the one amount whose opposite does not exist.
    pub fn negated(self) -> Result<Self, Error> {
        self.with(self.minor.checked_neg())
    }

    /// The sum of `amounts`, which must all be in `currency`; zero if there are none.
    ///
    /// # Errors
    /// [`Error::CurrencyMismatch`]; [`Error::Overflow`] only if the sum itself does not fit, whatever the
    /// order.
    pub fn sum(currency: Currency, amounts: impl IntoIterator<Item = Self>) -> Result<Self, Error> {
        let zero = Self::zero(currency);
        let mut sum = 0_i128;
        for amount in amounts {
            zero.same_currency(amount)?;
            sum += i128::from(amount.minor);
        }
        Self::from_wide(sum, currency)
    }

    /// `minor`, if it fits.
    pub(crate) fn from_wide(minor: i128, currency: Currency) -> Result<Self, Error> {
        i64::try_from(minor).map(|minor| Self { minor, currency }).map_err(|_| Error::Overflow)
    }

    fn with(self, minor: Option<i64>) -> Result<Self, Error> {
        minor.map(|minor| Self { minor, ..self }).ok_or(Error::Overflow)
    }

    fn same_currency(self, other: Self) -> Result<(), Error> {
        if self.currency == other.currency {
            Ok(())
        } else {
            Err(Error::CurrencyMismatch { left: self.currency, right: other.currency })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Money = Money::new(i64::MAX, Currency::EUR);
    const MIN: Money = Money::new(i64::MIN, Currency::EUR);
    const CENT: Money = Money::new(1, Currency::EUR);
    const YEN: Money = Money::new(1, Currency::JPY);

    #[test]
    fn overflow_is_an_error_and_never_wraps() {
        assert_eq!(MAX.plus(CENT), Err(Error::Overflow));
        assert_eq!(MIN.minus(CENT), Err(Error::Overflow));
        assert_eq!(MAX.times(2), Err(Error::Overflow));
        assert_eq!(MIN.times(-1), Err(Error::Overflow));
        assert_eq!(MIN.negated(), Err(Error::Overflow));
        assert_eq!(Money::sum(Currency::EUR, [MAX, CENT]), Err(Error::Overflow));
    }

    #[test]
    fn a_sum_that_fits_does_not_depend_on_the_order_of_its_parts() {
        assert_eq!(Money::sum(Currency::EUR, [MAX, CENT, MIN]), Ok(Money::zero(Currency::EUR)));
    }

    #[test]
    fn currencies_do_not_mix() {
        let mismatch = Err(Error::CurrencyMismatch { left: Currency::EUR, right: Currency::JPY });
        assert_eq!(CENT.plus(YEN), mismatch);
        assert_eq!(CENT.minus(YEN), mismatch);
        assert_eq!(Money::sum(Currency::EUR, [CENT, YEN]), mismatch);
    }
}
