//! What all handlers share: the contexts behind the edge, and how one is asked.
//!
//! Invariant: a context is asked in a caller's name, never in the edge's own, and what it refuses is a
//! problem. Deliberately absent: routes, and what is around them ([`crate::app`]).

use holdfast_platform::grpc::Peer;

use crate::{identity::Identity, limit::Limit};

/// The contexts behind the edge.
#[derive(Clone, Debug)]
pub struct Contexts {
    /// Orders.
    pub orders: Peer,
    /// Stock and prices.
    pub inventory: Peer,
    /// Money.
    pub payments: Peer,
    /// Parcels.
    pub fulfillment: Peer,
    /// People.
    pub customers: Peer,
}

/// What handlers share.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Behind it.
    pub contexts: Contexts,
    /// Who calls.
    pub identity: Identity,
    /// How often.
    pub limit: Limit,
}

/// Asks a context as a caller: `ask!(peer, Client.method, caller, message)`.
macro_rules! ask {
    ($peer:expr, $client:ident.$method:ident, $caller:expr, $message:expr) => {{
        let message = $message;
        let call = |stack| {
            let request = $caller.request(message.clone());
            async move { $client::new(stack).$method(request).await }
        };
        $peer.call(call).await.map(tonic::Response::into_inner).map_err($crate::problem::Problem::from)
    }};
}
pub(crate) use ask;
