//! What turns an event into an outbox row: topics, sources, limits, the seal.
//!
//! Invariant: `ce_source` names a kind, since versions are counted per aggregate. Deliberately absent: the
//! row itself, which the kind stages.

use std::{sync::Arc, time::Duration};

use holdfast_core::{Message, batch::OutboxDraft, envelope::header, seal::Seal};

use crate::{config::Config, limits::Limits, telemetry::Trace};

/// What is needed to turn an event into an outbox row.
pub(crate) struct Emit {
    pub context: &'static str,
    pub events_topic: Arc<str>,
    pub commands_topic: Arc<str>,
    /// How long the owner that intends an effect has for the first attempt, before the effect falls due for
    /// others.
    pub effect_hold: Duration,
    pub dlq_topic: Arc<str>,
    pub limits: Arc<Limits>,
    pub trace: Trace,
    pub consumer: Arc<str>,
    seal: Option<Seal>,
    sources: Vec<(&'static str, String)>,
}

impl Emit {
    /// For the context called `name`, which has these `kinds`.
    pub fn new(
        name: &'static str,
        commands_topic: Arc<str>,
        seal: Option<Seal>,
        kinds: impl Iterator<Item = &'static str>,
        config: &Config,
        trace: Trace,
    ) -> Self {
        let (events_topic, dlq_topic): (Arc<str>, Arc<str>) =
            (format!("{name}.events").into(), format!("{name}.dlq").into());
        Self {
            context: name,
            limits: Arc::new(Limits::new(events_topic.clone(), commands_topic.clone(), dlq_topic.clone())),
            events_topic,
            commands_topic,
            effect_hold: config.effect_hold(),
            dlq_topic,
            trace,
            consumer: format!("holdfast-{name}").into(),
            seal,
            sources: kinds.map(|kind| (kind, format!("holdfast/{name}/{kind}"))).collect(),
        }
    }

    /// Seals a message to the context itself.
    pub fn seal(&self, draft: &mut OutboxDraft, message: &Message) {
        if let Some(seal) = &self.seal {
            draft.headers.push(header::SEAL, seal.of_sent(message));
        }
    }

    /// The `ce_source` of a kind's events. Versions are counted per aggregate, so each kind is a source of
    /// its own.
    pub fn source_of(&self, kind: &str) -> &str {
        self.sources.iter().find(|(name, _)| *name == kind).map_or("holdfast", |(_, source)| source)
    }
}
