//! One kind of aggregate with its types erased, so that a context can hold several.
//!
//! [`Kind::decide`] is where a domain's pure functions are called: it folds the items of a delivery over the
//! committed snapshot and returns what to write, without touching that snapshot. So a batch that is not
//! committed leaves no trace (I2).

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::{
    Aggregate, Context, Decision, Effects, KeyHash, Message, PartitionId, TimerChange, Timestamp,
    batch::{EffectWrite, Intent, OutboxDraft, StateWrite, TimerWrite, ViewRow, ViewWrite, Writes},
    codec::{Adapter, Again, Attempt, EncodedEffect, LookupFailed, Outgoing, StateError},
    dedup::{Answer, Claim, Fingerprint},
    disposition::Refused,
    envelope::EnvelopeOut,
    origin::Handled,
    pool::PoolChange,
    port::store::StateRow,
    ring::Ring,
    stuck::DISCARDED_TYPE,
};
use holdfast_machine::lane::Failure;
use uuid::Uuid;

use crate::{
    delivery::Delivery,
    emit::Emit,
    spans,
    telemetry::TraceLink,
    work::{AnyCommand, Branch, Item, NO_REPLY, Origin, Outcome, Snapshot, Step, Verdict},
};

/// An erased [`Adapter`].
#[async_trait]
pub(crate) trait Kind: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    fn handles(&self) -> Vec<Handled>;
    fn check_key(&self, key: &str) -> Result<(), Refused>;
    fn decode(&self, message: &Message) -> Result<AnyCommand, Refused>;
    fn timer(&self, name: &str) -> Option<AnyCommand>;
    /// The snapshot of a stored state, or of none.
    fn snapshot(&self, key: &str, row: Option<&StateRow>) -> Result<Snapshot, StateError>;
    fn decide(&self, emit: &Emit, work: &Delivery, committed: &Arc<Snapshot>) -> Verdict;
    /// The state as others see it.
    fn reply(&self, key: &str, snapshot: &Snapshot, now: Timestamp) -> Bytes;
    fn recall(&self, command: &mut AnyCommand);
    fn looks_up(&self, command: &AnyCommand) -> Option<&'static str>;
    /// Shows a stored state to the adapter before look-ups are made. One that can't be read is found out when
    /// it is activated.
    fn observe(&self, key: &str, row: &StateRow);
    async fn prepare(&self, commands: Vec<&mut AnyCommand>) -> Vec<Result<(), LookupFailed>>;
    fn has_effects(&self) -> bool;
    async fn perform(&self, attempt: &Attempt) -> Result<AnyCommand, Again>;
    /// Applies published events to a stored state, or to none. Fails at an event (its place among them) or at
    /// the state (0).
    fn refold(
        &self,
        key: &str,
        row: Option<&StateRow>,
        events: &mut dyn Iterator<Item = &Message>,
        now: Timestamp,
    ) -> Result<Refolded, (usize, String)>;
}

/// What published events make of a stored state.
pub(crate) struct Refolded {
    pub schema: u32,
    pub bytes: Bytes,
    pub view: Option<ViewRow>,
    /// All changes, in order.
    pub pools: Vec<PoolChange>,
    pub timers: Vec<TimerChange>,
    /// Calls that were intended, in order. Which of them have ended is not known.
    pub effects: Vec<EncodedEffect>,
    /// Messages to other aggregates, each with the place of its event and its id.
    pub commands: Vec<(usize, Uuid, Outgoing)>,
    /// The reply as it was after each event.
    pub replies: Vec<Bytes>,
}

pub(crate) struct Typed<A: Adapter>(pub A);

const WRONG_TYPE: &str = "a kind is only given what it made itself";

