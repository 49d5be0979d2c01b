//! The customers context: what stands between the Customer aggregate and the world.
//!
//! [`app`] composes it. [`codec`] is the aggregate's wire and storage form, [`grpc`] its service, [`status`]
//! its rejections as statuses. Invariant: personal data goes in and out by gRPC and lies in stored states; no
//! event, rejection, answer of a mutation, log line or span has any. Deliberately absent: decisions, which
//! are the domain's; subscriptions, since customers follow nobody; a read model.

pub mod app;
pub mod codec;
pub mod grpc;
pub mod status;
