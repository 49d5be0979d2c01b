//! The one gRPC server stack and the one client stack.
//!
//! Invariant: every request has a correlation id, a span joined to its caller's trace, a deadline and a
//! bounded size; every failure leaves as a status with details, never UNKNOWN and never with a panic's text.
//!
//! Deliberately absent: services, authentication (an interceptor of the context's), routing between nodes.

pub mod client;
pub mod deadline;
mod layer;
mod retry;
pub mod server;
pub mod tls;

pub use client::{Peer, Stack};
pub use layer::{RequestContext, correlation_id};
pub use retry::Retry;
pub use server::{Limits, Server};

/// Largest message either way, in bytes. tonic's own limit covers only what is received.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Metadata key of the correlation id, both ways.
pub const CORRELATION_HEADER: &str = "x-correlation-id";

/// Metadata key of whom a call is made for: `customer/<id>` or `staff/<subject>`, as the edge found by a
/// token. For logs and traces; who may do what is decided at the edge.
pub const CALLER_HEADER: &str = "x-holdfast-caller";

/// Reason of a call that the breaker refused.
pub const CIRCUIT_OPEN: &str = "CIRCUIT_OPEN";

/// Reason of a call that did not arrive.
pub const PEER_UNREACHABLE: &str = "PEER_UNREACHABLE";

/// Applies [`MESSAGE_BYTES_MAX`] to a generated server or client:
/// `limited!(OrderServiceServer::new(service))`.
#[macro_export]
macro_rules! limited {
    ($generated:expr) => {
        $generated
            .max_decoding_message_size($crate::grpc::MESSAGE_BYTES_MAX)
            .max_encoding_message_size($crate::grpc::MESSAGE_BYTES_MAX)
    };
}

#[cfg(test)]
mod tests;
