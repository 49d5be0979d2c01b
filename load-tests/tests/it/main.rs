//! The benchmark and the checkers on the real stack.
//!
//! One binary, because each links the whole runtime.
#![allow(clippy::unwrap_used)]

mod pipeline;
mod scenarios;
mod tampered;
