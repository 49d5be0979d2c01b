//! The port to other nodes on gRPC: one connection to each, kept while it owns anything.
//!
//! Invariant: at most [`PEERS_MAX`] connections, whatever addresses the partition rows hold. Each call has
//! the caller's deadline and runs under the peer's breaker.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_core::dedup::Answer;
use holdfast_platform::{
    errors,
    grpc::{CIRCUIT_OPEN, Peer, Stack, client::Settings, deadline, tls::TlsFiles},
    limited,
};
use holdfast_proto::runtime::v1::{CommandRequest, ReadRequest, actor_service_client::ActorServiceClient};
use holdfast_runtime::{
    RouteError,
    peers::{Answers, Forward, PeerError, Peers, Question},
};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::wire;

/// Connections at most; beyond, the one that was not used for longest is closed.
const PEERS_MAX: usize = 256;

/// The label of all nodes in metrics and spans: an address would be one too many.
const NAME: &str = "node";

/// A caller that comes too late speaks against the peer as little as against itself, so only a peer that
/// hardly ever answers is left alone, and not for long: its partitions may be somewhere else in a moment.
fn settings() -> Settings {
    Settings {
        connect: Duration::from_millis(500),
        breaker_failures: 20,
        breaker_open: Duration::from_secs(1),
        ..Settings::default()
    }
}

/// Connections to the other nodes, for all contexts of a process. Clones share them.
#[derive(Clone)]
pub struct PeerNodes {
    pool: Arc<Pool>,
}

struct Pool {
    tls: Option<TlsFiles>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<Arc<str>, (Peer, Instant)>,
    /// For each context the owners of anything.
    owners: BTreeMap<&'static str, BTreeSet<Arc<str>>>,
}

impl PeerNodes {
    /// No connection yet. With `tls`, nodes are called under it, as this one is.
    pub fn new(tls: Option<TlsFiles>) -> Self {
        Self { pool: Arc::new(Pool { tls, state: Mutex::default() }) }
    }

    /// The nodes that run `context`.
    pub fn of(&self, context: &'static str) -> Arc<dyn Peers> {
        Arc::new(PeersOf { context, pool: self.pool.clone() })
    }

    /// Addresses to which there is a connection, or is about to be one.
    pub fn addresses(&self) -> BTreeSet<Arc<str>> {
        self.pool.state().open.keys().cloned().collect()
    }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(&self, address: &str) -> Result<Peer, PeerError> {
        let mut state = self.state();
        if let Some((peer, used)) = state.open.get_mut(address) {
            *used = Instant::now();
            return Ok(peer.clone());
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let peer = Peer::new(NAME, &format!("{scheme}://{address}"), settings(), self.tls.as_ref());
        let peer = peer.map_err(|error| PeerError::Unreached(error.to_string()))?;
        if state.open.len() >= PEERS_MAX {
            let oldest = state.open.iter().min_by_key(|(_, (_, used))| *used).map(|(address, _)| address.clone());
            if let Some(address) = oldest {
                state.open.remove(&address);
            }
        }
        state.open.insert(address.into(), (peer.clone(), Instant::now()));
        Ok(peer)
    }
}

/// One context's view of the nodes.
struct PeersOf {
    context: &'static str,
    pool: Arc<Pool>,
}

impl PeersOf {
    /// For one attempt, bound by the caller's deadline alone.
    fn client(&self, address: &str) -> Result<ActorServiceClient<Stack>, PeerError> {
        let stack = self.pool.peer(address)?.streams();
        Ok(limited!(ActorServiceClient::new(stack)))
    }
}

#[tonic::async_trait]
impl Peers for PeersOf {
    async fn command(&self, address: &str, hop: u32, forward: &Forward) -> Result<Answer, PeerError> {
        let message = Some(wire::forward_out(forward));
        let request = CommandRequest { context: self.context.to_owned(), hop, message };
        let response = self.client(address)?.command(request).await.map_err(unanswered)?;
        wire::answer_in(response.into_inner())
    }

    async fn read(&self, address: &str, hop: u32, question: Question<'_>) -> Result<Answers, PeerError> {
        let Question { kind, keys, min_version } = question;
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let asked = keys.len();
        let request = ReadRequest { context: self.context.to_owned(), hop, kind: kind.to_owned(), keys, min_version };
        let response = self.client(address)?.read(request).await.map_err(unanswered)?.into_inner();
        if response.results.len() != asked {
            return Err(PeerError::Lost(format!("{asked} keys were asked for, {} answered", response.results.len())));
        }
        Ok(response.results.into_iter().map(wire::read_in).collect())
    }

    fn keep(&self, addresses: &BTreeSet<Arc<str>>) {
        let mut state = self.pool.state();
        state.owners.insert(self.context, addresses.clone());
        let State { open, owners } = &mut *state;
        open.retain(|address, _| owners.values().any(|owners| owners.contains(address)));
    }

    fn time_left(&self) -> Option<Duration> {
        deadline::current().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// What a status says that came instead of a response.
fn unanswered(status: Status) -> PeerError {
    let reason = errors::reason(&status);
    match status.code() {
        Code::DeadlineExceeded => PeerError::Late,
        Code::ResourceExhausted => PeerError::Answered(RouteError::Overloaded),
        Code::Unavailable if reason.as_deref() == Some(CIRCUIT_OPEN) => {
            PeerError::Unreached("the node did not answer the last calls".to_owned())
        }
        // A build that does not know the service, or does not let this node in.
        Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated => {
            PeerError::Unreached(status.message().to_owned())
        }
        _ => PeerError::Lost(status.message().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(addresses: &[&str]) -> BTreeSet<Arc<str>> {
        addresses.iter().map(|address| Arc::from(*address)).collect()
    }

    #[tokio::test]
    async fn connection_is_kept_while_any_context_has_an_owner_there() {
        let nodes = PeerNodes::new(None);
        let (orders, inventory) = (nodes.of("orders"), nodes.of("inventory"));
        for address in ["a:1", "b:1", "c:1"] {
            nodes.pool.peer(address).unwrap();
        }
        orders.keep(&set(&["a:1", "b:1"]));
        assert_eq!(nodes.addresses(), set(&["a:1", "b:1"]));
        inventory.keep(&set(&["b:1"]));
        orders.keep(&set(&["a:1"]));
        assert_eq!(nodes.addresses(), set(&["a:1", "b:1"]));
        inventory.keep(&set(&[]));
        assert_eq!(nodes.addresses(), set(&["a:1"]));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_bounded_and_the_idlest_goes() {
        let nodes = PeerNodes::new(None);
        for n in 0..=PEERS_MAX {
            nodes.pool.peer(&format!("a:{}", n + 1)).unwrap();
            tokio::time::advance(Duration::from_millis(1)).await;
            nodes.pool.peer("a:1").unwrap();
        }
        let addresses = nodes.addresses();
        assert_eq!(addresses.len(), PEERS_MAX);
        assert!(addresses.contains("a:1") && !addresses.contains("a:2"));
    }
}
