//! Rates from a table, as configured.

use std::collections::BTreeMap;

use async_trait::async_trait;
use holdfast_money::{Currency, FxRate, Ratio};

use super::{RateSource, Unavailable};

/// Rates as given.
#[derive(Clone, Debug)]
pub struct TableRates {
    books: Currency,
    rates: BTreeMap<Currency, FxRate>,
}

/// The text is no table of rates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no rate such as `USD=93/100`")]
pub struct InvalidTable(pub String);

impl TableRates {
    /// Only the books' currency is taken.
    pub const fn of_books(books: Currency) -> Self {
        Self { books, rates: BTreeMap::new() }
    }

    /// Reads `USD=93/100,JPY=6/1000`: one dollar is 0.93 of the books' currency. Empty text is an empty
    /// table.
    pub fn parse(books: Currency, text: &str) -> Result<Self, InvalidTable> {
        let rows = text.split(',').map(str::trim).filter(|row| !row.is_empty());
        let rates = rows.map(|row| parsed(books, row).ok_or_else(|| InvalidTable(row.to_owned())));
        Ok(Self { books, rates: rates.collect::<Result<_, _>>()? })
    }
}

fn parsed(books: Currency, row: &str) -> Option<(Currency, FxRate)> {
    let (code, fraction) = row.split_once('=')?;
    let (numerator, denominator) = fraction.split_once('/')?;
    let number = |text: &str| text.trim().parse::<i64>().ok();
    let ratio = Ratio::new(number(numerator)?, number(denominator)?).ok()?;
    let from = Currency::from_code(code.trim()).ok()?;
    Some((from, FxRate::new(from, books, ratio).ok()?))
}

#[async_trait]
impl RateSource for TableRates {
    fn books(&self) -> Currency {
        self.books
    }

    async fn ask(&self, from: Currency) -> Result<Option<FxRate>, Unavailable> {
        Ok(self.rates.get(&from).copied())
    }
}

#[cfg(test)]
mod tests {
    use holdfast_money::Money;

    use super::*;

    #[tokio::test]
    async fn a_table_gives_its_rates_and_none_beyond() {
        let table = TableRates::parse(Currency::EUR, "USD=93/100, JPY=6/1000").unwrap();
        let rate = table.ask(Currency::USD).await.unwrap().unwrap();
        assert_eq!(rate.convert(Money::new(10_00, Currency::USD)), Ok(Money::new(9_30, Currency::EUR)));
        assert_eq!(table.ask(Currency::GBP).await, Ok(None));
        assert_eq!(crate::rates::quote(&table, Currency::GBP).await, Ok(holdfast_payments_domain::Quote::NoRate));
        let own = crate::rates::rate(&table, Currency::EUR).await.unwrap().unwrap();
        assert_eq!(own.convert(Money::new(7, Currency::EUR)), Ok(Money::new(7, Currency::EUR)));
    }

    #[test]
    fn what_is_no_table_names_its_row() {
        for row in ["USD", "USD=0.93", "USD=93", "usd=93/100", "USD=0/1", "USD=1/0", "USD=-1/2", "EUR=2/1"] {
            assert_eq!(TableRates::parse(Currency::EUR, row).unwrap_err(), InvalidTable(row.to_owned()));
        }
        assert!(TableRates::parse(Currency::EUR, "").is_ok());
    }
}
