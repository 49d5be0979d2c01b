//! Spans of several contexts in one process, each sent as a service of its own.
//!
//! A resource describes everything that a provider's exporter sends, so a process with several contexts has
//! one exporter for each: a span with [`semconv::CONTEXT`] goes out through that one's, under `service.name`
//! `holdfast-<context>`; what belongs to no context goes out under the process's own name. Deliberately
//! absent: a provider per context, since a trace's spans must meet in one sampler and one queue.

use std::time::Duration;

use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};

use super::service_name;
use crate::{context::Context, semconv};

/// See the module.
#[derive(Debug)]
pub(super) struct PerContext<E> {
    rest: E,
    contexts: Vec<(Context, E)>,
}

impl<E> PerContext<E> {
    /// Everything goes through `rest`.
    pub(super) fn new(rest: E) -> Self {
        Self { rest, contexts: Vec::new() }
    }

    /// What belongs to `context` goes through `exporter`.
    pub(super) fn with(mut self, context: Context, exporter: E) -> Self {
        self.contexts.push((context, exporter));
        self
    }

    fn all(&self) -> impl Iterator<Item = &E> {
        std::iter::once(&self.rest).chain(self.contexts.iter().map(|(_, exporter)| exporter))
    }
}

fn belongs(span: &SpanData, context: Context) -> bool {
    let of_context = |pair: &KeyValue| pair.key == Key::from_static_str(semconv::CONTEXT);
    span.attributes.iter().find(|pair| of_context(pair)).is_some_and(|pair| pair.value.as_str() == context.as_str())
}

/// The first failure of `results`. Each exporter is called, even after one has failed.
fn each(results: impl Iterator<Item = OTelSdkResult>) -> OTelSdkResult {
    let mut all = Ok(());
    for result in results {
        all = all.and(result);
    }
    all
}

impl<E: SpanExporter> SpanExporter for PerContext<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        let mut result = Ok(());
        for (context, exporter) in &self.contexts {
            let own: Vec<SpanData> = batch.extract_if(.., |span| belongs(span, *context)).collect();
            if !own.is_empty() {
                result = result.and(exporter.export(own).await);
            }
        }
        if batch.is_empty() { result } else { result.and(self.rest.export(batch).await) }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        each(self.all().map(|exporter| exporter.shutdown_with_timeout(timeout)))
    }

    fn force_flush(&self) -> OTelSdkResult {
        each(self.all().map(SpanExporter::force_flush))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.rest.set_resource(resource);
        for (context, exporter) in &mut self.contexts {
            let name = service_name(std::slice::from_ref(context));
            let attributes = resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
            exporter
                .set_resource(&Resource::builder_empty().with_attributes(attributes).with_service_name(name).build());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::{SdkTracerProvider, SimpleSpanProcessor};

    use super::*;

    /// `service.name` and span name of everything sent.
    type Sent = Arc<Mutex<Vec<(String, String)>>>;

    #[derive(Debug)]
    struct Recorder {
        service: String,
        sent: Sent,
    }

    impl SpanExporter for Recorder {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            let names = batch.into_iter().map(|span| (self.service.clone(), span.name.into_owned()));
            self.sent.lock().unwrap().extend(names);
            Ok(())
        }

        fn set_resource(&mut self, resource: &Resource) {
            self.service = resource.get(&Key::from_static_str("service.name")).unwrap().to_string();
            assert!(resource.get(&Key::from_static_str("service.version")).is_some(), "the rest of it is kept");
        }
    }

    #[test]
    fn each_context_is_a_service_of_its_own() {
        let sent = Sent::default();
        let recorder = || Recorder { service: String::new(), sent: sent.clone() };
        let exporter =
            PerContext::new(recorder()).with(Context::Orders, recorder()).with(Context::Inventory, recorder());
        let provider = SdkTracerProvider::builder()
            .with_resource(super::super::resource("holdfast"))
            .with_span_processor(SimpleSpanProcessor::new(exporter))
            .build();
        let tracer = provider.tracer("test");
        for (name, context) in [("a", Some("orders")), ("b", Some("inventory")), ("c", None), ("d", Some("payments"))] {
            let attributes: Vec<_> =
                context.map(|context| KeyValue::new(semconv::CONTEXT, context)).into_iter().collect();
            drop(tracer.span_builder(name).with_attributes(attributes).start(&tracer));
        }
        provider.shutdown().unwrap();
        let expected = [("holdfast-orders", "a"), ("holdfast-inventory", "b"), ("holdfast", "c"), ("holdfast", "d")];
        let expected = expected.map(|(service, span)| (service.to_owned(), span.to_owned()));
        assert_eq!(*sent.lock().unwrap(), expected);
    }
}
