//! Any node takes any call: what this node does not own is forwarded to the one that does.
//!
//! One attempt asks this node if it owns the key's home, else the owner as the table has it, and if that one
//! refuses, the one that the refusal led to: two hops at most ([`HOPS_MAX`]), and a node that is asked by
//! another forwards nothing. While nobody serves the home, attempts are repeated with a growing, jittered
//! pause for as long as [`Limits::patience`] and the caller's deadline allow; then the call is UNAVAILABLE. A
//! command may be sent again because it always carries the same id: the owner's claims give it the first
//! answer (I2). A strong read is answered by an owner under its lease or not at all, and a LOCAL one never
//! leaves the node (I5).
//!
//! Deliberately absent: any transport ([`crate::peers`]), and any belief that the table is right.

use std::{collections::HashMap, future::Future, pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use holdfast_core::{CallEnvelope, PartitionId, dedup::Answer, port::store::StoreError};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    admission::CallBudget,
    backoff::Backoff,
    node::Node,
    owners::Owners,
    peers::{Answers, Forward, HOPS_MAX, Local, PeerError, Peers, Placement, Question},
    router::{Consistency, READS_MAX, ReadAnswer, RouteError, Router},
    telemetry,
};

/// How patiently a node routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a call looks for an owner, if its deadline does not come before.
    pub patience: Duration,
    /// Between the beginnings of two reads of the owners' table, at least; and a node that refused is not
    /// asked again within.
    pub refresh_every: Duration,
    /// A forward that takes longer than this looks whether its partition has been taken by another node: a
    /// paused one never answers.
    pub look_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A hand-over in good order, with a rebalance by the slower of Kafka's protocols, is done by
            // then.
            patience: Duration::from_secs(5),
            refresh_every: Duration::from_millis(50),
            look_after: Duration::from_secs(1),
        }
    }
}

/// The first and the longest pause between two attempts, about.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(400)];

/// Owners asked at the same time for one batch of reads.
const OWNERS_MAX: usize = 16;

/// What an attempt is left with that found no answer.
enum Miss {
    /// The owner says no, or will: asking again changes nothing.
    Final(RouteError),
    /// Nobody who owns the home was found. Another attempt may find one.
    Moving(RouteError),
}

/// The router of a node among others.
pub struct Routed {
    node: Arc<Node>,
    peers: Arc<dyn Peers>,
    owners: Owners,
    /// This node's own.
    address: Arc<str>,
    limits: Limits,
    /// Calls that look for an owner or wait for its answer. Those that run here take room of the node's own
    /// besides.
    calls: CallBudget,
}

impl Routed {
    /// Routes between `node`, which its rows call `address`, and `peers`.
    pub fn new(node: Arc<Node>, peers: Arc<dyn Peers>, address: &str, limits: Limits) -> Arc<Self> {
        let owners = Owners::new(node.store.clone(), limits.refresh_every);
        let calls = node.calls.twin();
        Arc::new(Self { node, peers, owners, address: address.into(), limits, calls })
    }

    /// Room for a call of `bytes` bytes, for as long as the call is under way (I11).
    fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, RouteError> {
        self.calls.try_take(bytes).ok_or(RouteError::Overloaded)
    }

    /// How often the owners' table was read so far.
    pub fn table_reads(&self) -> u64 {
        self.owners.reads()
    }

    async fn route<A: Ask>(&self, ask: &A) -> Result<A::Answer, RouteError> {
        let until = self.until();
        let mut backoff = None;
        loop {
            let failure = match self.attempt(ask).await {
                Ok(answer) => return Ok(answer),
                Err(Miss::Final(error)) => return Err(error),
                Err(Miss::Moving(error)) => error,
            };
            let backoff = backoff.get_or_insert_with(|| Backoff::new(PAUSES[0], PAUSES[1]));
            if timeout_at(until, backoff.wait()).await.is_err() {
                return Err(failure);
            }
        }
    }

    /// When a call stops looking for an owner: early enough for its caller to hear of it.
    fn until(&self) -> Instant {
        let left = self.peers.time_left().map(|left| left.saturating_sub((left / 10).min(Duration::from_millis(50))));
        Instant::now() + left.map_or(self.limits.patience, |left| left.min(self.limits.patience))
    }

