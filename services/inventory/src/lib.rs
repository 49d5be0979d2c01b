//! The inventory context: what stands between its aggregates and the world.
//!
//! [`app`] composes it. [`codec`] is the wire and storage form of reservations and skus, [`subscriptions`]
//! what the events of orders mean to a reservation, [`grpc`] its services, [`status`] its rejections as
//! statuses. Deliberately absent: decisions, which are the domain's; a read model of its own (the catalog
//! reads states and pools).

pub mod app;
pub mod codec;
pub mod grpc;
mod sku;
pub mod status;
pub mod subscriptions;
