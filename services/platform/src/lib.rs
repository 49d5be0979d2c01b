//! What every Holdfast process does the same: configuration, telemetry, health, metrics, the operations port,
//! an HTTP client, the gRPC server and client stacks, and leaving in good order.
//!
//! Invariant: nothing in here knows an order or a stock; a context gives its services and checks, and gets a
//! process around them. Every wait has a deadline, every queue and every header a bound.
//!
//! Deliberately absent: the runtime (`actors/`), which must not depend on a service and receives what it
//! needs as functions ([`telemetry::OtelLink`]); the `backoff` crate, which only the runtime may name;
//! process exit, which is the binary's to call with the code this crate computes.

pub mod config;
pub mod context;
pub mod errors;
pub mod grpc;
pub mod health;
pub mod http;
pub mod http_client;
pub mod metrics;
pub mod net;
pub mod semconv;
pub mod shutdown;
pub mod telemetry;

pub use config::Config;
pub use context::Context;
pub use health::Health;
pub use shutdown::Shutdown;
