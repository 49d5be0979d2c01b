//! The payments context as the world meets it: its bytes, its provider over real HTTP, its gRPC service.
#![allow(clippy::unwrap_used)]

mod books;
mod codec;
mod contradictions;
mod faults;
mod golden;
mod keys;
mod rates;
mod service;
mod till;
mod webhook;
