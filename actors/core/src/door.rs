//! The checks of everything that enters, whichever way it comes: record, call, forward, operator.
//!
//! Invariant: what has passed fits the store and the brokers: no text holds a NUL or another control
//! character, no header and no key is over 1 KiB, no body over 1 MiB. Deliberately absent: where a message
//! may come from ([`crate::origin`]), and what a domain demands of its fields.

use crate::disposition::{DeadLetterReason, Refused};

/// Bodies above this many bytes, after decompression, are refused.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Headers that are read, above this many bytes, are refused.
pub const HEADER_BYTES_MAX: usize = 1024;
/// Records whose headers, names and values together, are above this many bytes are refused.
pub const HEADERS_BYTES_MAX: usize = 64 * 1024;
/// Keys above this many bytes are refused.
pub const KEY_BYTES_MAX: usize = 1024;

/// An aggregate's key, before any kind of aggregate has looked at it.
pub fn key(key: &str) -> Result<(), Refused> {
    let fault = if key.is_empty() {
        "the key is empty; it must be the aggregate id".to_owned()
    } else if key.len() > KEY_BYTES_MAX {
        format!("the key has {} bytes; at most {KEY_BYTES_MAX} are accepted", key.len())
    } else if key.chars().any(char::is_control) {
        "the key holds a NUL or another control character".to_owned()
    } else {
        return Ok(());
    };
    Err(Refused::invalid("key", fault))
}

/// A body's size.
pub fn body(bytes: usize) -> Result<(), Refused> {
    if bytes <= BODY_BYTES_MAX {
        return Ok(());
    }
    Err(too_large(None, format!("body of {bytes} bytes; at most {BODY_BYTES_MAX} are accepted")))
}

/// The size of all headers of a record, names and values.
pub fn headers(bytes: usize) -> Result<(), Refused> {
    if bytes <= HEADERS_BYTES_MAX {
        return Ok(());
    }
    Err(too_large(None, format!("headers of {bytes} bytes in all; at most {HEADERS_BYTES_MAX} are accepted")))
}

/// One header that is read, or what stands for it in a call.
pub fn header<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, Refused> {
    if value.len() > HEADER_BYTES_MAX {
        let text = format!("header {name} has {} bytes; at most {HEADER_BYTES_MAX} are accepted", value.len());
        return Err(too_large(Some(name), text));
    }
    let text =
        std::str::from_utf8(value).map_err(|_| Refused::undecodable(format!("header {name} is not UTF-8 text")))?;
    if text.chars().any(char::is_control) {
        return Err(Refused::invalid(name, format!("header {name} holds a NUL or another control character")));
    }
    Ok(text)
}

fn too_large(field: Option<&str>, error: String) -> Refused {
    Refused { reason: DeadLetterReason::TooLarge, error, field: field.map(str::to_owned) }
}

/// `ce_time`: a moment as RFC 3339 writes it, in any year from 0000 to 9999.
pub fn time(name: &str, text: &str) -> Result<(), Refused> {
    if is_rfc3339(text) {
        return Ok(());
    }
    Err(Refused::invalid(name, format!("header {name} is not a time of RFC 3339, such as 2026-11-28T12:00:00Z")))
}

fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((moment, rest)) = bytes.split_at_checked(19) else { return false };
    let number = |from: usize, digits: usize| {
        moment[from..from + digits]
            .iter()
            .try_fold(0_u32, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
    };
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, byte)| moment[*at] != *byte) || !matches!(moment[10], b'T' | b't' | b' ') {
        return false;
    }
    let (Some(year), Some(month), Some(day)) = (number(0, 4), number(5, 2), number(8, 2)) else { return false };
    let (Some(hour), Some(minute), Some(second)) = (number(11, 2), number(14, 2), number(17, 2)) else {
        return false;
    };
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => return false,
    };
    // 60 is a leap second.
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return false;
    }
    let zone = match rest.strip_prefix(b".") {
        None => rest,
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return false;
            }
            &fraction[digits..]
        }
    };
    match zone {
        b"Z" | b"z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            let two = |a: &u8, b: &u8| {
                (a.is_ascii_digit() && b.is_ascii_digit()).then(|| u32::from(a - b'0') * 10 + u32::from(b - b'0'))
            };
            two(h1, h2).is_some_and(|hours| hours <= 23) && two(m1, m2).is_some_and(|minutes| minutes <= 59)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_with_a_control_character_is_invalid() {
        for sound in ["a", "0192f0c1-7b1e-7cc3-8000-00000000000a", "größe 1", &"k".repeat(1024)] {
            assert_eq!(key(sound), Ok(()), "{sound}");
        }
        for bad in ["", "\0x", "x\0", "a\nb", "\u{7f}", "\u{85}", &"k".repeat(1025)] {
            assert_eq!(key(bad).unwrap_err().reason, DeadLetterReason::Invalid, "{bad:?}");
        }
    }

    #[test]
    fn header_is_bounded_text_without_control_characters() {
        assert_eq!(header("ce_source", "läden".as_bytes()), Ok("läden"));
        assert_eq!(header("ce_source", &[b'a'; 1024]).map(str::len), Ok(1024));
        let reason = |value: &[u8]| header("ce_source", value).unwrap_err().reason;
        assert_eq!(reason(&[b'a'; 1025]), DeadLetterReason::TooLarge);
        assert_eq!(reason(b"a\xff"), DeadLetterReason::Undecodable);
        assert_eq!(reason(b"a\0"), DeadLetterReason::Invalid);
        assert_eq!(reason(b"a\r\nb"), DeadLetterReason::Invalid);
    }

    #[test]
    fn headers_are_bounded_in_all() {
        let of = |bytes: usize| super::headers(bytes).map_err(|refused| refused.reason);
        assert_eq!(of(64 * 1024), Ok(()));
        assert_eq!(of(64 * 1024 + 1), Err(DeadLetterReason::TooLarge));
    }

    #[test]
    fn times_of_all_four_digit_years_are_accepted() {
        for sound in [
            "1970-01-01T00:00:00Z",
            "2300-12-31T23:59:60Z",
            "0000-02-29T00:00:00.000Z",
            "9999-12-31t23:59:59.999999999+14:00",
            "2024-02-29 12:00:00-00:30",
        ] {
            assert_eq!(time("ce_time", sound), Ok(()), "{sound}");
        }
        for bad in [
            "",
            "now",
            "2026-11-28",
            "2026-11-28T12:00:00",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2026-11-31T00:00:00Z",
            "2026-11-28T24:00:00Z",
            "2026-11-28T12:60:00Z",
            "2026-11-28T12:00:00.Z",
            "2026-11-28T12:00:00+1:00",
            "2026-11-28T12:00:00+24:00",
            "+10000-01-01T00:00:00Z",
            "2026-11-28T12:00:00ZZ",
            "२026-11-28T12:00:00Z",
            "1764331200",
        ] {
            assert_eq!(time("ce_time", bad).map_err(|refused| refused.reason), Err(DeadLetterReason::Invalid), "{bad}");
        }
    }
}
