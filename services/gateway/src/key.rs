//! `Idempotency-Key`: by which a mutation that is sent twice takes effect once.
//!
//! A key is one caller's: two callers may choose the same. Invariant: the same caller's same key is always
//! the same request id, so that a context knows it again, and the same id for what it makes; with another
//! body that is a conflict, which the context finds by its claim.

use axum::extract::FromRequestParts;
use http::request::Parts;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::{identity::Caller, problem::Problem};

/// The header.
pub const HEADER: &str = "idempotency-key";

/// Longest key, in bytes.
pub const BYTES_MAX: usize = 64;

/// The name space of request ids. Must never change: claims are found by what is made with it.
const REQUESTS: Uuid = Uuid::from_u128(0x3c1d_77a0_52be_4e0f_9d16_0a8e_41f3_6b92);

/// The name space of ids of what is made by a request. Must never change, as the one above.
const MADE: Uuid = Uuid::from_u128(0x9a40_1f6e_c83b_4d2a_b7f5_6e2c_0d91_58a3);

/// The key of a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

/// As it is described.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it describes a header; Key is what reads it")]
pub struct Keyed {
    /// Chosen by the caller, the same for every attempt at the same request: 1-64 visible ASCII characters,
    /// such as a UUID.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 64, pattern = "^[!-~]{1,64}$")]
    key: String,
}

impl Key {
    fn read(text: Option<&[u8]>) -> Result<Self, Problem> {
        let Some(text) = text else {
            let say = "is required: the same for every attempt at the same request, for example a UUID";
            return Err(Problem::malformed("IDEMPOTENCY_KEY_MISSING", "Idempotency-Key", say));
        };
        let is_one = (1..=BYTES_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
        match std::str::from_utf8(text) {
            Ok(text) if is_one => Ok(Self(text.to_owned())),
            _ => Err(Problem::malformed(
                "IDEMPOTENCY_KEY_INVALID",
                "Idempotency-Key",
                "has to be 1-64 visible ASCII characters",
            )),
        }
    }

    /// The request id under which contexts know what `caller` asked with this key.
    pub fn request_id(&self, caller: &Caller) -> String {
        self.made_with(&REQUESTS, caller).to_string()
    }

    /// The id of what this request makes.
    pub fn made(&self, caller: &Caller) -> Uuid {
        self.made_with(&MADE, caller)
    }

    fn made_with(&self, space: &Uuid, caller: &Caller) -> Uuid {
        // A subject may hold anything; its length tells where it ends.
        let subject = caller.subject();
        Uuid::new_v5(space, format!("{}:{subject}:{}", subject.len(), self.0).as_bytes())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::read(parts.headers.get(HEADER).map(http::HeaderValue::as_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::read(Some(text.as_bytes())).unwrap()
    }

    #[test]
    fn a_key_is_its_callers_and_always_means_the_same() {
        let (ada, bob) = (Caller::staff("ada"), Caller::staff("bob"));
        assert_eq!(key("1").request_id(&ada), key("1").request_id(&ada));
        assert_ne!(key("1").request_id(&ada), key("2").request_id(&ada));
        assert_ne!(key("1").request_id(&ada), key("1").request_id(&bob));
        assert_ne!(key("1").request_id(&ada), key("1").made(&ada).to_string());
        // Where one ends and the other begins is no matter of taste.
        assert_ne!(key("b1").request_id(&Caller::staff("a")), key("1").request_id(&Caller::staff("ab")));
        // Golden: claims of the past are found by it.
        assert_eq!(key("order-1").request_id(&ada), "1f5f5a1e-17ab-56ea-8263-19820b8f4a37");
    }

    #[test]
    fn a_missing_empty_long_or_strange_key_is_refused() {
        assert_eq!(Key::read(None).unwrap_err().reason(), "IDEMPOTENCY_KEY_MISSING");
        for text in ["", " ", "a b", "\u{e9}", &"x".repeat(65)] {
            assert_eq!(Key::read(Some(text.as_bytes())).unwrap_err().reason(), "IDEMPOTENCY_KEY_INVALID", "{text:?}");
        }
        assert!(Key::read(Some("x".repeat(64).as_bytes())).is_ok());
    }
}