#[async_trait]
impl<A: Adapter> Kind for Typed<A> {
    fn name(&self) -> &'static str {
        A::Aggregate::KIND
    }

    fn handles(&self) -> Vec<Handled> {
        self.0.handles()
    }

    fn check_key(&self, key: &str) -> Result<(), Refused> {
        self.0.check_key(key)
    }

    fn decode(&self, message: &Message) -> Result<AnyCommand, Refused> {
        self.0.decode(message).map(|command| Box::new(command) as AnyCommand)
    }

    fn timer(&self, name: &str) -> Option<AnyCommand> {
        self.0.timer(name).map(|command| Box::new(command) as AnyCommand)
    }

    fn snapshot(&self, key: &str, row: Option<&StateRow>) -> Result<Snapshot, StateError> {
        let Some(row) = row else {
            let state = Arc::new(A::Aggregate::default());
            return Ok(Snapshot { version: 0, revision: 0, sources: BTreeMap::default(), state, view: None });
        };
        let state = self.0.decode_state(row.schema, &row.bytes)?;
        // The view does not depend on the time; the context only wants one.
        self.0.observe(key, &state);
        let context = Context { key, version: row.version, now: Timestamp::default() };
        let view = view_of(&self.0, &state, &context);
        let (version, revision, sources) = (row.version, row.revision, row.sources.clone());
        Ok(Snapshot { version, revision, sources, state: Arc::new(state), view })
    }

    fn decide(&self, emit: &Emit, work: &Delivery, committed: &Arc<Snapshot>) -> Verdict {
        let mut fold = Fold::new(&self.0, emit, work, committed);
        let mut steps = Vec::with_capacity(work.open().len());
        let mut condition = None;
        let mut failed = work.failure.get().cloned().map(Failure::Handler);
        for (at, item) in work.open().iter().enumerate() {
            work.at.store(at, Ordering::Release);
            if item.event_sequence().is_some_and(|(source, sequence)| fold.seen(source) >= sequence) {
                steps.push(Step::Repeat);
                continue;
            }
            if fold.is_outlived(item) {
                steps.push(Step::Repeat);
                continue;
            }
            let command = item.command.downcast_ref::<<A::Aggregate as Aggregate>::Command>().expect(WRONG_TYPE);
            let decision = {
                let _span = spans::decide(emit.context, A::Aggregate::KIND, item);
                fold.state().decide(command, &fold.context(item))
            };
            let staged = fold.writes.outbox.len();
            match decision {
                Err(rejection) => steps.push(Step::Answered(fold.reject(item, &rejection))),
                Ok(Decision::Done(effects)) => steps.push(Step::Answered(fold.apply(item, &effects))),
                Ok(Decision::Conditional { wants, granted, refused }) => {
                    let mut other = fold.fork();
                    let refused = match refused {
                        Ok(effects) => other.apply(item, &effects),
                        Err(rejection) => other.reject(item, &rejection),
                    };
                    let granted = fold.apply(item, &granted);
                    steps.push(Step::Conditional { granted, refused });
                    if let Some(error) = other.oversize(staged) {
                        return self.decide_without(emit, work, committed, at, error);
                    }
                    condition = Some((wants, other.branch()));
                }
                Ok(Decision::Unprepared(lacking)) => {
                    self.0.observe(&work.aggregate.key, fold.state());
                    failed = Some(Failure::LookUp(lacking.to_owned()));
                    break; // what follows waits with it
                }
            }
            if let Some(error) = fold.oversize(staged) {
                return self.decide_without(emit, work, committed, at, error);
            }
            if condition.is_some() {
                break; // what follows depends on the grant: the next batch decides it
            }
        }
        let changed = condition.is_some() || fold.is_changed();
        let outcome = changed.then(|| Box::new(Outcome { done: fold.branch(), condition }));
        Verdict { steps, outcome, failed, unreadable: false }
    }

    fn reply(&self, key: &str, snapshot: &Snapshot, now: Timestamp) -> Bytes {
        let state = snapshot.state.downcast_ref::<A::Aggregate>().expect(WRONG_TYPE);
        self.0.encode_reply(state, &Context { key, version: snapshot.version, now })
    }

    fn recall(&self, command: &mut AnyCommand) {
        self.0.recall(command.downcast_mut::<<A::Aggregate as Aggregate>::Command>().expect(WRONG_TYPE));
    }

    fn looks_up(&self, command: &AnyCommand) -> Option<&'static str> {
        self.0.looks_up(command.downcast_ref::<<A::Aggregate as Aggregate>::Command>().expect(WRONG_TYPE))
    }

    fn observe(&self, key: &str, row: &StateRow) {
        if let Ok(state) = self.0.decode_state(row.schema, &row.bytes) {
            self.0.observe(key, &state);
        }
    }

    async fn prepare(&self, commands: Vec<&mut AnyCommand>) -> Vec<Result<(), LookupFailed>> {
        let mut typed: Vec<_> = commands
            .into_iter()
            .map(|command| command.downcast_mut::<<A::Aggregate as Aggregate>::Command>().expect(WRONG_TYPE))
            .collect();
        self.0.prepare(&mut typed).await
    }

    fn has_effects(&self) -> bool {
        self.0.has_effects()
    }

    async fn perform(&self, attempt: &Attempt) -> Result<AnyCommand, Again> {
        self.0.perform(attempt).await.map(|command| Box::new(command) as AnyCommand)
    }

    fn refold(
        &self,
        key: &str,
        row: Option<&StateRow>,
        events: &mut dyn Iterator<Item = &Message>,
        now: Timestamp,
    ) -> Result<Refolded, (usize, String)> {
        let stored = row.map(|row| self.0.decode_state(row.schema, &row.bytes)).transpose();
        let mut state = stored.map_err(|error| (0, error.to_string()))?.unwrap_or_default();
        let mut version = row.map_or(0, |row| row.version);
        let (mut pools, mut timers, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        let (mut effects, mut commands) = (Vec::new(), Vec::new());
        for (at, message) in events.enumerate() {
            version += 1;
            let context = Context { key, version, now };
            // What the event changed is lost; its version is not.
            if &*message.r#type == DISCARDED_TYPE {
                replies.push(self.0.encode_reply(&state, &context));
                continue;
            }
            let event = self.0.decode_event(message).map_err(|refused| {
                (at, format!("this build can't apply the event {}: {}", message.r#type, refused.error))
            })?;
            state.evolve(&event);
            let aftermath = self.0.aftermath(&event, &context);
            pools.extend(aftermath.pools);
            timers.extend(aftermath.timers);
            effects.extend(self.0.effects_after(&event, &context));
            let sent = self.0.commands_after(&event, &context).into_iter().enumerate();
            commands.extend(sent.map(|(n, command)| (at, command_id(message.id, n), command)));
            replies.push(self.0.encode_reply(&state, &context));
        }
        let view = self.0.view(&state, &Context { key, version, now: Timestamp::default() });
        let (schema, bytes) = (A::Aggregate::SCHEMA, self.0.encode_state(&state));
        Ok(Refolded { schema, bytes, view, pools, timers, effects, commands, replies })
    }
}

impl<A: Adapter> Typed<A> {
    /// Decides what comes before the item at `at`, which causes more than its topic takes.
    fn decide_without(
        &self,
        emit: &Emit,
        work: &Delivery,
        committed: &Arc<Snapshot>,
        at: usize,
        error: String,
    ) -> Verdict {
        work.cut_at_culprit(&error);
        let _ = work.items[at].failure.set(Failure::TooLarge(error));
        self.decide(emit, work, committed)
    }
}

/// The state and the writes as they grow, item by item.
struct Fold<'a, A: Adapter> {
    adapter: &'a A,
    emit: &'a Emit,
    work: &'a Delivery,
    committed: &'a Arc<Snapshot>,
    /// The state after the items so far, if it differs from the committed one.
    state: Option<A::Aggregate>,
    version: u64,
    sources: Option<BTreeMap<String, u64>>,
    writes: Writes,
}

