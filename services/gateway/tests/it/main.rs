//! The edge by itself: who gets in. The whole of it, before real contexts, is tested with the binary.

#![allow(clippy::unwrap_used)]

mod described;
mod identity;
