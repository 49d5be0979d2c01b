//! How the body of a command is written: protobuf, or its canonical JSON.
//!
//! Invariant: both say the same, and both are padded to the wanted size with what every reader skips.
//! Deliberately absent: bodies that are wrong; [`super`] makes those.

use prost::Message;
use serde::Serialize;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/protobuf`.
    Protobuf,
    /// `application/json`, as proto3 maps it.
    Json,
}

impl Form {
    /// The header that says so.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/protobuf",
            Self::Json => "application/json",
        }
    }

    /// The body of `message`, of `size` bytes if it is shorter than that.
    ///
    /// # Panics
    /// If the message has no JSON, as one with an unknown enum's value.
    pub(super) fn write<M: Message + Serialize>(self, message: &M, size: usize) -> Vec<u8> {
        match self {
            Self::Protobuf => padded(message.encode_to_vec(), size),
            Self::Json => {
                let mut body = serde_json::to_vec(message).expect("a command made here has its JSON");
                body.resize(size.max(body.len()), b' ');
                body
            }
        }
    }
}

/// Field 2047, length-delimited: unknown to every message.
const PADDING_TAG: [u8; 2] = [0xfa, 0x7f];

fn padded(mut value: Vec<u8>, size: usize) -> Vec<u8> {
    let room = size.saturating_sub(value.len());
    if room < 4 {
        return value;
    }
    value.extend(PADDING_TAG);
    let length_bytes = if room - 3 < 128 { 1 } else { 2 };
    prost::encoding::encode_varint((room - 2 - length_bytes) as u64, &mut value);
    value.resize(size.max(value.len()), b'.');
    value
}

#[cfg(test)]
mod tests {
    use holdfast_proto::orders::v1::AddItem;

    use super::*;

    #[test]
    fn both_forms_of_any_size_say_the_same() {
        let message = AddItem { order_id: "o".into(), sku: "sku-1".into(), quantity: 3 };
        for size in [0, 20, 40, 63, 64, 130, 131, 132, 200, 1_000] {
            let protobuf = Form::Protobuf.write(&message, size);
            assert_eq!(AddItem::decode(&*protobuf).expect("protobuf"), message, "{size}");
            let json = Form::Json.write(&message, size);
            assert_eq!(serde_json::from_slice::<AddItem>(&json).expect("JSON"), message, "{size}");
            assert!(size < 64 || [json.len(), protobuf.len()] == [size; 2], "{size}");
        }
    }
}
