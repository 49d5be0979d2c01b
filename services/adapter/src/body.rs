//! A message's body: protobuf, or its canonical JSON.
//!
//! Invariant: no text of a decoded body holds a NUL, which a column of Postgres would refuse together with
//! the whole statement it is part of. Deliberately absent: the parsers' own words where they quote what they
//! read; a dead letter's reason holds no payload.

use std::fmt::Debug;

use holdfast_core::{Message, disposition::Refused, envelope::ContentType};
use prost::Name;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Reads the body of `message` as an `M`.
///
/// # Errors
/// UNDECODABLE if it is none, INVALID if a text in it holds a NUL.
pub fn decode<M: Name + Default + Debug + DeserializeOwned + Serialize>(message: &Message) -> Result<M, Refused> {
    let (body, may_hold_nul) = match message.content_type {
        ContentType::Protobuf => {
            let body = M::decode(&*message.payload)
                .map_err(|_| Refused::undecodable(format!("the body is not the protobuf message {}", M::full_name())));
            (body?, message.payload.contains(&0))
        }
        ContentType::Json => {
            let body = serde_json::from_slice(&message.payload).map_err(|error| {
                Refused::undecodable(format!(
                    "the body is not the canonical JSON of {} (line {}, column {})",
                    M::full_name(),
                    error.line(),
                    error.column()
                ))
            });
            (body?, message.payload.windows(4).any(|four| four == b"0000"))
        }
    };
    // Seldom: the bytes of a protobuf message hold a zero only in numbers of a fixed size, in lengths and in
    // such texts.
    if may_hold_nul {
        without_nul(&body)?;
    }
    Ok(body)
}

fn without_nul<M: Debug + Serialize>(body: &M) -> Result<(), Refused> {
    if !holds_nul(&format!("{body:?}")) {
        return Ok(());
    }
    // An enum's value of a later build has no name, and so no JSON.
    let value = serde_json::to_value(body).unwrap_or_default();
    let field = nul_in(&value).filter(|field| !field.is_empty()).unwrap_or_else(|| "body".to_owned());
    let error = format!("{field} holds a NUL character");
    Err(Refused::invalid(field, error))
}

/// Whether a text that is shown for debugging, and so with its NULs as `\0` and its backslashes doubled,
/// holds one.
fn holds_nul(shown: &str) -> bool {
    let mut letters = shown.bytes();
    while let Some(letter) = letters.next() {
        if letter == b'\\' && letters.next() == Some(b'0') {
            return true;
        }
    }
    false
}

/// The path of the first text with a NUL, in the names of the `.proto`.
fn nul_in(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(values) => values.iter().find_map(nul_in),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            if name.contains('\0') {
                return Some(String::new());
            }
            let below = nul_in(value)?;
            let name = proto_name(name);
            Some(if below.is_empty() { name } else { format!("{name}.{below}") })
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// `orderId` as `order_id`.
fn proto_name(json_name: &str) -> String {
    let mut name = String::with_capacity(json_name.len() + 4);
    for letter in json_name.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use holdfast_core::disposition::DeadLetterReason;
    use holdfast_proto::orders::v1::{CancelOrder, OrderCancelled, OrderLine, OrderPlaced};
    use prost::Message as _;
    use uuid::Uuid;

    use super::*;

    fn refusal<M: Name + Default + Debug + DeserializeOwned + Serialize>(
        content_type: ContentType,
        body: impl Into<bytes::Bytes>,
    ) -> Option<(DeadLetterReason, Option<String>)> {
        let message = Message { content_type, ..Message::new(Uuid::nil(), "test", M::full_name(), "key", body.into()) };
        decode::<M>(&message).err().map(|refused| (refused.reason, refused.field))
    }

    #[test]
    fn nul_in_a_text_is_invalid_and_its_field_is_named() {
        let cancel = CancelOrder { order_id: "id".into(), reason: "a\0b".into() };
        let invalid = |field: &str| Some((DeadLetterReason::Invalid, Some(field.to_owned())));
        assert_eq!(refusal::<CancelOrder>(ContentType::Protobuf, cancel.encode_to_vec()), invalid("reason"));
        let json = r#"{"orderId":"i\u0000d","reason":"r"}"#;
        assert_eq!(refusal::<CancelOrder>(ContentType::Json, json), invalid("order_id"));
        let line = OrderLine { sku: "\0".into(), ..OrderLine::default() };
        let placed = OrderPlaced { lines: vec![OrderLine::default(), line], ..OrderPlaced::default() };
        assert_eq!(refusal::<OrderPlaced>(ContentType::Protobuf, placed.encode_to_vec()), invalid("lines.sku"));
    }

    #[test]
    fn nul_beside_an_enum_of_a_later_build_is_found() {
        let body = OrderCancelled { cause: 99, reason: "\0".into(), ..OrderCancelled::default() };
        let invalid = Some((DeadLetterReason::Invalid, Some("body".to_owned())));
        assert_eq!(refusal::<OrderCancelled>(ContentType::Protobuf, body.encode_to_vec()), invalid);
    }

    #[test]
    fn zeros_that_are_no_text_are_taken() {
        // quantity: 0, written out; and the text \u0000 spelled with two backslashes.
        assert_eq!(refusal::<OrderLine>(ContentType::Protobuf, vec![0x10, 0x00]), None);
        assert_eq!(refusal::<CancelOrder>(ContentType::Json, r#"{"reason":"\\u0000 and \\0 and 10000"}"#), None);
    }

    #[test]
    fn text_that_is_no_unicode_is_undecodable() {
        let undecodable = Some((DeadLetterReason::Undecodable, None));
        for json in [
            &br#"{"reason":"\ud800"}"#[..],
            br#"{"reason":"\udc00\ud800"}"#,
            b"{\"reason\":\"\xff\"}",
            b"{\"reason\":\"\0\"}",
        ] {
            assert_eq!(refusal::<CancelOrder>(ContentType::Json, json), undecodable);
        }
        assert_eq!(refusal::<CancelOrder>(ContentType::Protobuf, &[0x12, 1, 0xff][..]), undecodable);
    }
}
