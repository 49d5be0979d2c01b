//! The adapter against a real broker: laws of the ports, and a pin for each known defect of librdkafka that
//! the adapter works around.

mod conformance;
mod faults;
mod log;
mod membership;
mod publisher;
mod rig;
mod topics;
mod unsteady;
