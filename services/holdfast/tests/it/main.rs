//! What holds across contexts and for the tree as a whole, but for what needs the shop
//! ([`system`](../system/main.rs)) or faults.
//!
//! One binary, because each links the whole program.
#![allow(clippy::unwrap_used)]

mod choreography;
mod circles;
mod deploy;
mod layout;
mod recover;
mod roles;
mod source;
mod tidy;
