//! The orders context from outside: what its codec reads and writes, what its service answers, what its
//! questions find.

#![allow(clippy::unwrap_used)]

mod codec;
mod golden;
mod lists;
mod service;
mod shop;
mod watch;
