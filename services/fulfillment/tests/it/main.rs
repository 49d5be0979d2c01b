//! The fulfillment context as callers, topics and tables meet it: a real gRPC server before a node on the
//! in-memory log, over a store in memory or on a real Postgres.
#![allow(clippy::unwrap_used)]

mod canary;
mod codec;
mod erasure;
mod golden;
mod lists;
mod service;
mod shop;
