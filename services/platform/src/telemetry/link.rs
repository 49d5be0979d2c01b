//! Between `tracing` spans and what travels on the wire: `traceparent`, `tracestate`, baggage, correlation
//! id.
//!
//! Invariant: a header that can't be parsed changes nothing; the span then starts a trace of its own.
//!
//! Deliberately absent: a trait. The runtime, which must not depend on this crate, is given [`OtelLink`]'s
//! two functions.

use opentelemetry::{
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::TraceContextExt as _,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Registry, registry::LookupSpan as _};

use super::log::Tags;

/// W3C trace context in and out of spans, as plain functions to hand to the runtime.
#[derive(Debug, Clone, Copy, Default)]
pub struct OtelLink;

impl OtelLink {
    /// Makes the remote span the parent. Call it before the span is first entered: afterwards it has no
    /// effect.
    pub fn parent(span: &Span, traceparent: &str, tracestate: Option<&str>) {
        struct Pair<'a>(&'a str, Option<&'a str>);
        impl Extractor for Pair<'_> {
            fn get(&self, key: &str) -> Option<&str> {
                match key {
                    "traceparent" => Some(self.0),
                    "tracestate" => self.1,
                    _ => None,
                }
            }
            fn keys(&self) -> Vec<&str> {
                vec!["traceparent", "tracestate"]
            }
        }
        adopt(span, TraceContextPropagator::new().extract(&Pair(traceparent, tracestate)));
    }

    /// `traceparent` and, if there is any, `tracestate` of the span; none if it is disabled. Also for traces
    /// that aren't sampled: the decision travels along.
    pub fn current(span: &Span) -> Option<(String, Option<String>)> {
        struct Pair(Option<String>, Option<String>);
        impl Injector for Pair {
            fn set(&mut self, key: &str, value: String) {
                match key {
                    "traceparent" => self.0 = Some(value),
                    "tracestate" if !value.is_empty() => self.1 = Some(value),
                    _ => {}
                }
            }
        }
        let mut pair = Pair(None, None);
        TraceContextPropagator::new().inject_context(&span.context(), &mut pair);
        pair.0.map(|traceparent| (traceparent, pair.1))
    }
}

fn adopt(span: &Span, remote: opentelemetry::Context) {
    if remote.span().span_context().is_valid() {
        // Fails only for a span that is disabled or was entered already; neither is worth more than doing
        // nothing.
        let _ = span.set_parent(remote);
    }
}

/// Makes what the headers say (trace context and baggage) the span's parent.
pub fn extract(span: &Span, headers: &http::HeaderMap) {
    struct Headers<'a>(&'a http::HeaderMap);
    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key).and_then(|value| value.to_str().ok())
        }
        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(http::HeaderName::as_str).collect()
        }
    }
    let remote = opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers)));
    adopt(span, remote);
}

/// Writes the span's trace context and baggage into the headers.
pub(crate) fn inject(span: &Span, headers: &mut http::HeaderMap) {
    struct Headers<'a>(&'a mut http::HeaderMap);
    impl Injector for Headers<'_> {
        fn set(&mut self, key: &str, value: String) {
            if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(key), http::HeaderValue::try_from(value)) {
                self.0.insert(name, value);
            }
        }
    }
    let context = span.context();
    opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut Headers(headers));
    });
}

/// The correlation id of the span or of the nearest span around it.
pub fn correlation_of(span: &Span) -> Option<String> {
    nearest(span, |tags| tags.correlation_id.clone())
}

/// The bounded context of the span or of the nearest span around it.
pub fn context_of(span: &Span) -> Option<String> {
    nearest(span, |tags| tags.context.clone())
}

fn nearest(span: &Span, tag: impl Fn(&Tags) -> Option<String>) -> Option<String> {
    span.with_subscriber(|(id, dispatch)| {
        let registry = dispatch.downcast_ref::<Registry>()?;
        registry.span(id)?.scope().find_map(|span| tag(span.extensions().get::<Tags>()?))
    })?
}
