//! The spans of a message's way: `process` from its admission to its end, and in it `receive`, `decide` and
//! `commit`; then one `publish` for each record that it caused; and an `effect` for each call out of the
//! system. `process` is the parent of whatever the message causes in other contexts.
//!
//! Invariant: a span is made only where the sender was sampled, so that an unsampled message costs a look at
//! one flag. No attribute carries anything of a body, or a header's text that was not checked before.
//! Deliberately absent: OpenTelemetry, see [`TraceLink`](crate::telemetry::TraceLink).

use holdfast_core::{Message, Record, batch::OutboxRow, door, envelope::header};
use tracing::{Span, field::Empty, info_span};

use crate::{
    telemetry::{Trace, is_sampled},
    work::{Item, Work},
};

/// A message's way through the loop of `context`, child of its sender's span; disabled if the sender was not
/// sampled. `record` is the record that it came in, unless it is a call.
pub(crate) fn process(context: &str, message: &Message, record: Option<&Record>, trace: &Trace) -> Span {
    let Some(parent) = message.traceparent.as_deref().filter(|text| is_sampled(text)) else { return Span::none() };
    let correlation = message.correlation.clone().unwrap_or_else(|| message.id.to_string());
    let span = info_span!(
        parent: None,
        "process",
        otel.kind = "consumer",
        holdfast.context = context,
        messaging.operation.name = "process",
        messaging.operation.r#type = "process",
        messaging.system = Empty,
        messaging.destination.name = Empty,
        messaging.destination.partition.id = Empty,
        messaging.kafka.offset = Empty,
        messaging.message.id = %message.id,
        message.r#type = %message.r#type,
        aggregate.key = %message.key,
        correlation_id = correlation,
    );
    if let Some(record) = record {
        span.record("messaging.system", "kafka");
        span.record("messaging.destination.name", &*record.topic);
        span.record("messaging.destination.partition.id", tracing::field::display(record.partition.0));
        span.record("messaging.kafka.offset", record.offset);
    }
    trace.parent(&span, parent, message.tracestate.as_deref());
    span
}

/// One attempt at an effect and what its end brings about, child of what intended it; disabled if that was
/// not sampled.
pub(crate) fn effect(context: &str, message: &Message, trace: &Trace) -> Span {
    let Some(parent) = message.traceparent.as_deref().filter(|text| is_sampled(text)) else { return Span::none() };
    let span = info_span!(
        parent: None,
        "effect",
        otel.kind = "client",
        holdfast.context = context,
        message.r#type = %message.r#type,
        aggregate.key = %message.key,
        correlation_id = message.correlation.as_deref(),
    );
    trace.parent(&span, parent, message.tracestate.as_deref());
    span
}

/// Until the lane has taken `work` over: how long a record that was fetched waited for room in the loop.
pub(crate) fn receive(context: &str, work: &Work) -> Option<Span> {
    let Work::Item(item) = work else { return None };
    let span = || info_span!(parent: &item.span, "receive", holdfast.context = context, messaging.operation.r#type = "receive");
    (!item.span.is_disabled()).then(span)
}

/// While the actor decides `item`.
pub(crate) fn decide(context: &str, kind: &str, item: &Item) -> Option<tracing::span::EnteredSpan> {
    let span = || info_span!(parent: &item.span, "decide", holdfast.context = context, aggregate.kind = kind).entered();
    (!item.span.is_disabled()).then(span)
}

/// While the messages of `work` are committed, one span for each that is recorded.
pub(crate) fn commit<'w>(context: &str, work: impl Iterator<Item = &'w Work>) -> Vec<Span> {
    let mut size = 0;
    let recorded = work.inspect(|_| size += 1).filter_map(|work| match work {
        Work::Item(item) if !item.span.is_disabled() => Some(&item.span),
        _ => None,
    });
    let recorded: Vec<&Span> = recorded.collect();
    let span = |parent: &Span| {
        info_span!(
            parent: parent,
            "commit",
            otel.kind = "client",
            holdfast.context = context,
            db.operation.name = "group commit",
            db.operation.batch.size = size,
        )
    };
    recorded.into_iter().map(span).collect()
}

/// Until the brokers have acknowledged `rows`, one span for each whose message was recorded.
pub(crate) fn publish(context: &str, rows: &[OutboxRow], trace: &Trace) -> Vec<Span> {
    let span = |row: &OutboxRow| {
        let text = |name: &str| row.draft.headers.get(name).and_then(|value| std::str::from_utf8(value).ok());
        let parent = text(header::TRACEPARENT).filter(|text| is_sampled(text))?;
        let span = info_span!(
            parent: None,
            "publish",
            otel.kind = "producer",
            holdfast.context = context,
            messaging.system = "kafka",
            messaging.operation.name = "send",
            messaging.operation.r#type = "send",
            messaging.destination.name = %row.draft.topic,
            messaging.destination.partition.id = %row.draft.target.0,
            messaging.message.id = %row.draft.id,
        );
        trace.parent(&span, parent, text(header::TRACESTATE));
        Some(span)
    };
    rows.iter().filter_map(span).collect()
}

/// In which a dead letter is reported, child of its sender's if the headers say who that was. Always there:
/// dead letters are rare.
pub(crate) fn dead_letter(context: &str, record: &Record, trace: &Trace) -> Span {
    // Refused or not: what is shown of it is checked.
    let text = |name: &str| record.headers.get(name).and_then(|value| door::header(name, value).ok());
    let id = text(header::ID).filter(|id| uuid::Uuid::try_parse(id).is_ok());
    let correlation = text(header::CORRELATION).or(id).unwrap_or_default();
    let span = info_span!(
        parent: None,
        "dead_letter",
        otel.kind = "consumer",
        holdfast.context = context,
        correlation_id = correlation
    );
    if let Some(parent) = text(header::TRACEPARENT) {
        trace.parent(&span, parent, text(header::TRACESTATE));
    }
    span
}
