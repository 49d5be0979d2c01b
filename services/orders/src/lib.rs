//! The orders context: what stands between the Order aggregate and the world.
//!
//! [`app`] composes it. [`codec`] is the aggregate's wire and storage form, [`subscriptions`] what
//! inventory's events mean to it, [`prices`] and [`customers`] the look-ups of Prepare, [`grpc`] its service,
//! [`projection`] its read model and [`queries`] its questions, [`status`] its rejections as statuses.
//! Deliberately absent: decisions, which are the domain's.

pub mod app;
pub mod codec;
pub mod customers;
pub mod grpc;
pub mod prices;
pub mod projection;
pub mod queries;
pub mod status;
pub mod subscriptions;
