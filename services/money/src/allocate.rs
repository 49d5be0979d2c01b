//! Splitting an amount by weights, so that the parts always add up to it.
//!
//! Largest remainder: each part gets its exact share cut towards zero; the units left over go, one each, to
//! the parts that lost most by the cut, the earlier of equals first. So each part is within one unit of its
//! exact share, an amount and its opposite split alike, and a part of weight zero gets nothing.

use crate::{Error, Money};

impl Money {
    /// Splits into one part for each weight, in proportion.
    ///
    /// # Errors
    /// [`Error::NoWeights`] if there are none or all are zero.
    pub fn allocate(self, weights: &[u64]) -> Result<Vec<Self>, Error> {
        let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
        if total == 0 {
            return Err(Error::NoWeights);
        }
        let amount = u128::from(self.minor.unsigned_abs());
        let mut left = amount;
        let mut parts = Vec::with_capacity(weights.len());
        for (index, &weight) in weights.iter().enumerate() {
            // 64 bits by 64 bits fit 128.
            let exact = amount * u128::from(weight);
            left -= exact / total;
            parts.push((exact / total, exact % total, index));
        }
        // Fewer units are left than there are parts with a remainder, so each of those gets at most one.
        parts.sort_by(|(_, left, i), (_, right, j)| right.cmp(left).then(i.cmp(j)));
        for (share, _, _) in parts.iter_mut().take(usize::try_from(left).map_err(|_| Error::Overflow)?) {
            *share += 1;
        }
        parts.sort_unstable_by_key(|&(_, _, index)| index);
        parts.into_iter().map(|(share, _, _)| self.part(share)).collect()
    }

    /// Splits into `parts` as equal as can be, the larger ones first.
    ///
    /// # Errors
    /// [`Error::NoWeights`] for zero parts.
    pub fn split(self, parts: usize) -> Result<Vec<Self>, Error> {
        self.allocate(&vec![1; parts])
    }

    /// `share` units with the sign of this amount.
    fn part(self, share: u128) -> Result<Self, Error> {
        let share = i128::try_from(share).map_err(|_| Error::Overflow)?;
        Self::from_wide(if self.is_negative() { -share } else { share }, self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Currency;

    fn parts(minor: i64, weights: &[u64]) -> Vec<i64> {
        let parts = Money::new(minor, Currency::EUR).allocate(weights).expect("has weights");
        parts.into_iter().map(|part| part.minor).collect()
    }

    #[test]
    fn leftover_units_go_to_largest_remainders_then_to_the_first() {
        assert_eq!(parts(100, &[1, 1, 1]), [34, 33, 33]);
        assert_eq!(parts(-100, &[1, 1, 1]), [-34, -33, -33]);
        assert_eq!(parts(5, &[3, 7]), [2, 3], "1.5 and 3.5: the first of equals");
        assert_eq!(parts(101, &[1, 2]), [34, 67]);
        assert_eq!(parts(1, &[0, 0, 5]), [0, 0, 1]);
        assert_eq!(parts(2, &[1, 1, 1, 1]), [1, 1, 0, 0]);
        assert_eq!(parts(0, &[1, 2]), [0, 0]);
    }

    #[test]
    fn the_largest_amounts_and_weights_are_split_exactly() {
        assert_eq!(parts(i64::MIN, &[1]), [i64::MIN]);
        assert_eq!(parts(i64::MAX, &[u64::MAX, u64::MAX]), [i64::MAX / 2 + 1, i64::MAX / 2]);
    }

    #[test]
    fn without_weights_there_is_no_split() {
        assert_eq!(Money::zero(Currency::EUR).allocate(&[]), Err(Error::NoWeights));
        assert_eq!(Money::zero(Currency::EUR).allocate(&[0, 0]), Err(Error::NoWeights));
        assert_eq!(Money::zero(Currency::EUR).split(0), Err(Error::NoWeights));
    }
}
