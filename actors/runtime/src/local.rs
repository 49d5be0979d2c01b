//! What a node answers by itself: calls to aggregates whose home it owns, and LOCAL reads of any.
//!
//! Upholds I5: a strong read is answered by the live actor under a lease, or not at all. Deliberately absent:
//! knowing who else might answer ([`crate::routing`] does).

use std::{
    sync::{Arc, OnceLock, PoisonError, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::{
    AggregateId, CallEnvelope, KeyHash, PartitionId, dedup::Answer, disposition::Refused, port::store::Wanted,
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use crate::{
    activation,
    guard::guarded,
    handles::Handle,
    node::Node,
    partition::PartitionMessage,
    peers::Forward,
    router::{Consistency, ReadAnswer, RouteError, Router},
    spans,
    work::{Input, Item, Origin, ReadReply, Work, to_caller},
};

/// How long a read waits for `min_version`.
const MIN_VERSION_WAIT: Duration = Duration::from_secs(2);

impl Node {
    /// The partition that `key` belongs to under the count in force. Nothing else in routing knows a count.
    pub(crate) fn home(&self, key: &str) -> PartitionId {
        KeyHash::of(key.as_bytes()).home(self.count())
    }

    /// Whether this node serves `home` at this moment.
    pub(crate) fn owns(&self, home: PartitionId) -> bool {
        self.handles.read().unwrap_or_else(PoisonError::into_inner).contains_key(&home)
    }

    /// The name of a kind of this context, as the program spells it.
    pub(crate) fn kind_named(&self, name: &str) -> Option<&'static str> {
        self.context.kind(name).map(|kind| kind.name())
    }

    /// Says what is wrong with `call`, if anything is, without asking any aggregate.
    pub(crate) fn check(&self, call: &CallEnvelope) -> Result<(), RouteError> {
        self.context.decode_call(call.clone()).map(drop)
    }

    /// Says what is wrong with a key that is to be read, if anything is.
    pub(crate) fn check_key(&self, kind: &str, key: &str) -> Result<(), Refused> {
        self.context.check_key(kind, key)
    }

    /// The call with the context's seal, for another node.
    pub(crate) fn forward(&self, call: &CallEnvelope) -> Forward {
        let seal = self.context.seal().map(|seal| seal.of_forward(call)).unwrap_or_default();
        Forward { call: call.clone(), seal: seal.into() }
    }

    /// The call in `forward`, if it carries the context's seal.
    pub(crate) fn unseal(&self, forward: Forward) -> Option<CallEnvelope> {
        let is_sealed = self.context.seal().is_some_and(|seal| seal.is_forward(&forward.call, &forward.seal));
        is_sealed.then_some(forward.call)
    }

    /// Takes a call's bytes from the budget of calls. Each takes at least its share of `calls_max`, so that
    /// their number is bounded too (I11).
    fn admit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, RouteError> {
        self.calls.try_take(bytes).ok_or(RouteError::Overloaded)
    }

    /// Nobody answers strongly for a context that is halted, and there is nothing to look for.
    pub(crate) fn unless_halted(&self) -> Result<(), RouteError> {
        self.halt().map_or(Ok(()), |halt| Err(RouteError::Halted(halt)))
    }

    fn handle(&self, key: &str) -> Result<(PartitionId, Handle), RouteError> {
        self.unless_halted()?;
        let home = self.home(key);
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        let handle =
            handles.get(&home).ok_or_else(|| RouteError::not_owner("this node does not own the key's partition"))?;
        if !handle.serving.load(Ordering::Acquire) {
            return Err(RouteError::not_owner("the key is moving to another partition"));
        }
        Ok((home, handle.clone()))
    }

    async fn read_strong(&self, id: AggregateId, credit: OwnedSemaphorePermit) -> Result<ReadAnswer, RouteError> {
        let (_, handle) = self.handle(&id.key)?;
        if !handle.lease.valid() {
            return Err(RouteError::not_owner("the lease on this partition has run out"));
        }
        let (reply, answer) = oneshot::channel();
        let message = PartitionMessage::Read { id, reply: ReadReply::new(reply, credit), cold: handle.cold };
        handle.supervisor.send_message(message).map_err(|_| RouteError::not_owner("the partition is closing"))?;
        answer.await.map_err(|_| RouteError::not_owner("the partition moved while it was read"))?
    }

    async fn read_local(&self, id: AggregateId) -> Result<ReadAnswer, RouteError> {
        let kind = self.context.kind(id.kind).ok_or_else(|| RouteError::unavailable("no such kind"))?.clone();
        let known = activation::find(self.store.clone(), vec![Wanted::state(id.clone())]).await;
        let mut known = known.map_err(|error| RouteError::unavailable(error.to_string()))?;
        let state = known.cold.remove(&id).map_or(Ok(None), |row| row.state);
        let row = state.map_err(|failure| to_caller(&failure))?;
        let snapshot = guarded("decode_state", || kind.snapshot(&id.key, row.as_ref()));
        let snapshot = snapshot.map_err(|_| RouteError::Failed)?.map_err(|error| {
            tracing::error!(aggregate = %id, %error, "a stored state could not be read by this build");
            RouteError::Failed
        })?;
        let now = self.clock.now();
        let body: Bytes =
            guarded("encode_reply", || kind.reply(&id.key, &snapshot, now)).map_err(|_| RouteError::Failed)?;
        Ok(ReadAnswer { version: snapshot.version, exists: snapshot.version > 0, body, strong: false })
    }
}

/// A node is the router of what it owns, and refuses the rest.
#[async_trait]
impl Router for Node {
    async fn command(&self, call: CallEnvelope) -> Result<Answer, RouteError> {
        let permit = self.admit(call.size_bytes())?;
        let (kind, message, command) = self.context.decode_call(call)?;
        let aggregate = AggregateId { kind: kind.name(), key: message.key.clone() };
        let (partition, handle) = self.handle(&message.key)?;
        let (reply, answer) = oneshot::channel();
        let item = Item {
            origin: Origin::Call { reply: std::sync::Mutex::new(Some(reply)) },
            hash: KeyHash::of(message.key.as_bytes()),
            aggregate,
            span: spans::process(self.context.name(), &message, None, &self.trace),
            message,
            command,
            now: self.clock.now(),
            admitted: Instant::now(),
            failure: OnceLock::new(),
            fingerprint: OnceLock::default(),
            credit: Some(permit),
        };
        let input = Input { partition, term: handle.term, work: Work::Item(Arc::new(item)) };
        handle.lane.send(input).await.map_err(|_| RouteError::not_owner("the partition is closing"))?;
        answer.await.map_err(|_| RouteError::not_owner("the partition moved while the command ran"))?
    }

    async fn read(
        &self,
        kind: &'static str,
        key: &str,
        consistency: Consistency,
        min_version: u64,
    ) -> Result<ReadAnswer, RouteError> {
        self.check_key(kind, key)?;
        let id = AggregateId { kind, key: key.into() };
        let deadline = Instant::now() + MIN_VERSION_WAIT;
        loop {
            let credit = self.admit(key.len())?;
            let answer = match consistency {
                Consistency::Strong => self.read_strong(id.clone(), credit).await?,
                Consistency::Local => {
                    let answer = self.read_local(id.clone()).await?;
                    drop(credit); // not held while a version is waited for
                    answer
                }
            };
            if answer.version >= min_version {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                return Err(RouteError::Stale(answer.version));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