    async fn attempt<A: Ask>(&self, ask: &A) -> Result<A::Answer, Miss> {
        self.node.unless_halted().map_err(Miss::Final)?;
        let home = self.node.home(ask.key());
        let mut failure = RouteError::not_owner("nobody serves the key's partition just now");
        if self.node.owns(home) {
            match ask.here(&self.node).await {
                Err(error @ RouteError::NotOwner(_)) => failure = error,
                answer => return answer.map_err(Miss::Final),
            }
        }
        let mut place = self.owners.place(home);
        if place.as_ref().is_none_or(|place| place.address == self.address) {
            place = self.look_up(home, Instant::now()).await?;
        }
        for hop in 1..=HOPS_MAX {
            let Some(asked) = place.filter(|place| place.address != self.address) else { break };
            let is_newer_known = match self.forward(&asked, hop, ask).await {
                Ok(answer) => return Ok(answer),
                Err(PeerError::Answered(error)) => return Err(Miss::Final(error)),
                Err(PeerError::Late) => return Err(Miss::Final(RouteError::Late)),
                Err(PeerError::NotOwner { reason, owner }) => {
                    failure = RouteError::NotOwner(reason);
                    self.owners.refused(&asked, owner)
                }
                Err(error @ (PeerError::Unreached(_) | PeerError::Lost(_) | PeerError::Unsealed)) => {
                    failure = RouteError::unavailable(error.to_string());
                    self.owners.epoch(home) > asked.epoch
                }
            };
            place = if is_newer_known { self.owners.place(home) } else { self.look_up(home, Instant::now()).await? };
            if place.as_ref() == Some(&asked) {
                break;
            }
        }
        Err(Miss::Moving(failure))
    }

    /// Where `home` is served, according to a table that was read after `since`.
    async fn look_up(&self, home: PartitionId, since: Instant) -> Result<Option<Placement>, Miss> {
        match self.refresh(since).await {
            Ok(()) => Ok(self.owners.place(home)),
            Err(error) => Err(Miss::Moving(RouteError::unavailable(format!("owners unknown: {error}")))),
        }
    }

    async fn refresh(&self, since: Instant) -> Result<(), StoreError> {
        let read = self.owners.refresh(since).await;
        if let Ok(Some(addresses)) = &read {
            metrics::counter!(telemetry::OWNER_READS_TOTAL, "context" => self.node.name()).increment(1);
            self.peers.keep(addresses);
        }
        read.map(drop)
    }

    /// Asks the node at `place`, for as long as nobody newer is known to own the home.
    async fn forward<A: Ask>(&self, place: &Placement, hop: u32, ask: &A) -> Result<A::Answer, PeerError> {
        let mut call = pin!(ask.there(&self.node, &*self.peers, &place.address, hop));
        let overtaken = async {
            loop {
                let begun = Instant::now();
                sleep(self.limits.look_after).await;
                // A read that fails tells nothing; the call goes on.
                let _ = self.refresh(begun).await;
                if self.owners.epoch(place.partition) > place.epoch {
                    return;
                }
            }
        };
        let answer = tokio::select! {
            biased;
            answer = &mut call => answer,
            () = overtaken => Err(PeerError::Lost("another node has taken the partition meanwhile".to_owned())),
        };
        let outcome = match &answer {
            Ok(_) => "answered",
            Err(PeerError::Answered(_)) => "refused",
            Err(PeerError::NotOwner { .. }) => "not_owner",
            Err(PeerError::Unreached(_) | PeerError::Unsealed) => "unreached",
            Err(PeerError::Lost(_) | PeerError::Late) => "lost",
        };
        metrics::counter!(telemetry::FORWARDS_TOTAL, "context" => self.node.name(), "outcome" => outcome).increment(1);
        tracing::debug!(context = self.node.name(), partition = place.partition.0, hop, outcome, "forwarded");
        answer
    }

    /// Reads what one owner is believed to have in one question. What it does not answer is missing from the
    /// result.
    async fn read_at(&self, address: &str, question: Question<'_>, places: Vec<usize>) -> Vec<(usize, ReadResult)> {
        let asked = timeout(self.limits.look_after, self.peers.read(address, 1, question)).await;
        let Ok(Ok(answers)) = asked else { return Vec::new() };
        let settled = |(at, answer)| match answer {
            Ok(answer) => Some((at, Ok(answer))),
            Err(PeerError::Answered(error)) => Some((at, Err(error))),
            Err(_) => None,
        };
        places.into_iter().zip(answers).filter_map(settled).collect()
    }

    fn refusal(&self, home: PartitionId, error: RouteError) -> PeerError {
        match error {
            RouteError::NotOwner(reason) => {
                let owner = self.owners.place(home).filter(|place| place.address != self.address);
                PeerError::NotOwner { reason, owner }
            }
            error => PeerError::Answered(error),
        }
    }
}

type ReadResult = Result<ReadAnswer, RouteError>;

/// A call that can be made here or elsewhere.
trait Ask: Send + Sync {
    type Answer: Send;

    fn key(&self) -> &str;

    /// Of this node.
    fn here(&self, node: &Node) -> impl Future<Output = Result<Self::Answer, RouteError>> + Send;

    /// Of the node at `address`, asked by `node`.
    fn there(
        &self,
        node: &Node,
        peers: &dyn Peers,
        address: &str,
        hop: u32,
    ) -> impl Future<Output = Result<Self::Answer, PeerError>> + Send;
}

/// A command of this node's caller.
struct OwnersCommand {
    call: CallEnvelope,
}

impl Ask for OwnersCommand {
    type Answer = Answer;

    fn key(&self) -> &str {
        &self.call.key
    }

