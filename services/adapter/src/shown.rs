//! Aggregates as operators see them: whatever the kind, a JSON object.
//!
//! Deliberately absent: what an operator may do with them.

use prost::Message;
use serde::Serialize;

/// One kind of aggregate of a context.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name, as it is stored.
    pub name: &'static str,
    /// An actor's encoded reply as canonical proto3 JSON.
    pub json: fn(&[u8]) -> Result<String, Error>,
}

/// A reply that is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// These are not the bytes of the kind's message.
    #[error("the reply can't be decoded")]
    Bytes(#[from] prost::DecodeError),
    /// It has no JSON form.
    #[error("the reply has no JSON form")]
    Json(#[from] serde_json::Error),
}

/// The kind whose replies are of message `M`.
pub const fn kind<M: Message + Default + Serialize>(name: &'static str) -> Kind {
    Kind { name, json: json::<M> }
}

fn json<M: Message + Default + Serialize>(body: &[u8]) -> Result<String, Error> {
    Ok(serde_json::to_string(&M::decode(body)?)?)
}

#[cfg(test)]
mod tests {
    use holdfast_proto::money::v1::Money;

    use super::*;

    #[test]
    fn a_reply_is_shown_as_its_json_and_garbage_is_an_error() {
        let kind = kind::<Money>("amount");
        let body = Money { minor: 5, currency: "EUR".to_owned() }.encode_to_vec();
        assert_eq!((kind.json)(&body).unwrap(), r#"{"minor":"5","currency":"EUR"}"#);
        assert!(matches!((kind.json)(b"\xff"), Err(Error::Bytes(_))));
    }
}
