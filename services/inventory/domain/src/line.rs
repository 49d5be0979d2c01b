//! Units of one sku within a reservation, and what holding them asks of the pools.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_core::pool::PoolChange;

use crate::Sku;

/// Units of one sku.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Of what.
    pub sku: Sku,
    /// How many, at least 1.
    pub quantity: i64,
}

/// The lines with each sku once, sorted, its quantities added up; `None` if a quantity is not positive or a
/// sum does not fit.
pub(crate) fn merged(lines: &[Line]) -> Option<Arc<[Line]>> {
    let mut sums = BTreeMap::<&Sku, i64>::new();
    for line in lines {
        let sum = sums.entry(&line.sku).or_default();
        *sum = sum.checked_add(line.quantity).filter(|_| line.quantity > 0)?;
    }
    Some(sums.into_iter().map(|(sku, quantity)| Line { sku: sku.clone(), quantity }).collect())
}

/// Holds every line in its sku's pool.
pub(crate) fn hold(lines: &[Line]) -> Vec<PoolChange> {
    lines.iter().map(|line| PoolChange::hold(line.sku.as_str(), line.quantity)).collect()
}

/// Takes every line that is held out of stock.
pub(crate) fn take_out(lines: &[Line]) -> Vec<PoolChange> {
    let change =
        |line: &Line| PoolChange { pool: line.sku.as_str().to_owned(), total: -line.quantity, held: -line.quantity };
    lines.iter().map(change).collect()
}

/// Gives every line back.
pub(crate) fn give_back(lines: &[Line]) -> Vec<PoolChange> {
    lines.iter().map(|line| PoolChange::hold(line.sku.as_str(), -line.quantity)).collect()
}