impl<'a, A: Adapter> Fold<'a, A> {
    fn new(adapter: &'a A, emit: &'a Emit, work: &'a Delivery, committed: &'a Arc<Snapshot>) -> Self {
        let version = committed.version;
        Self { adapter, emit, work, committed, state: None, version, sources: None, writes: Writes::default() }
    }

    fn fork(&self) -> Self {
        Self {
            state: self.state.clone(),
            sources: self.sources.clone(),
            writes: self.writes.clone(),
            ..Self::new(self.adapter, self.emit, self.work, self.committed)
        }
        .at_version(self.version)
    }

    fn at_version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }

    fn state(&self) -> &A::Aggregate {
        self.state.as_ref().unwrap_or_else(|| self.committed.state.downcast_ref().expect(WRONG_TYPE))
    }

    fn context<'c>(&self, item: &Item) -> Context<'c>
    where
        'a: 'c,
    {
        Context { key: &self.work.aggregate.key, version: self.version, now: item.now }
    }

    fn seen(&self, source: &str) -> u64 {
        self.sources.as_ref().unwrap_or(&self.committed.sources).get(source).copied().unwrap_or(0)
    }

    /// What is wrong with the records staged from the one at `from` on, if one of them is too large.
    fn oversize(&self, from: usize) -> Option<String> {
        self.writes.outbox[from..].iter().find_map(|draft| self.emit.limits.oversize(draft))
    }

    fn is_changed(&self) -> bool {
        self.state.is_some()
            || self.sources.is_some()
            || !self.writes.claims.is_empty()
            || !self.writes.timers.is_empty()
            || !self.writes.effects.is_empty()
            || !self.writes.outbox.is_empty()
    }

    fn reject(&mut self, item: &Item, rejection: &<A::Aggregate as Aggregate>::Rejection) -> Answer {
        let answer = Answer::Rejected { version: self.version, rejection: self.adapter.rejection(rejection) };
        self.note(item, &answer);
        answer
    }

    fn apply(&mut self, item: &Item, effects: &Effects<<A::Aggregate as Aggregate>::Event>) -> Answer {
        if !effects.events.is_empty() {
            let mut state = self
                .state
                .take()
                .unwrap_or_else(|| self.committed.state.downcast_ref::<A::Aggregate>().expect(WRONG_TYPE).clone());
            let trace = self.emit.trace_of(item);
            for event in &effects.events {
                state.evolve(event);
                self.version += 1;
                self.publish(item, event, trace.as_ref());
            }
            self.state = Some(state);
        }
        match &item.origin {
            Origin::Timer { name, serial } => self.timer(name.clone(), None, Some(*serial)),
            Origin::Effect { name } => self.effect(name.clone(), None),
            _ => {}
        }
        for change in &effects.timers {
            match change {
                TimerChange::Set { name, after } => self.timer((*name).to_owned(), Some(*after), None),
                TimerChange::Cancel { name } => self.timer((*name).to_owned(), None, None),
            }
        }
        let reply =
            if item.wants_reply() { self.adapter.encode_reply(self.state(), &self.context(item)) } else { NO_REPLY };
        let answer = Answer::Applied { version: self.version, reply };
        self.note(item, &answer);
        answer
    }

    /// Notes that `item` was done: its claim with the answer, or its event sequence.
    fn note(&mut self, item: &Item, answer: &Answer) {
        if let Some(Fingerprint { key, body }) = item.fingerprint() {
            self.writes.claims.push(Claim { key, body, answer: answer.clone() });
        }
        if let Some((source, sequence)) = item.event_sequence() {
            let sources = self.sources.get_or_insert_with(|| self.committed.sources.clone());
            sources.insert(source.to_owned(), sequence);
        }
        match (&item.origin, answer) {
            (Origin::Timer { name, serial }, Answer::Rejected { .. }) => self.timer(name.clone(), None, Some(*serial)),
            (Origin::Effect { name }, Answer::Rejected { .. }) => self.effect(name.clone(), None),
            _ => {}
        }
    }

    fn effect(&mut self, name: String, intent: Option<Intent>) {
        self.writes.effects.retain(|write| write.name != name);
        let (id, hash) = (self.work.aggregate.clone(), self.work.hash);
        self.writes.effects.push(EffectWrite { id, hash, name, intent });
    }

    fn timer(&mut self, name: String, after: Option<std::time::Duration>, serial: Option<i64>) {
        self.writes.timers.retain(|write| write.name != name);
        let (id, hash) = (self.work.aggregate.clone(), self.work.hash);
        self.writes.timers.push(TimerWrite { id, hash, name, after, serial });
    }

    /// Whether `item` is the firing of a timer that a message before it has set again or cancelled.
    fn is_outlived(&self, item: &Item) -> bool {
        let Origin::Timer { name, .. } = &item.origin else { return false };
        self.writes.timers.iter().any(|write| write.name == *name && write.serial.is_none())
    }

    fn publish(&mut self, item: &Item, event: &<A::Aggregate as Aggregate>::Event, trace: Option<&TraceContext>) {
        let encoded = self.adapter.encode_event(event, &self.context(item));
        let (events, key) = (self.emit.events_topic.clone(), self.work.aggregate.key.clone());
        let event_id = Uuid::now_v7();
        self.stage(
            item,
            trace,
            event_id,
            events,
            self.work.home,
            &key,
            Some(self.version),
            encoded.r#type,
            encoded.payload,
        );
        for (n, command) in self.adapter.commands_after(event, &self.context(item)).into_iter().enumerate() {
            let home = KeyHash::of(command.key.as_bytes()).home(self.work.count);
            let topic = self.emit.commands_topic.clone();
            let id = command_id(event_id, n);
            self.stage(item, trace, id, topic, home, &command.key, None, command.r#type, command.payload);
        }
        for effect in self.adapter.effects_after(event, &self.context(item)) {
            let correlation = item.message.correlation.clone().unwrap_or_else(|| item.message.id.to_string());
            let intent = effect.request.map(|request| Intent {
                request,
                hold: self.emit.effect_hold,
                correlation: Some(correlation),
                traceparent: trace.map(|(parent, _)| parent.clone()),
            });
            self.effect(effect.name, intent);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a record has as many parts")]
    fn stage(
        &mut self,
        item: &Item,
        trace: Option<&TraceContext>,
        id: Uuid,
        topic: Arc<str>,
        target: PartitionId,
        key: &str,
        sequence: Option<u64>,
        r#type: &'static str,
        payload: Bytes,
    ) {
        let own_id;
        let correlation = if let Some(text) = item.message.correlation.as_deref() {
            text
        } else {
            own_id = item.message.id.to_string();
            &own_id
        };
        let headers = EnvelopeOut {
            id,
            source: self.emit.source_of(A::Aggregate::KIND),
            r#type,
            time: item.now,
            subject: key,
            sequence,
            correlation: Some(correlation),
            causation: Some(item.message.id),
            schema: None,
            traceparent: trace.map(|(parent, _)| parent.as_str()),
            tracestate: trace.and_then(|(_, state)| state.as_deref()),
        }
        .headers();
        let is_sent = topic == self.emit.commands_topic;
        let value = Some(payload.clone());
        let mut draft =
            OutboxDraft { id, topic, target, key: Some(Bytes::copy_from_slice(key.as_bytes())), headers, value };
        if is_sent {
            let source = self.emit.source_of(A::Aggregate::KIND);
            self.emit.seal(&mut draft, &Message::new(id, source, r#type, key, payload));
        }
        self.writes.outbox.push(draft);
    }

    fn branch(self) -> Branch {
        let Self { adapter, work, committed, state, version, sources, mut writes, .. } = self;
        // A row holds its aggregate's claims, also those of what it has only refused.
        if state.is_none() && sources.is_none() && writes.claims.is_empty() {
            return Branch { writes, after: committed.clone() };
        }
        let sources = sources.unwrap_or_else(|| committed.sources.clone());
        let context = Context { key: &work.aggregate.key, version, now: Timestamp::default() };
        let (state, view): (Arc<dyn Any + Send + Sync>, _) = match state {
            None => (committed.state.clone(), committed.view.clone()),
            Some(state) => {
                let view = view_of(adapter, &state, &context);
                (Arc::new(state), view)
            }
        };
        let typed = state.downcast_ref::<A::Aggregate>().expect(WRONG_TYPE);
        if view != committed.view
            && let Some(row) = &view
        {
            writes.view = Some(ViewWrite { id: work.aggregate.clone(), row: row.clone() });
        }
        writes.state = Some(StateWrite {
            id: work.aggregate.clone(),
            hash: work.hash,
            expected: committed.version,
            revision: committed.revision,
            version,
            schema: A::Aggregate::SCHEMA,
            bytes: adapter.encode_state(typed),
            sources: sources.clone(),
            ring: Ring::default(), // the machine's to say
            spills: false,
        });
        let revision = committed.revision + 1;
        Branch { writes, after: Arc::new(Snapshot { version, revision, sources, state, view }) }
    }
}

/// The read model's row. An aggregate that does not exist has none.
fn view_of<A: Adapter>(adapter: &A, state: &A::Aggregate, context: &Context<'_>) -> Option<ViewRow> {
    (context.version > 0).then(|| adapter.view(state, context)).flatten()
}

/// The id of the `n`th message that an event sends to other aggregates: made of the event's, so that it is
/// the same if the event is recovered.
pub(crate) fn command_id(event: Uuid, n: usize) -> Uuid {
    Uuid::new_v5(&event, &n.to_be_bytes())
}

/// `traceparent` and `tracestate` for what an item causes.
pub(crate) type TraceContext = (String, Option<String>);

impl Emit {
    /// The context under which what `item` causes continues: its span's if that is recorded, else what came
    /// with the message.
    fn trace_of(&self, item: &Item) -> Option<TraceContext> {
        TraceLink::context(&*self.trace, &item.span)
            .or_else(|| item.message.traceparent.clone().map(|parent| (parent, item.message.tracestate.clone())))
    }
}
