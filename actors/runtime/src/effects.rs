//! Calls out of the system: each intended in a commit, made after it, and ended by a message to the aggregate
//! that wanted it.
//!
//! Upholds I1 and I2 at the edge: nothing is called before its intent is committed, and an intent stays until
//! the decision on its end is committed. So a crash anywhere repeats a call and never loses one; the called
//! system makes a repeat harmless, by the key and the effect's name. The owner of a call makes the first
//! attempt itself. A call that ends without an outcome, or whose owner died, falls due in the store, for the
//! key's owner at that time. Deliberately absent: giving up, which no node could know to be safe; a circuit
//! breaker (the adapter's, which knows what it calls).

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use holdfast_core::{
    AggregateId, KeyHash, Message, PartitionId,
    batch::Writes,
    codec::{Again, Attempt},
    origin::Arrival,
    port::{
        clock::Clock,
        store::{DueEffect, Store},
    },
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    backoff::Backoff,
    config::Config,
    context::BoundedContext,
    guard::guarded_future,
    kind::Kind,
    spans,
    telemetry::{self, Trace},
    work::{AnyCommand, Input, Item, Origin, Work},
};

/// Between two attempts of one effect, at first and at most.
const AGAIN_MIN: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// Makes the calls of one lane.
#[derive(Clone)]
pub(crate) struct EffectCalls {
    pub context: Arc<BoundedContext>,
    pub config: Arc<Config>,
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub trace: Trace,
    /// Shared by the lanes of a node.
    pub slots: Arc<Semaphore>,
    /// The lane's; weak, so that calls under way don't keep a lane that is to end.
    pub inputs: mpsc::WeakSender<Input>,
}

/// One call, and on whose behalf.
struct Call {
    partition: PartitionId,
    term: u64,
    aggregate: AggregateId,
    hash: KeyHash,
    kind: Arc<dyn Kind>,
    effect: DueEffect,
}

impl EffectCalls {
    /// Whether the context ever has any.
    pub fn are_there(&self) -> bool {
        self.context.kinds().iter().any(|kind| kind.has_effects())
    }

    /// How many more attempts may begin.
    pub fn room(&self) -> u32 {
        u32::try_from(self.slots.available_permits()).unwrap_or(u32::MAX)
    }

    /// Begins what a commit has just intended.
    pub fn intended(&self, partition: PartitionId, term: u64, writes: &Writes) {
        for write in &writes.effects {
            let Some(intent) = &write.intent else { continue };
            let effect = DueEffect {
                kind: write.id.kind.to_owned(),
                key: write.id.key.clone(),
                name: write.name.clone(),
                request: intent.request.clone(),
                attempts: 1,
                age: Duration::ZERO,
                correlation: intent.correlation.clone(),
                traceparent: intent.traceparent.clone(),
            };
            self.begin(partition, term, effect);
        }
    }

    /// Begins an attempt. One that finds no room in time is left to fall due again.
    pub fn begin(&self, partition: PartitionId, term: u64, effect: DueEffect) {
        let is_declared = self.context.declares(&effect.kind, &Arrival::Effect(&effect.name));
        let Some(kind) = self.context.kind(&effect.kind).filter(|_| is_declared).cloned() else {
            tracing::error!(kind = effect.kind, name = effect.name, "an effect that this build does not know");
            return;
        };
        let aggregate = AggregateId { kind: kind.name(), key: effect.key.clone() };
        let hash = KeyHash::of(effect.key.as_bytes());
        let this = self.clone();
        tokio::spawn(async move {
            let Ok(Ok(_slot)) = tokio::time::timeout(this.config.effect_timeout / 4, this.slots.acquire()).await else {
                return;
            };
            this.attempt(Call { partition, term, aggregate, hash, kind, effect }).await;
        });
    }

    async fn attempt(&self, call: Call) {
        let effect = &call.effect;
        let attempt = Attempt {
            key: effect.key.clone(),
            name: effect.name.clone(),
            request: effect.request.clone(),
            number: effect.attempts,
            age: effect.age,
            now: self.clock.now(),
        };
        let mut message =
            Message::new(Uuid::now_v7(), "effect", effect.name.as_str(), effect.key.clone(), Bytes::new());
        message.correlation.clone_from(&effect.correlation);
        message.traceparent.clone_from(&effect.traceparent);
        let span = spans::effect(self.context.name(), &message, &self.trace);
        let performed = guarded_future("perform", call.kind.perform(&attempt)).instrument(span.clone());
        let ended = tokio::time::timeout(self.config.effect_timeout, performed).await;
        let outcome = match ended {
            Ok(Ok(Ok(command))) => return self.deliver(call, message, command, span).await,
            Ok(Ok(Err(again))) => again,
            Ok(Err(panicked)) => Again { reason: panicked.to_string(), after: None },
            Err(_) => Again { reason: format!("no answer within {:?}", self.config.effect_timeout), after: None },
        };
        self.count("again");
        let mut backoff = Backoff::new(AGAIN_MIN.saturating_mul(1 << attempt.number.min(8)).min(AGAIN_MAX), AGAIN_MAX);
        let after = backoff.next().max(outcome.after.unwrap_or_default());
        let (context, reason) = (self.context.name(), &outcome.reason);
        tracing::warn!(
            context,
            effect = attempt.name,
            attempt = attempt.number,
            ?after,
            reason,
            "an effect has no outcome yet; trying again"
        );
        // If this can't be noted, the attempt counts as lost after a while.
        if let Err(error) =
            self.store.put_off_effect(call.aggregate.kind, &attempt.key, &attempt.name, after, reason).await
        {
            tracing::warn!(context, %error, "an attempt at an effect could not be noted");
        }
    }

    /// Hands the end of a call to the lane. Under another term the end is void: the key's owner then makes
    /// the call again, and gets the same answer.
    async fn deliver(&self, call: Call, message: Message, command: AnyCommand, span: tracing::Span) {
        self.count("ended");
        let item = Item {
            origin: Origin::Effect { name: call.effect.name },
            aggregate: call.aggregate,
            hash: call.hash,
            message,
            command,
            now: self.clock.now(),
            admitted: Instant::now(),
            failure: OnceLock::new(),
            fingerprint: OnceLock::new(),
            span,
            credit: None,
        };
        if let Some(inputs) = self.inputs.upgrade() {
            let work = Work::Item(Arc::new(item));
            let _ = inputs.send(Input { partition: call.partition, term: call.term, work }).await;
        }
    }

    fn count(&self, outcome: &'static str) {
        let labels = [("context", self.context.name()), ("outcome", outcome)];
        metrics::counter!(telemetry::EFFECT_ATTEMPTS_TOTAL, &labels).increment(1);
    }
}
