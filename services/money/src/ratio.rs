//! Percentages, tax rates and the like: numerator over denominator, in whole numbers.
//!
//! The one rounding rule of the system is [`div_half_even`]: to the nearest, ties to the even neighbour
//! ("banker's"), so that rounding has no drift and treats an amount and its opposite alike.

use crate::{Error, Money};

/// An exact ratio in lowest terms. Denominator positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ratio {
    numerator: i64,
    denominator: i64,
}

impl Ratio {
    /// `numerator / denominator`.
    ///
    /// # Errors
    /// [`Error::InvalidRatio`] unless `denominator` is positive.
    pub fn new(numerator: i64, denominator: i64) -> Result<Self, Error> {
        if denominator <= 0 {
            return Err(Error::InvalidRatio);
        }
        let shared = gcd(i128::from(numerator).unsigned_abs(), i128::from(denominator).unsigned_abs());
        // The divisor is at most the denominator, so it fits.
        let shared = i64::try_from(shared).map_err(|_| Error::InvalidRatio)?;
        Ok(Self { numerator: numerator / shared, denominator: denominator / shared })
    }

    /// The ratio of `hundredths` to 100.
    ///
    /// # Panics
    /// Never: 100 is positive.
    pub fn percent(hundredths: i64) -> Self {
        Self::new(hundredths, 100).expect("100 is positive")
    }

    /// The ratio of `ten_thousandths` to 10,000.
    ///
    /// # Panics
    /// Never: 10,000 is positive.
    pub fn basis_points(ten_thousandths: i64) -> Self {
        Self::new(ten_thousandths, 10_000).expect("10,000 is positive")
    }

    /// Above the line, in lowest terms.
    pub const fn numerator(self) -> i64 {
        self.numerator
    }

    /// Below the line, in lowest terms; positive.
    pub const fn denominator(self) -> i64 {
        self.denominator
    }
}

impl Money {
    /// This amount times `ratio`, rounded half-to-even.
    ///
    /// # Errors
    /// [`Error::Overflow`].
    pub fn scaled(self, ratio: Ratio) -> Result<Self, Error> {
        // 64 bits by 64 bits fit 128.
        let exact = i128::from(self.minor) * i128::from(ratio.numerator);
        Self::from_wide(div_half_even(exact, i128::from(ratio.denominator)), self.currency)
    }
}

/// `numerator / denominator` to the nearest whole number, ties to the even one. `denominator` is positive.
pub(crate) fn div_half_even(numerator: i128, denominator: i128) -> i128 {
    debug_assert!(denominator > 0);
    let floor = numerator.div_euclid(denominator);
    let rest = numerator.rem_euclid(denominator);
    // Compares the rest with what is left up to the next: twice the rest could overflow.
    match rest.cmp(&(denominator - rest)) {
        std::cmp::Ordering::Less => floor,
        std::cmp::Ordering::Greater => floor + 1,
        std::cmp::Ordering::Equal => floor + floor.rem_euclid(2),
    }
}

/// Greatest common divisor; of 0 and n it is n.
pub(crate) const fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Currency;

    #[test]
    fn ties_go_to_the_even_neighbour_on_both_sides_of_zero() {
        for (half, even) in [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2), (-7, -4)] {
            assert_eq!(div_half_even(half, 2), even, "{half}/2");
        }
    }

    #[test]
    fn what_is_no_tie_goes_to_the_nearest() {
        for (numerator, denominator, nearest) in
            [(1, 3, 0), (2, 3, 1), (-1, 3, 0), (-2, 3, -1), (249, 100, 2), (251, 100, 3)]
        {
            assert_eq!(div_half_even(numerator, denominator), nearest, "{numerator}/{denominator}");
        }
        assert_eq!(div_half_even(i128::MAX, i128::MAX), 1);
        assert_eq!(div_half_even(i128::MAX - 1, i128::MAX), 1);
        assert_eq!(div_half_even(i128::MIN, i128::MAX), -1);
    }

    #[test]
    fn percentages_of_the_largest_amounts_are_exact_or_refused() {
        let max = Money::new(i64::MAX, Currency::EUR);
        assert_eq!(max.scaled(Ratio::percent(100)), Ok(max));
        assert_eq!(max.scaled(Ratio::percent(101)), Err(Error::Overflow));
        let min = Money::new(i64::MIN, Currency::EUR);
        assert_eq!(min.scaled(Ratio::percent(100)), Ok(min));
        assert_eq!(min.scaled(Ratio::percent(-100)), Err(Error::Overflow));
        let whole = Ratio::new(i64::MIN, i64::MAX).expect("positive denominator");
        assert_eq!(max.scaled(whole), Ok(min));
    }

    #[test]
    fn ratio_needs_positive_denominator_and_keeps_lowest_terms() {
        assert_eq!(Ratio::new(1, 0), Err(Error::InvalidRatio));
        assert_eq!(Ratio::new(1, -2), Err(Error::InvalidRatio));
        assert_eq!(Ratio::percent(25), Ratio::new(1, 4).expect("positive denominator"));
        assert_eq!(Ratio::percent(0), Ratio::basis_points(0));
    }
}
