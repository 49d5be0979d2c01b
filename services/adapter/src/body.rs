//! A message's body: protobuf, or its canonical JSON.
//!
//! Deliberately absent: the parsers' own words where they quote what they read; a dead letter's reason holds no payload.

use holdfast_core::{Message, disposition::Refused, envelope::ContentType};
use prost::Name;
use serde::de::DeserializeOwned;

/// Reads the body of `message` as an `M`.
///
/// # Errors
/// UNDECODABLE if it is none.
pub fn decode<M: Name + Default + DeserializeOwned>(message: &Message) -> Result<M, Refused> {
    match message.content_type {
        ContentType::Protobuf => M::decode(&*message.payload)
            .map_err(|_| Refused::undecodable(format!("the body is not the protobuf message {}", M::full_name()))),
        ContentType::Json => serde_json::from_slice(&message.payload).map_err(|error| {
            Refused::undecodable(format!(
                "the body is not the canonical JSON of {} (line {}, column {})",
                M::full_name(),
                error.line(),
                error.column()
            ))
        }),
    }
}
