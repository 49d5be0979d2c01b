//! ISO 4217: which currencies there are, and how many decimals each has.
//!
//! The table is list one of the standard as amended to 2026-01-01, sorted by code; a [`Currency`] is an index
//! into it, so an invalid one can't be made. Deliberately absent: withdrawn codes (HRK, BGN, ...), and
//! symbols and names, which are a page's business.

use std::{fmt, str::FromStr};

use crate::Error;

/// Code and exponent (decimals of the minor unit), sorted by code.
#[rustfmt::skip]
const TABLE: [([u8; 3], u8); 165] = [
    (*b"AED", 2), (*b"AFN", 2), (*b"ALL", 2), (*b"AMD", 2), (*b"AOA", 2), (*b"ARS", 2), (*b"AUD", 2), (*b"AWG", 2),
    (*b"AZN", 2), (*b"BAM", 2), (*b"BBD", 2), (*b"BDT", 2), (*b"BHD", 3), (*b"BIF", 0), (*b"BMD", 2), (*b"BND", 2),
    (*b"BOB", 2), (*b"BOV", 2), (*b"BRL", 2), (*b"BSD", 2), (*b"BTN", 2), (*b"BWP", 2), (*b"BYN", 2), (*b"BZD", 2),
    (*b"CAD", 2), (*b"CDF", 2), (*b"CHE", 2), (*b"CHF", 2), (*b"CHW", 2), (*b"CLF", 4), (*b"CLP", 0), (*b"CNY", 2),
    (*b"COP", 2), (*b"COU", 2), (*b"CRC", 2), (*b"CUP", 2), (*b"CVE", 2), (*b"CZK", 2), (*b"DJF", 0), (*b"DKK", 2),
    (*b"DOP", 2), (*b"DZD", 2), (*b"EGP", 2), (*b"ERN", 2), (*b"ETB", 2), (*b"EUR", 2), (*b"FJD", 2), (*b"FKP", 2),
    (*b"GBP", 2), (*b"GEL", 2), (*b"GHS", 2), (*b"GIP", 2), (*b"GMD", 2), (*b"GNF", 0), (*b"GTQ", 2), (*b"GYD", 2),
    (*b"HKD", 2), (*b"HNL", 2), (*b"HTG", 2), (*b"HUF", 2), (*b"IDR", 2), (*b"ILS", 2), (*b"INR", 2), (*b"IQD", 3),
    (*b"IRR", 2), (*b"ISK", 0), (*b"JMD", 2), (*b"JOD", 3), (*b"JPY", 0), (*b"KES", 2), (*b"KGS", 2), (*b"KHR", 2),
    (*b"KMF", 0), (*b"KPW", 2), (*b"KRW", 0), (*b"KWD", 3), (*b"KYD", 2), (*b"KZT", 2), (*b"LAK", 2), (*b"LBP", 2),
    (*b"LKR", 2), (*b"LRD", 2), (*b"LSL", 2), (*b"LYD", 3), (*b"MAD", 2), (*b"MDL", 2), (*b"MGA", 2), (*b"MKD", 2),
    (*b"MMK", 2), (*b"MNT", 2), (*b"MOP", 2), (*b"MRU", 2), (*b"MUR", 2), (*b"MVR", 2), (*b"MWK", 2), (*b"MXN", 2),
    (*b"MXV", 2), (*b"MYR", 2), (*b"MZN", 2), (*b"NAD", 2), (*b"NGN", 2), (*b"NIO", 2), (*b"NOK", 2), (*b"NPR", 2),
    (*b"NZD", 2), (*b"OMR", 3), (*b"PAB", 2), (*b"PEN", 2), (*b"PGK", 2), (*b"PHP", 2), (*b"PKR", 2), (*b"PLN", 2),
    (*b"PYG", 0), (*b"QAR", 2), (*b"RON", 2), (*b"RSD", 2), (*b"RUB", 2), (*b"RWF", 0), (*b"SAR", 2), (*b"SBD", 2),
    (*b"SCR", 2), (*b"SDG", 2), (*b"SEK", 2), (*b"SGD", 2), (*b"SHP", 2), (*b"SLE", 2), (*b"SOS", 2), (*b"SRD", 2),
    (*b"SSP", 2), (*b"STN", 2), (*b"SVC", 2), (*b"SYP", 2), (*b"SZL", 2), (*b"THB", 2), (*b"TJS", 2), (*b"TMT", 2),
    (*b"TND", 3), (*b"TOP", 2), (*b"TRY", 2), (*b"TTD", 2), (*b"TWD", 2), (*b"TZS", 2), (*b"UAH", 2), (*b"UGX", 0),
    (*b"USD", 2), (*b"USN", 2), (*b"UYI", 0), (*b"UYU", 2), (*b"UYW", 4), (*b"UZS", 2), (*b"VED", 2), (*b"VES", 2),
    (*b"VND", 0), (*b"VUV", 0), (*b"WST", 2), (*b"XAD", 2), (*b"XAF", 0), (*b"XCD", 2), (*b"XCG", 2), (*b"XOF", 0),
    (*b"XPF", 0), (*b"YER", 2), (*b"ZAR", 2), (*b"ZMW", 2), (*b"ZWG", 2),
];

