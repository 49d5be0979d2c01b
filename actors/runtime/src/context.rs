//! A bounded context: its kinds of aggregates, its topics, which message goes to which kind, and where each
//! may come from.
//!
//! Invariant: records, mail, calls and forwards reach a kind's decoder only through
//! [`BoundedContext::decode`] and [`BoundedContext::decode_call`], which are the one door.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use holdfast_core::{
    AggregateId, CallEnvelope, Message, Record, Timestamp,
    codec::Adapter,
    disposition::Refused,
    door,
    envelope::header,
    origin::{Arrival, Handled, MessageOrigin, WEBHOOK_SUFFIX, producers_source},
    port::store::{Store, StoreError},
    seal::Seal,
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use holdfast_machine::lane::Failure;

use crate::{
    config::Config,
    emit::Emit,
    guard::{Panicked, guarded},
    kind::{Kind, Typed},
    router::RouteError,
    spans,
    telemetry::Trace,
    work::{AnyCommand, Item, Origin, RefusedRecord, Work},
};

/// What a node runs. Built once at start.
pub struct BoundedContext {
    name: &'static str,
    kinds: Vec<Arc<dyn Kind>>,
    by_type: HashMap<&'static str, (usize, Handled)>,
    inputs: Vec<Arc<str>>,
    /// `None` until the store was asked: then nothing counts as sealed.
    seal: Option<Seal>,
}

impl BoundedContext {
    /// A context of this name, reading `<name>.commands`. The name is used in topics, in storage and as a
    /// metric label.
    pub fn new(name: &'static str) -> Self {
        let inputs = vec![format!("{name}.commands").into()];
        Self { name, kinds: Vec::new(), by_type: HashMap::new(), inputs, seal: None }
    }