    async fn here(&self, node: &Node) -> Result<Answer, RouteError> {
        node.command(self.call.clone()).await
    }

    async fn there(&self, node: &Node, peers: &dyn Peers, address: &str, hop: u32) -> Result<Answer, PeerError> {
        peers.command(address, hop, &node.forward(&self.call)).await
    }
}

/// A strong read of one aggregate.
struct StrongRead {
    kind: &'static str,
    key: Arc<str>,
    min_version: u64,
}

impl Ask for StrongRead {
    type Answer = ReadAnswer;

    fn key(&self) -> &str {
        &self.key
    }

    async fn here(&self, node: &Node) -> Result<ReadAnswer, RouteError> {
        node.read(self.kind, &self.key, Consistency::Strong, self.min_version).await
    }

    async fn there(&self, _: &Node, peers: &dyn Peers, address: &str, hop: u32) -> Result<ReadAnswer, PeerError> {
        let keys = std::slice::from_ref(&self.key);
        let mut answers =
            peers.read(address, hop, Question { kind: self.kind, keys, min_version: self.min_version }).await?;
        match (answers.pop(), answers.is_empty()) {
            (Some(answer), true) => answer,
            _ => Err(PeerError::Lost("one key was asked for, and not one answer came".to_owned())),
        }
    }
}

#[async_trait]
impl Router for Routed {
    async fn command(&self, call: CallEnvelope) -> Result<Answer, RouteError> {
        let _room = self.room(call.size_bytes())?;
        // A malformed call is refused at once, whichever node owns its home and even if none does.
        if !self.node.owns(self.node.home(&call.key)) {
            self.node.check(&call)?;
        }
        self.route(&OwnersCommand { call }).await
    }

    async fn read(
        &self,
        kind: &'static str,
        key: &str,
        consistency: Consistency,
        min_version: u64,
    ) -> Result<ReadAnswer, RouteError> {
        self.node.check_key(kind, key)?;
        let _room = self.room(key.len())?;
        match consistency {
            Consistency::Local => self.node.read(kind, key, Consistency::Local, min_version).await,
            Consistency::Strong => self.route(&StrongRead { kind, key: key.into(), min_version }).await,
        }
    }

    /// One question for each other owner, all at the same time; keys that are owned here, or that no owner
    /// answered for, go one by one.
    async fn read_many(&self, kind: &'static str, keys: &[Arc<str>]) -> Vec<Result<ReadAnswer, RouteError>> {
        let _room = match self.room(keys.iter().map(|key| key.len()).sum()) {
            Ok(room) => room,
            Err(error) => return keys.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut by_owner: HashMap<Arc<str>, (Vec<usize>, Vec<Arc<str>>)> = HashMap::new();
        let sound = keys.iter().enumerate().filter(|(_, key)| self.node.check_key(kind, key).is_ok());
        for (at, key) in sound {
            let home = self.node.home(key);
            let place = if self.node.owns(home) { None } else { self.owners.place(home) };
            if let Some(place) = place.filter(|place| place.address != self.address) {
                let (places, keys) = by_owner.entry(place.address).or_default();
                places.push(at);
                keys.push(key.clone());
            }
        }
        let mut answers: Vec<Option<ReadResult>> = keys.iter().map(|_| None).collect();
        let asked: Vec<_> = by_owner.into_iter().collect();
        let mut found = stream::iter(asked)
            .map(|(address, (places, keys))| async move {
                self.read_at(&address, Question { kind, keys: &keys, min_version: 0 }, places).await
            })
            .buffer_unordered(OWNERS_MAX);
        while let Some(found) = found.next().await {
            for (at, answer) in found {
                answers[at] = Some(answer);
            }
        }
        drop(found);
        let rest = keys.iter().zip(answers).map(|(key, answer)| async move {
            match answer {
                Some(answer) => answer,
                None => self.read(kind, key, Consistency::Strong, 0).await,
            }
        });
        let rest: Vec<_> = rest.collect();
        stream::iter(rest).buffered(READS_MAX).collect().await
    }
}

#[async_trait]
impl Local for Routed {
    async fn command_here(&self, forward: Forward) -> Result<Answer, PeerError> {
        let call = self.node.unseal(forward).ok_or(PeerError::Unsealed)?;
        let home = self.node.home(&call.key);
        self.node.command(call).await.map_err(|error| self.refusal(home, error))
    }

    async fn read_here(&self, question: Question<'_>) -> Answers {
        let Question { kind, keys, min_version } = question;
        let Some(kind) = self.node.kind_named(kind) else {
            let unknown = || PeerError::Answered(RouteError::unavailable("no such kind in this build"));
            return keys.iter().map(|_| Err(unknown())).collect();
        };
        let reads = keys.iter().map(|key| async move {
            let answer = self.node.read(kind, key, Consistency::Strong, min_version).await;
            answer.map_err(|error| self.refusal(self.node.home(key), error))
        });
        let reads: Vec<_> = reads.collect();
        stream::iter(reads).buffered(READS_MAX).collect().await
    }
}
