//! Calls between the nodes of a context, over `holdfast.runtime.v1.ActorService`.
//!
//! [`PeerNodes`] is the runtime's port to the other nodes, [`register`] the side that answers; [`wire`] is
//! what travels between them. Invariant: every error of the runtime arrives as itself, as a part of the
//! response; a gRPC status only says that there is no answer. Deadline, trace and correlation id travel as
//! with any call ([`holdfast_platform::grpc`]). Deliberately absent: trying again (the runtime's), and
//! knowing who owns what.

mod client;
mod server;
pub mod wire;

pub use client::PeerNodes;
pub use server::{Actors, Admit, anybody, register};
