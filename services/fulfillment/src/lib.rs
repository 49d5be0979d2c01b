//! The fulfillment context: what stands between its aggregates and the world.
//!
//! [`app`] composes it. [`codec`] is the wire and storage form of shipments and recipients, [`subscriptions`]
//! what the events of orders, inventory and customers mean to them, [`addresses`] and [`carrier`] the
//! look-ups of Prepare, [`grpc`] its service, [`projection`] its read model and [`queries`] its questions,
//! [`status`] its rejections as statuses. Invariant: an address comes in by a look-up, lies in a shipment's
//! stored state and leaves in the answer of `GetShipment`; no event, command, answer of a mutation, read
//! model, log line or span has one. Deliberately absent: decisions, which are the domain's.

pub mod addresses;
pub mod app;
pub mod carrier;
pub mod codec;
pub mod grpc;
pub mod projection;
pub mod queries;
pub mod status;
pub mod subscriptions;
