//! Traces and logs of a process: one subscriber, set up once.
//!
//! Invariant: every log line carries `trace_id`, `span_id` and `correlation_id` of the span it was written
//! in, whatever the log filter hides and whether or not the trace is sampled or exported; spans are flushed
//! before the process ends.
//!
//! Standard variables are read under their own names: `OTEL_EXPORTER_OTLP_ENDPOINT` or `…_TRACES_ENDPOINT`
//! switch the exporter on (TLS by `https`), `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` describe the
//! process (without the former each context is a service of its own, also where several share a process),
//! `OTEL_TRACES_SAMPLER` with `…_ARG` wins over our ratio, `OTEL_SDK_DISABLED` and
//! `OTEL_TRACES_EXPORTER=none` switch off.
//!
//! Deliberately absent: metrics over OTLP (Prometheus asks, see [`crate::metrics`]); logs over OTLP (a
//! collector reads them); sampling by outcome, see [`sampling`].

use std::{io, sync::Mutex, time::Duration};

use opentelemetry::{propagation::TextMapCompositePropagator, trace::TracerProvider as _};
use opentelemetry_sdk::{
    Resource,
    propagation::{BaggagePropagator, TraceContextPropagator},
    trace::{SdkTracerProvider, SpanProcessor},
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{
    config::{Config, LogFormat},
    context::Context,
    semconv,
};

mod export;
mod link;
mod log;
pub mod sampling;

pub use link::extract;
pub(crate) use link::inject;
pub use link::{OtelLink, context_of, correlation_of};

/// How long the last spans may take to leave.
pub const FLUSH_MAX: Duration = Duration::from_secs(5);

/// What telemetry needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `service.name`, unless `OTEL_SERVICE_NAME` is set.
    pub service_name: String,
    /// The contexts of the process.
    pub contexts: Vec<Context>,
    /// How log lines look.
    pub format: LogFormat,
    /// Which log lines there are.
    pub filter: String,
    /// Share of root traces kept, 0 to 1, unless `OTEL_TRACES_SAMPLER` is set.
    pub sample_ratio: f64,
    /// Which root spans are kept more often than that.
    pub boosts: Vec<sampling::Boost>,
}

impl Settings {
    /// From the configuration, for a process that serves these contexts.
    pub fn new(config: &Config, contexts: &[Context]) -> Self {
        Self {
            service_name: service_name(contexts),
            contexts: contexts.to_vec(),
            format: config.log_format,
            filter: config.log_filter.clone(),
            sample_ratio: config.sample_ratio,
            boosts: Vec::new(),
        }
    }
}

/// `holdfast-orders` for one context, `holdfast` for several: what belongs to one of them goes out under that
/// one's name, see [`export`].
pub fn service_name(contexts: &[Context]) -> String {
    match contexts {
        [one] => format!("holdfast-{one}"),
        _ => "holdfast".to_owned(),
    }
}

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A filter that can't be read.
    #[error("the log filter is not valid")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// A standard variable with a value that we can't follow.
    #[error("bad value `{value}` for `{variable}` (environment): allowed is {allowed}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        allowed: &'static str,
    },
    /// The exporter refused its settings.
    #[error("cannot set up the OTLP exporter")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// Something else has set up tracing in this process.
    #[error("tracing is set up already")]
    Taken(#[source] tracing_subscriber::util::TryInitError),
}

/// Ends telemetry in good order: keep it until the last moment, then [`Guard::flush`].
#[derive(Debug)]
#[must_use = "dropping the guard ends telemetry"]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
}

impl Guard {
    /// Sends what is left, for at most [`FLUSH_MAX`]. Blocks: call it from a thread that may wait.
    pub fn flush(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(provider) = self.provider.take() else { return };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_MAX) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sets up logs (to standard error) and traces for the whole process. Once, inside a tokio runtime.
pub fn init(settings: &Settings) -> Result<Guard, Error> {
    let exporter = if exporting() {
        only_grpc()?;
        let exporter = exporter(settings).map_err(Error::Exporter)?;
        Some(opentelemetry_sdk::trace::BatchSpanProcessor::builder(exporter).build())
    } else {
        None
    };
    opentelemetry::global::set_text_map_propagator(TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(BaggagePropagator::new()),
    ]));
    let (subscriber, provider) = assemble(settings, io::stderr, exporter)?;
    opentelemetry::global::set_tracer_provider(provider.clone());
    subscriber.try_init().map_err(Error::Taken)?;
    log_panics();
    Ok(Guard { provider: Some(provider) })
}

/// One that sends everything, or one for each context, so that each is a service of its own.
fn exporter(
    settings: &Settings,
) -> Result<export::PerContext<opentelemetry_otlp::SpanExporter>, opentelemetry_otlp::ExporterBuildError> {
    let build = || opentelemetry_otlp::SpanExporter::builder().with_tonic().build();
    let mut exporter = export::PerContext::new(build()?);
    if settings.contexts.len() > 1 && variable("OTEL_SERVICE_NAME").is_none() {
        for context in &settings.contexts {
            exporter = exporter.with(*context, build()?);
        }
    }
    Ok(exporter)
}

/// A subscriber with all layers, not installed: what [`init`] installs, and what tests capture.
fn assemble<W, P>(
    settings: &Settings,
    writer: W,
    processor: Option<P>,
) -> Result<(impl tracing::Subscriber + Send + Sync, SdkTracerProvider), Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    P: SpanProcessor + 'static,
{
    let filter = EnvFilter::try_new(&settings.filter).map_err(Error::Filter)?;
    let exported = processor.is_some();
    let mut provider = SdkTracerProvider::builder()
        .with_resource(resource(&settings.service_name))
        .with_sampler(sampling::sampler(settings.sample_ratio, &settings.boosts, exported)?);
    if let Some(processor) = processor {
        provider = provider.with_span_processor(processor);
    }
    let provider = provider.build();
    let traces = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("holdfast"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(LevelFilter::INFO);
    let logs = log::Lines::new(settings.format, writer).with_filter(log::EventsOnly::new(filter));
    Ok((Registry::default().with(traces).with(logs), provider))
}

fn resource(service_name: &str) -> Resource {
    let mut resource = Resource::builder();
    if variable("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service_name.to_owned());
    }
    resource
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(opentelemetry::KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()))
        .build()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn exporting() -> bool {
    let off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
    !off && endpoint.is_some()
}

fn only_grpc() -> Result<(), Error> {
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        if let Some(value) = variable(name).filter(|value| value != "grpc") {
            return Err(Error::Variable { variable: name, value, allowed: "`grpc`" });
        }
    }
    Ok(())
}

/// A panic becomes a log line like any other, with the ids of the span it happened in.
fn log_panics() {
    static ONCE: Mutex<bool> = Mutex::new(false);
    let mut done = ONCE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if std::mem::replace(&mut *done, true) {
        return;
    }
    std::panic::set_hook(Box::new(|panic| {
        let said = panic.payload_as_str().unwrap_or("no text");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, thread = std::thread::current().name().unwrap_or_default(), "panicked: {said}");
    }));
}

/// The span of a unit of work in a context, so that one process can serve several and traces still tell them
/// apart.
pub fn context_span(context: Context) -> tracing::Span {
    tracing::info_span!("context", { semconv::CONTEXT } = context.as_str())
}

#[cfg(test)]
mod tests;
