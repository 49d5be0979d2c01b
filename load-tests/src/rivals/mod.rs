//! What Holdfast is measured against, beside the article's design ([`crate::baseline`]): Kafka Streams, and
//! the least that any of them must do.

pub mod echo;
pub mod streams;
