//! The checks that the `.proto` comments promise, one function each.
//!
//! Each takes the field's path as the caller knows it. Deliberately absent: business rules; those are the
//! aggregate's.

use holdfast_core::{Timestamp, disposition::Refused};
use holdfast_money::{Currency, Error, Money};
use holdfast_proto::{Timestamp as WireTimestamp, money::v1::Money as WireMoney, time};
use uuid::Uuid;

/// A UUID in canonical form: lower case, with hyphens.
pub fn canonical_uuid(field: &str, text: &str) -> Result<Uuid, Refused> {
    let canonical = text.len() == 36 && !text.bytes().any(|byte| byte.is_ascii_uppercase());
    canonical.then(|| Uuid::try_parse(text).ok()).flatten().ok_or_else(|| {
        Refused::invalid(field, format!("{field} is not a UUID in canonical form (lower case, hyphens)"))
    })
}

/// The id in the body, which has been found well-formed, is also the record's key.
pub fn equals_key(field: &str, id: &str, key: &str) -> Result<(), Refused> {
    if id == key { Ok(()) } else { Err(Refused::invalid("key", format!("the record key and {field} differ"))) }
}

/// At least 1.
pub fn positive(field: &str, quantity: i64) -> Result<i64, Refused> {
    if quantity > 0 { Ok(quantity) } else { Err(Refused::invalid(field, format!("{field} is not at least 1"))) }
}

/// A text of at most `bytes_max` bytes.
pub fn at_most<'a>(field: &str, text: &'a str, bytes_max: usize) -> Result<&'a str, Refused> {
    if text.len() <= bytes_max {
        Ok(text)
    } else {
        Err(Refused::invalid(field, format!("{field} is longer than {bytes_max} bytes")))
    }
}

/// A currency in which amounts can be counted.
pub fn currency(field: &str, code: &str) -> Result<Currency, Refused> {
    Currency::from_code(code).map_err(|error| {
        let text = match error {
            Error::NoMinorUnit => format!("{field} is a code of ISO 4217 without a minor unit"),
            _ => format!("{field} is not an alphabetic code of ISO 4217 in upper case"),
        };
        Refused::invalid(field, text)
    })
}

/// An amount, of any sign. `field` is the message's path; the currency's is below it.
pub fn money(field: &str, amount: Option<&WireMoney>) -> Result<Money, Refused> {
    let amount = amount.ok_or_else(|| missing(field))?;
    Ok(Money::new(amount.minor, currency(&format!("{field}.currency"), &amount.currency)?))
}

/// The seconds of the years 1 to 9999, which is what a `google.protobuf.Timestamp` may hold.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A point in time that must be there, in the years 1 to 9999: so it fits every column, and a duration can be
/// added to it.
pub fn time(field: &str, timestamp: Option<&WireTimestamp>) -> Result<Timestamp, Refused> {
    let timestamp = timestamp.ok_or_else(|| missing(field))?;
    Some(timestamp)
        .filter(|timestamp| SECONDS.contains(&timestamp.seconds))
        .and_then(time::to_unix_ms)
        .map(Timestamp::from_unix_ms)
        .ok_or_else(|| Refused::invalid(field, format!("{field} is not a valid timestamp of the years 1 to 9999")))
}

/// Refuses `field` because it is not there.
pub fn missing(field: &str) -> Refused {
    Refused::invalid(field, format!("{field} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<T: std::fmt::Debug>(result: Result<T, Refused>) -> String {
        result.unwrap_err().field.unwrap()
    }

    #[test]
    fn only_the_canonical_form_is_a_uuid() {
        let text = "0192f0c1-7b1e-7cc3-8000-00000000000a";
        assert_eq!(canonical_uuid("id", text).map(|id| id.to_string()), Ok(text.to_owned()));
        for wrong in [
            "",
            "0192f0c17b1e7cc3800000000000000a",
            "0192F0C1-7B1E-7CC3-8000-00000000000A",
            "{0192f0c1-7b1e-7cc3-8000-0000000000}",
            "0192f0c1-7b1e-7cc3-8000-00000000000g",
            " 0192f0c1-7b1e-7cc3-8000-0000000000a",
            "urn:uuid:0192f0c1-7b1e-7cc3-8000-00000000000a",
        ] {
            assert_eq!(field(canonical_uuid("id", wrong)), "id", "{wrong}");
        }
    }

    #[test]
    fn refusals_name_the_field_and_never_the_value() {
        let canary = "canary-7f3";
        let refused = [
            canonical_uuid("order_id", canary).unwrap_err(),
            equals_key("order_id", canary, "key").unwrap_err(),
            currency("currency", canary).unwrap_err(),
            at_most("reason", canary, 3).unwrap_err(),
        ];
        for refused in refused {
            assert!(!refused.error.contains(canary), "{refused}");
        }
    }

    #[test]
    fn money_names_the_part_that_is_wrong() {
        assert_eq!(field(money("price", None)), "price");
        let gold = WireMoney { minor: 1, currency: "XAU".to_owned() };
        assert_eq!(field(money("price", Some(&gold))), "price.currency");
    }

    #[test]
    fn a_quantity_is_at_least_1() {
        assert_eq!(positive("quantity", 1), Ok(1));
        assert_eq!(field(positive("quantity", 0)), "quantity");
        assert_eq!(field(positive("quantity", i64::MIN)), "quantity");
    }

    #[test]
    fn times_that_are_none_are_refused() {
        assert_eq!(field(time("expires_at", None)), "expires_at");
        assert_eq!(field(time("expires_at", Some(&WireTimestamp { seconds: 0, nanos: -1 }))), "expires_at");
        for seconds in [i64::MIN, -62_135_596_801, 253_402_300_800, i64::MAX / 1_000] {
            assert_eq!(field(time("expires_at", Some(&WireTimestamp { seconds, nanos: 0 }))), "expires_at");
        }
        // 1970 and 2300.
        for seconds in [0, 10_413_792_000] {
            assert!(time("expires_at", Some(&WireTimestamp { seconds, nanos: 0 })).is_ok());
        }
    }
}
