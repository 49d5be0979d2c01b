//! The edge: REST for clients and pages for people, in front of the contexts' gRPC.
//!
//! [`app`] composes it, and its description in `OpenAPI` with it. [`identity`] is who calls, by a token;
//! [`limit`] how often. [`body`], [`key`] and [`path`] take requests apart, [`problem`] is every answer that
//! is no success. [`orders`], [`customer`] and [`catalog`] are the resources, [`model`] what they look like,
//! [`pages`] the same for people, [`around`] what happens to every request. [`issuer`] hands out tokens where
//! there is nobody else to, for trying it all out and for tests. Invariant: a caller gets at nothing that is
//! another customer's, and learns not even that it is there. Every mutation has an idempotency key, which
//! becomes the request id that the contexts know it by. Deliberately absent: state, decisions, and TLS, which
//! ends before it.

pub mod app;
pub mod around;
pub mod body;
pub mod catalog;
pub mod customer;
mod edge;
pub mod identity;
pub mod issuer;
pub mod key;
pub mod limit;
pub mod model;
pub mod orders;
pub mod pages;
pub mod path;
pub mod problem;
