//! What a lane needs of its node: the ports, the context, and what all lanes share.
//!
//! Deliberately absent: anything that a lane changes.

use std::sync::Arc;

use holdfast_core::port::{clock::Clock, log::Log, store::Store};

use crate::{config::Config, context::BoundedContext, effects::EffectCalls, emit::Emit, growth::Homes};

/// What a lane needs of its node.
pub(crate) struct Environment {
    pub context: Arc<BoundedContext>,
    pub config: Arc<Config>,
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn Log>,
    pub clock: Arc<dyn Clock>,
    pub emit: Arc<Emit>,
    pub homes: Homes,
    pub effects: EffectCalls,
}
