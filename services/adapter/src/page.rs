//! Page tokens: where the next page begins, opaque to callers and checked when they come back.
//!
//! A token holds a position and a digest over it and the conditions of the listing, so that a garbled token,
//! and one of a listing with other conditions, is an error rather than a wrong page. It is no secret and no
//! right: any position may be asked for by anyone who may list. Deliberately absent: offsets. A position is
//! the last row's sort key, so rows that come and go move no page.

use holdfast_core::disposition::Refused;
use uuid::Uuid;

/// The name space of the digests.
const PAGES: Uuid = Uuid::from_u128(0x3d0a_7f0e_5a0b_4c4e_9c57_0f8f_1f6a_94d2);

/// Form of the token.
const VERSION: u8 = 1;

/// Longest token that is looked at, in bytes.
const BYTES_MAX: usize = 1024;

/// The token of the page that begins after `position`, of a listing with these `conditions`.
pub fn token(conditions: &[u8], position: &[u8]) -> String {
    let digest = digest(conditions, position);
    let bytes = std::iter::once(&VERSION).chain(digest.as_bytes()).chain(position);
    bytes.flat_map(|byte| [hex(byte >> 4), hex(byte & 15)]).collect()
}

/// The position in a token.
///
/// # Errors
/// INVALID if it is no token of ours, or one of a listing with other conditions.
pub fn position(field: &str, conditions: &[u8], token: &str) -> Result<Vec<u8>, Refused> {
    let refused = || Refused::invalid(field, format!("{field} is no token of a page before, with the same conditions"));
    let bytes = unhex(token).ok_or_else(refused)?;
    let (VERSION, rest) = bytes.split_first().map(|(version, rest)| (*version, rest)).ok_or_else(refused)? else {
        return Err(refused());
    };
    let (found, position) = rest.split_at_checked(16).ok_or_else(refused)?;
    if found != digest(conditions, position).as_bytes() {
        return Err(refused());
    }
    Ok(position.to_vec())
}

fn digest(conditions: &[u8], position: &[u8]) -> Uuid {
    let length = u64::try_from(conditions.len()).unwrap_or(u64::MAX).to_le_bytes();
    Uuid::new_v5(&PAGES, &[&length, conditions, position].concat())
}

fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16).expect("four bits are a hexadecimal digit")
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() > BYTES_MAX || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_its_position_back_to_the_same_conditions_alone() {
        let token = token(b"customer 1", b"here");
        assert_eq!(position("page_token", b"customer 1", &token), Ok(b"here".to_vec()));
        let refused = position("page_token", b"customer 2", &token).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("page_token"));
    }

    #[test]
    fn a_garbled_token_is_refused_whichever_character_is_wrong() {
        let token = token(b"", b"here");
        for at in 0..token.len() {
            let mut garbled = token.clone().into_bytes();
            garbled[at] = if garbled[at] == b'0' { b'1' } else { b'0' };
            let garbled = String::from_utf8(garbled).unwrap();
            assert!(position("page_token", b"", &garbled).is_err(), "{at}");
        }
        for garbage in ["", "0", "zz", "ü", &token[2..], &token[..30], &"0".repeat(2000)] {
            assert!(position("page_token", b"", garbage).is_err(), "{garbage}");
        }
    }
}
