//! An order's lines and their total.
//!
//! Invariant: each sku has one line, all amounts are of one currency, a subtotal is quantity times unit
//! price, the total is the sum of the subtotals, and everything fits.

use holdfast_money::{Currency, Error, Money};

use crate::Sku;

/// The most lines that an order may have.
pub const LINES_MAX: usize = 100;

/// One sku of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Of what.
    pub sku: Sku,
    /// How many units.
    pub quantity: i64,
    /// What one unit costs.
    pub unit_price: Money,
    /// Quantity times unit price.
    pub subtotal: Money,
}

impl Line {
    /// `quantity` units at `unit_price` each.
    ///
    /// # Errors
    /// [`Error::Overflow`] if the subtotal does not fit.
    pub fn new(sku: Sku, quantity: i64, unit_price: Money) -> Result<Self, Error> {
        Ok(Self { sku, quantity, unit_price, subtotal: unit_price.times(quantity)? })
    }
}

/// The lines of an order, in the order in which their skus were first added, and their total.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    lines: Vec<Line>,
    total: Money,
}

impl Lines {
    /// No lines.
    pub const fn none(currency: Currency) -> Self {
        Self { lines: Vec::new(), total: Money::zero(currency) }
    }

    /// These lines, as they were stored; the total is added up again.
    ///
    /// # Errors
    /// [`Error::CurrencyMismatch`] or [`Error::Overflow`]: no order could have come to these lines.
    pub fn rehydrate(currency: Currency, lines: Vec<Line>) -> Result<Self, Error> {
        let total = Money::sum(currency, lines.iter().map(|line| line.subtotal))?;
        Ok(Self { lines, total })
    }

    /// One by one.
    pub fn as_slice(&self) -> &[Line] {
        &self.lines
    }

    /// Sum of the subtotals.
    pub const fn total(&self) -> Money {
        self.total
    }

    /// Of every amount.
    pub const fn currency(&self) -> Currency {
        self.total.currency
    }

    /// The line of `sku`, if there is one.
    pub fn get(&self, sku: &Sku) -> Option<&Line> {
        self.lines.iter().find(|line| line.sku == *sku)
    }

    /// What `quantity` more units of `sku` at `unit_price` would come to: the sku's line, all of it at that
    /// price, and the total.
    pub(crate) fn plus(&self, sku: &Sku, quantity: i64, unit_price: Money) -> Result<(Line, Money), Error> {
        let (before, without) = match self.get(sku) {
            Some(line) => (line.quantity, self.total.minus(line.subtotal)?),
            None => (0, self.total),
        };
        let quantity = before.checked_add(quantity).ok_or(Error::Overflow)?;
        let line = Line::new(sku.clone(), quantity, unit_price)?;
        let total = without.plus(line.subtotal)?;
        Ok((line, total))
    }

    /// The total without the line of `sku`; `None` if there is no such line.
    pub(crate) fn total_without(&self, sku: &Sku) -> Option<Result<Money, Error>> {
        self.get(sku).map(|line| self.total.minus(line.subtotal))
    }

    /// Puts a line in the place of the sku's old one, or at the end.
    pub(crate) fn put(&mut self, line: Line, total: Money) {
        match self.lines.iter_mut().find(|old| old.sku == line.sku) {
            Some(old) => *old = line,
            None => self.lines.push(line),
        }
        self.total = total;
    }

    /// Removes the line of `sku`.
    pub(crate) fn remove(&mut self, sku: &Sku, total: Money) {
        self.lines.retain(|line| line.sku != *sku);
        self.total = total;
    }
}
