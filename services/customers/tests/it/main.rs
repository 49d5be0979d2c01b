//! The customers context as callers, topics and tables meet it: a real gRPC server before a node on in-memory
//! ports, in real time.
#![allow(clippy::unwrap_used)]

mod addresses;
mod canary;
mod checks;
mod codec;
mod golden;
mod recover;
mod service;
mod shop;
