//! The seal of a context: what shows that a message comes from the context itself.
//!
//! The key lies in the context's schema, so only who may read that schema can make a seal. Invariant: a seal
//! covers all that decides what a message does (id, source or origin, type, key, body) and what it was made
//! for, and is compared in constant time. Deliberately absent: freshness. A copied message keeps its id, and
//! the claim kept under it answers the copy.

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::{call::CallEnvelope, envelope::Message};

/// Bytes of the key.
pub const KEY_BYTES: usize = 32;

/// A context's key.
#[derive(Clone, PartialEq, Eq)]
pub struct Seal([u8; KEY_BYTES]);

/// Without the key.
impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// With this key.
    pub const fn new(key: [u8; KEY_BYTES]) -> Self {
        Self(key)
    }

    /// For a record that the context writes to its own commands topic; the value of
    /// [`crate::envelope::header::SEAL`].
    pub fn of_sent(&self, message: &Message) -> String {
        hex::encode(self.sent(message).finalize().into_bytes())
    }

    /// Whether `shown` is the seal of `message`.
    pub fn is_sent(&self, message: &Message, shown: &[u8]) -> bool {
        hex::decode(shown).is_ok_and(|shown| self.sent(message).verify_slice(&shown).is_ok())
    }

    /// For a call that one node forwards to another.
    pub fn of_forward(&self, call: &CallEnvelope) -> Vec<u8> {
        self.forward(call).finalize().into_bytes().to_vec()
    }

    /// Whether `shown` is the seal of `call`.
    pub fn is_forward(&self, call: &CallEnvelope, shown: &[u8]) -> bool {
        self.forward(call).verify_slice(shown).is_ok()
    }

    fn sent(&self, message: &Message) -> Hmac<Sha256> {
        let (id, body) = (message.id.as_bytes(), Sha256::digest(&message.payload));
        let media = message.content_type.as_str();
        self.mac(&[
            b"sent",
            id,
            message.source.as_bytes(),
            message.r#type.as_bytes(),
            message.key.as_bytes(),
            media.as_bytes(),
            &body,
        ])
    }

    fn forward(&self, call: &CallEnvelope) -> Hmac<Sha256> {
        let (id, body) = (call.id.as_bytes(), Sha256::digest(&call.payload));
        let media = call.content_type.as_str();
        let source = call.origin.source();
        self.mac(&[
            b"forward",
            id,
            source.as_bytes(),
            call.r#type.as_bytes(),
            call.key.as_bytes(),
            media.as_bytes(),
            &body,
        ])
    }

    /// Over the parts, each preceded by its length.
    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::call::CallOrigin;

    fn message() -> Message {
        Message::new(Uuid::from_u128(1), "holdfast/shop/cart", "Erase", "a", Bytes::from_static(b"body"))
    }

    #[test]
    fn seal_covers_all_that_decides_what_a_message_does() {
        let seal = Seal::new([7; KEY_BYTES]);
        let shown = seal.of_sent(&message());
        assert!(seal.is_sent(&message(), shown.as_bytes()));
        let others = [
            Message { id: Uuid::from_u128(2), ..message() },
            Message { source: "holdfast/shop/car".into(), ..message() },
            Message { r#type: "Eras".into(), key: "ea".into(), ..message() },
            Message { key: "b".into(), ..message() },
            Message { content_type: crate::envelope::ContentType::Json, ..message() },
            Message { payload: Bytes::from_static(b"bod"), ..message() },
        ];
        for other in others {
            assert!(!seal.is_sent(&other, shown.as_bytes()), "{other:?}");
        }
        let flow = Message { correlation: Some("flow".into()), sequence: Some(1), ..message() };
        assert!(seal.is_sent(&flow, shown.as_bytes()), "tracing is not covered");
        assert!(!Seal::new([8; KEY_BYTES]).is_sent(&message(), shown.as_bytes()), "another context's key");
        for garbage in [&b""[..], b"00", b"not hex", &[0xff; 64]] {
            assert!(!seal.is_sent(&message(), garbage));
        }
    }

    #[test]
    fn seal_of_a_forward_is_no_seal_of_a_record() {
        let seal = Seal::new([7; KEY_BYTES]);
        let call = CallEnvelope {
            id: Uuid::from_u128(1),
            ..CallEnvelope::new(Uuid::nil(), "Erase", "a", Bytes::from_static(b"body"))
        };
        let shown = seal.of_forward(&call);
        assert!(seal.is_forward(&call, &shown));
        let webhook = CallEnvelope { origin: CallOrigin::Webhook("stripe/webhook".into()), ..call.clone() };
        assert!(!seal.is_forward(&webhook, &shown), "a call made a webhook");
        let record = call.into_message().expect("sound");
        assert!(!seal.is_sent(&record, hex::encode(shown).as_bytes()));
    }

    #[test]
    fn key_is_not_shown() {
        assert_eq!(format!("{:?}", Seal::new([7; KEY_BYTES])), "Seal");
    }
}
