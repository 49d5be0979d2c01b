//! The payments context: what stands between its aggregate, the provider and the world.
//!
//! [`app`] composes it. [`codec`] is the wire and storage form of payments and of the calls they bring about,
//! [`subscriptions`] what the events of orders mean to a payment, [`grpc`] its service, [`status`] its
//! rejections as statuses. [`perform`] makes the calls, through [`provider`], the port, whose adapters are
//! [`stripe`] and, for trying it all out, a [`simulator`] that speaks Stripe's API over HTTP. [`rates`] is
//! where rates come from. [`webhook`] takes what the provider reports by itself. [`projection`] lists the
//! payments that are stopped because the provider contradicted what was asked of it. Deliberately absent:
//! decisions, which are the domain's; card numbers: a payment method is a token of the provider's.

pub mod app;
pub mod codec;
pub mod grpc;
pub mod perform;
pub mod projection;
pub mod provider;
pub mod rates;
mod settings;
pub mod simulator;
pub mod status;
pub mod stripe;
pub mod subscriptions;
pub mod webhook;
