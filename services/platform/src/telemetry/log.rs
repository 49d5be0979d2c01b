//! Log lines: a layer of our own, because each line must carry ids that live in the spans around it.
//!
//! Invariant: a line is one line, written with one call; `trace_id`, `span_id` and `correlation_id` are
//! always present (null outside a span). The filter hides events only: spans always pass, or a filter of
//! `warn` would lose the ids.
//!
//! Deliberately absent: other span fields on each line. They are on the span, which the ids lead to; only the
//! context's name is taken along.

use std::{fmt::Write as _, io::Write as _, sync::OnceLock};

use opentelemetry::trace::TraceContextExt as _;
use serde_json::{Map, Value};
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    dispatcher::WeakDispatch,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{
        MakeWriter,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::{Context, Filter},
    registry::LookupSpan,
};

use crate::{config::LogFormat, semconv};

/// What a log line takes from the spans around it.
#[derive(Debug, Default, Clone)]
pub(super) struct Tags {
    pub(super) correlation_id: Option<String>,
    pub(super) context: Option<String>,
}

impl Visit for Tags {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            semconv::CORRELATION_ID => self.correlation_id = Some(value.to_owned()),
            semconv::CONTEXT => self.context = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if matches!(field.name(), semconv::CORRELATION_ID | semconv::CONTEXT) {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

/// Writes events as lines.
pub(super) struct Lines<W> {
    format: LogFormat,
    writer: W,
    dispatch: OnceLock<WeakDispatch>,
}

impl<W> Lines<W> {
    pub(super) fn new(format: LogFormat, writer: W) -> Self {
        Self { format, writer, dispatch: OnceLock::new() }
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        // Only the first counts, and only one is ever registered.
        let _ = self.dispatch.set(dispatch.downgrade());
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut tags = Tags::default();
        attributes.record(&mut tags);
        if tags.correlation_id.is_none() && tags.context.is_none() {
            return;
        }
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(tags);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        if let Some(tags) = extensions.get_mut::<Tags>() {
            values.record(tags);
        } else {
            let mut tags = Tags::default();
            values.record(&mut tags);
            extensions.insert(tags);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line::default();
        event.record(&mut line);
        line.target.get_or_insert_with(|| metadata.target().to_owned());

        let span = context.event_span(event);
        if let Some(span) = &span {
            for span in span.scope() {
                if let Some(tags) = span.extensions().get::<Tags>() {
                    line.correlation_id = line.correlation_id.or_else(|| tags.correlation_id.clone());
                    line.context = line.context.or_else(|| tags.context.clone());
                }
            }
            // The SDK may log while it holds the lock that the next look would take.
            if !metadata.target().starts_with("opentelemetry")
                && let Some(dispatch) = self.dispatch.get().and_then(WeakDispatch::upgrade)
                && let Some(otel) = tracing_opentelemetry::get_otel_context(&span.id(), &dispatch)
            {
                let ids = otel.span().span_context().clone();
                if ids.is_valid() {
                    line.trace_id = Some(ids.trace_id().to_string());
                    line.span_id = Some(ids.span_id().to_string());
                }
            }
        }
        let text = match self.format {
            LogFormat::Json => line.json(*metadata.level()),
            LogFormat::Pretty => line.pretty(*metadata.level()),
        };
        // A log that can't be written has nowhere to be reported.
        let _ = self.writer.make_writer_for(metadata).write_all(text.as_bytes());
    }
}

/// One event on its way to becoming a line.
#[derive(Default)]
struct Line {
    message: String,
    target: Option<String>,
    fields: Map<String, Value>,
    trace_id: Option<String>,
    span_id: Option<String>,
    correlation_id: Option<String>,
    context: Option<String>,
}

impl Line {
    fn put(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = text(value),
            "log.target" => self.target = Some(text(value)),
            "log.module_path" | "log.file" | "log.line" => {}
            semconv::CORRELATION_ID => self.correlation_id = Some(text(value)),
            name => {
                self.fields.insert(name.strip_prefix("r#").unwrap_or(name).to_owned(), value);
            }
        }
    }

    fn json(self, level: Level) -> String {
        let mut object = Map::new();
        object.insert("timestamp".to_owned(), now().into());
        object.insert("level".to_owned(), level.as_str().into());
        object.insert("target".to_owned(), self.target.into());
        object.insert("message".to_owned(), self.message.into());
        object.insert("trace_id".to_owned(), self.trace_id.into());
        object.insert("span_id".to_owned(), self.span_id.into());
        object.insert(semconv::CORRELATION_ID.to_owned(), self.correlation_id.into());
        if let Some(context) = self.context {
            object.insert("context".to_owned(), context.into());
        }
        if !self.fields.is_empty() {
            object.insert("fields".to_owned(), Value::Object(self.fields));
        }
        let mut text = Value::Object(object).to_string();
        text.push('\n');
        text
    }

    fn pretty(self, level: Level) -> String {
        let mut text = now();
        // Writing to a string can't fail.
        let _ = write!(text, " {level:>5} {}: {}", self.target.unwrap_or_default(), self.message.replace('\n', "\\n"));
        for (name, value) in &self.fields {
            let _ = write!(text, " {name}={value}");
        }
        let ids = [
            ("context", self.context),
            ("trace_id", self.trace_id),
            ("span_id", self.span_id),
            (semconv::CORRELATION_ID, self.correlation_id),
        ];
        for (name, id) in ids {
            let _ = write!(text, " {name}={}", id.as_deref().unwrap_or("-"));
        }
        text.push('\n');
        text
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        value => value.to_string(),
    }
}

fn now() -> String {
    let mut text = String::with_capacity(128);
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut said = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(said, ": {error}");
            cause = error.source();
        }
        self.put(field, said.into());
    }
}

/// Applies the filter to events and lets spans of level INFO and above pass.
pub(super) struct EventsOnly(EnvFilter);

impl EventsOnly {
    pub(super) fn new(filter: EnvFilter) -> Self {
        Self(filter)
    }

    fn passes(metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && *metadata.level() <= Level::INFO
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for EventsOnly {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        Self::passes(metadata) || Filter::<S>::enabled(&self.0, metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let interest = Filter::<S>::callsite_enabled(&self.0, metadata);
        if Self::passes(metadata) { Interest::always() } else { interest }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Filter::<S>::max_level_hint(&self.0).map(|hint| hint.max(LevelFilter::INFO))
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        Filter::<S>::on_new_span(&self.0, attributes, id, context);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        Filter::<S>::on_record(&self.0, id, values, context);
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        Filter::<S>::on_enter(&self.0, id, context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        Filter::<S>::on_exit(&self.0, id, context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        Filter::<S>::on_close(&self.0, id, context);
    }
}
