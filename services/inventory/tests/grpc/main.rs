//! Inventory's services as a caller meets them: a real gRPC server before a node on in-memory ports, in real
//! time.
#![allow(clippy::unwrap_used)]

mod catalog;
mod reservations;
mod shop;
mod stock;