    /// Adds a kind of aggregate.
    ///
    /// # Panics
    /// If a message type is declared twice, or has an origin that can't be: that is a mistake in the program.
    #[must_use]
    pub fn with(mut self, adapter: impl Adapter) -> Self {
        let kind = Typed(adapter);
        for handled in kind.handles() {
            let (name, of) = (handled.r#type, self.name);
            for origin in handled.origins {
                match origin {
                    MessageOrigin::Timer(timer) => assert!(kind.timer(timer).is_some(), "{of} has no timer {timer}"),
                    MessageOrigin::Webhook(source) => {
                        assert!(source.ends_with(WEBHOOK_SUFFIX), "{source} does not end in {WEBHOOK_SUFFIX}");
                    }
                    _ => {}
                }
            }
            let before = self.by_type.insert(name, (self.kinds.len(), handled));
            assert!(before.is_none(), "{name} is declared twice in {of}");
        }
        self.kinds.push(Arc::new(kind));
        self
    }

    /// The same with the seal that its store keeps.
    pub(crate) async fn sealed(mut self, store: &dyn Store) -> Result<Self, StoreError> {
        self.seal = Some(store.seal().await?);
        Ok(self)
    }

    /// Also reads another context's events topic. Events whose type no kind handles are passed over.
    #[must_use]
    pub fn subscribe(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.inputs.push(topic.into());
        self
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The topic of its commands, whose partitions are the homes.
    pub fn commands_topic(&self) -> &Arc<str> {
        &self.inputs[0]
    }

    /// All topics it reads, the commands topic first.
    pub fn inputs(&self) -> &[Arc<str>] {
        &self.inputs
    }

    pub(crate) fn kind(&self, name: &str) -> Option<&Arc<dyn Kind>> {
        self.kinds.iter().find(|kind| kind.name() == name)
    }

    /// Puts into `item` what is known without asking another context.
    pub(crate) fn recall(&self, item: &mut Item) -> Result<(), Panicked> {
        let Some(kind) = self.kind(item.aggregate.kind) else { return Ok(()) };
        guarded("recall", || kind.recall(&mut item.command))
    }

    /// The context that has to be asked before what `item` says can be decided, if one has to.
    pub(crate) fn looks_up(&self, item: &Item) -> Result<Option<&'static str>, Panicked> {
        let Some(kind) = self.kind(item.aggregate.kind) else { return Ok(None) };
        guarded("looks_up", || kind.looks_up(&item.command))
    }

    pub(crate) fn kinds(&self) -> &[Arc<dyn Kind>] {
        &self.kinds
    }

    pub(crate) const fn seal(&self) -> Option<&Seal> {
        self.seal.as_ref()
    }

    /// What turns this context's events into outbox rows.
    pub(crate) fn emit(&self, config: &Config, trace: Trace) -> Emit {
        let kinds = self.kinds.iter().map(|kind| kind.name());
        Emit::new(self.name, self.commands_topic().clone(), self.seal.clone(), kinds, config, trace)
    }

    /// Decodes a record of one of the inputs.
    pub(crate) fn admit(
        &self,
        record: Record,
        now: Timestamp,
        trace: &Trace,
        credit: Option<OwnedSemaphorePermit>,
    ) -> Work {
        let own = record.topic == *self.commands_topic();
        if !own && self.is_foreign(&record) {
            return Work::Ignored { topic: record.topic, offset: record.offset };
        }
        match self.decode(&record) {
            Err(refused) => Work::Refused(Box::new(RefusedRecord { record, refused, now, mail: None, credit })),
            Ok((aggregate, message, command)) => {
                let span = spans::process(self.name, &message, Some(&record), trace);
                let hash = record.key_hash();
                let origin = Origin::Log { record, own };
                let (command, failure) = decoded(command);
                let fingerprint = OnceLock::new();
                Work::Item(Arc::new(Item {
                    origin,
                    aggregate,
                    hash,
                    message,
                    command,
                    now,
                    admitted: Instant::now(),
                    failure,
                    fingerprint,
                    span,
                    credit,
                }))
            }
        }
    }

    /// Decodes a record down to the command it carries. Its place, not its headers, says where it comes from:
    /// so mail keeps its origin.
    pub(crate) fn decode(&self, record: &Record) -> Result<(AggregateId, Message, Decoded), Refused> {
        let message = Message::decode(record)?;
        let arrival = self.arrival(record, &message)?;
        let (at, handled) = self.by_type.get(&*message.r#type).ok_or_else(Refused::unknown_type)?;
        handled.check(&arrival)?;
        let kind = &self.kinds[*at];
        let command =
            guarded("decode", || kind.decode(&message)).map_or_else(|panicked| Ok(Err(panicked)), |it| it.map(Ok))?;
        Ok((AggregateId { kind: kind.name(), key: message.key.clone() }, message, command))
    }

    /// Decodes a call down to the command it carries. The message's source is this node's word, whatever the
    /// caller is.
    pub(crate) fn decode_call(&self, call: CallEnvelope) -> Result<(&Arc<dyn Kind>, Message, AnyCommand), RouteError> {
        let origin = call.origin.clone();
        let message = call.into_message()?;
        let (at, handled) = self.by_type.get(&*message.r#type).ok_or_else(Refused::unknown_type)?;
        handled.check(&origin.arrival()).map_err(|refused| RouteError::Forbidden(refused.error))?;
        let kind = &self.kinds[*at];
        let command = guarded("decode", || kind.decode(&message)).map_err(|_| RouteError::Failed)??;
        Ok((kind, message, command))
    }

    /// Refuses a key that no aggregate of this kind can have.
    pub(crate) fn check_key(&self, kind: &str, key: &str) -> Result<(), Refused> {
        door::key(key)?;
        let Some(kind) = self.kind(kind) else { return Ok(()) };
        let unreadable = |_| Err(Refused::invalid("key", "this key can't be checked by this build"));
        guarded("check_key", || kind.check_key(key)).unwrap_or_else(unreadable)
    }

    /// Whether the context declares what came by `arrival`, a timer or an effect, for `kind`.
    pub(crate) fn declares(&self, kind: &str, arrival: &Arrival<'_>) -> bool {
        self.by_type.values().any(|(at, handled)| self.kinds[*at].name() == kind && handled.admits(arrival))
    }

    /// How `record` came.
    fn arrival<'a>(&self, record: &'a Record, message: &'a Message) -> Result<Arrival<'a>, Refused> {
        if record.topic != *self.commands_topic() {
            return Ok(Arrival::Events { topic: &record.topic, source: &message.source });
        }
        let shown = record.headers.get(header::SEAL);
        if shown.zip(self.seal.as_ref()).is_some_and(|(shown, seal)| seal.is_sent(message, shown)) {
            return Ok(Arrival::Sent);
        }
        producers_source(&message.source).map(|()| Arrival::Commands)
    }

    /// Whether a record of another context's topic has a type that nobody here subscribed to.
    fn is_foreign(&self, record: &Record) -> bool {
        let name = record.headers.get(header::TYPE).and_then(|name| std::str::from_utf8(name).ok());
        name.is_some_and(|name| !self.by_type.contains_key(name))
    }
}

/// A command, or a panic of the adapter that was to decode it.
pub(crate) type Decoded = Result<AnyCommand, Panicked>;

/// The parts of an item: a message that could not be decoded has failed before any actor sees it, and holds
/// nothing that one could look at.
pub(crate) fn decoded(command: Decoded) -> (AnyCommand, OnceLock<Failure>) {
    match command {
        Ok(command) => (command, OnceLock::new()),
        Err(panicked) => (Box::new(()), OnceLock::from(Failure::Handler(panicked.to_string()))),
    }
}