/// Codes of the standard that have no minor unit: metals, bond units, drawing rights, testing, none.
const WITHOUT_MINOR_UNIT: [&str; 13] =
    ["XAG", "XAU", "XBA", "XBB", "XBC", "XBD", "XDR", "XPD", "XPT", "XSU", "XTS", "XUA", "XXX"];

/// A currency of ISO 4217 in which amounts can be counted. Ordered by code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency(u8);

impl Currency {
    /// Swiss franc.
    pub const CHF: Self = Self::known(*b"CHF");
    /// Euro.
    pub const EUR: Self = Self::known(*b"EUR");
    /// Pound sterling.
    pub const GBP: Self = Self::known(*b"GBP");
    /// Yen.
    pub const JPY: Self = Self::known(*b"JPY");
    /// United States dollar.
    pub const USD: Self = Self::known(*b"USD");

    /// The currency of an alphabetic code in upper case.
    ///
    /// # Errors
    /// [`Error::UnknownCurrency`], or [`Error::NoMinorUnit`] for codes such as `XAU`.
    pub fn from_code(code: &str) -> Result<Self, Error> {
        let unknown = || if WITHOUT_MINOR_UNIT.contains(&code) { Error::NoMinorUnit } else { Error::UnknownCurrency };
        let bytes: [u8; 3] = code.as_bytes().try_into().map_err(|_| unknown())?;
        let index = TABLE.binary_search_by_key(&bytes, |&(code, _)| code).map_err(|_| unknown())?;
        u8::try_from(index).map(Self).map_err(|_| unknown())
    }

    /// The alphabetic code, for example `EUR`.
    pub fn code(self) -> &'static str {
        std::str::from_utf8(&TABLE[usize::from(self.0)].0).expect("the table is ASCII")
    }

    /// How many decimals the minor unit has: 2 for EUR, 0 for JPY, 3 for BHD.
    pub const fn exponent(self) -> u8 {
        TABLE[self.0 as usize].1
    }

    /// Minor units in one major unit: ten to the [`Self::exponent`].
    pub const fn minor_per_major(self) -> i64 {
        10_i64.pow(self.exponent() as u32)
    }

    /// All currencies, sorted by code.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..=u8::MAX).take(TABLE.len()).map(Self)
    }

    /// A code known at compile time; anything else does not compile.
    const fn known(code: [u8; 3]) -> Self {
        let mut index = 0;
        while index < TABLE.len() {
            let (entry, _) = TABLE[index];
            if entry[0] == code[0] && entry[1] == code[1] && entry[2] == code[2] {
                #[expect(clippy::cast_possible_truncation, reason = "the table has fewer than 256 rows")]
                return Self(index as u8);
            }
            index += 1;
        }
        panic!("not in the table")
    }
}

impl FromStr for Currency {
    type Err = Error;

    fn from_str(code: &str) -> Result<Self, Error> {
        Self::from_code(code)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_without_repeats() {
        assert!(TABLE.is_sorted_by(|(left, _), (right, _)| left < right));
        assert!(TABLE.iter().all(|(code, _)| code.iter().all(u8::is_ascii_uppercase)));
    }

    #[test]
    fn every_code_finds_itself() {
        for currency in Currency::all() {
            assert_eq!(Currency::from_code(currency.code()), Ok(currency));
        }
    }

    #[test]
    fn exponents_are_those_of_the_standard() {
        let with = |exponent| {
            Currency::all().filter(|c| c.exponent() == exponent).map(Currency::code).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(with(0), "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF");
        assert_eq!(with(1), "");
        assert_eq!(with(3), "BHD IQD JOD KWD LYD OMR TND");
        assert_eq!(with(4), "CLF UYW");
        assert_eq!(Currency::all().filter(|c| c.exponent() == 2).count(), 165 - 17 - 7 - 2);
        assert_eq!(
            Currency::from_code("MRU").map(Currency::exponent),
            Ok(2),
            "a fifth, but two decimals by the standard"
        );
    }

    #[test]
    fn what_is_no_currency_in_use_is_refused() {
        for code in ["", "E", "EU", "EURO", "eur", " EUR", "ZZZ", "HRK", "€€€", "E\0R"] {
            assert_eq!(Currency::from_code(code), Err(Error::UnknownCurrency), "{code:?}");
        }
        for code in WITHOUT_MINOR_UNIT {
            assert_eq!(Currency::from_code(code), Err(Error::NoMinorUnit), "{code}");
        }
    }
}
