//! What a log line carries, and that traces join across a wire.

use std::sync::{Arc, Mutex};

use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SimpleSpanProcessor, SpanData, SpanExporter},
};
use serde_json::Value;
use tracing::{Span, info_span};

use super::*;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The SDK's own sits behind a feature that would have it compiled a second time.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

fn settings(format: LogFormat, filter: &str) -> Settings {
    Settings {
        service_name: "holdfast-test".into(),
        contexts: Vec::new(),
        format,
        filter: filter.into(),
        sample_ratio: 1.0,
        boosts: Vec::new(),
    }
}

/// Runs `work` under a captured subscriber; returns the log and the exported spans.
fn captured(format: LogFormat, filter: &str, work: impl FnOnce()) -> (Captured, Spans) {
    let log = Captured::default();
    let writer = log.clone();
    let spans = Spans::default();
    let processor = SimpleSpanProcessor::new(spans.clone());
    let (subscriber, provider) = assemble(&settings(format, filter), move || writer.clone(), Some(processor)).unwrap();
    tracing::subscriber::with_default(subscriber, work);
    provider.force_flush().unwrap();
    (log, spans)
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn every_line_carries_the_ids_of_its_span() {
    let (log, _) = captured(LogFormat::Json, "info", || {
        tracing::info!("outside");
        let span = info_span!("command", correlation_id = %"flow-1", { semconv::CONTEXT } = "orders");
        OtelLink::parent(&span, PARENT, None);
        span.in_scope(|| {
            tracing::info!(quantity = 3, why = ?Some(1), "inside");
            info_span!("deeper").in_scope(|| tracing::warn!(error = %"x", "deeper"));
        });
    });
    let lines = log.lines();
    assert_eq!(lines.len(), 3);
    for key in ["trace_id", "span_id", "correlation_id"] {
        assert_eq!(lines[0].get(key), Some(&Value::Null), "{key}");
    }
    for line in &lines[1..] {
        assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(line["correlation_id"], "flow-1");
        assert_eq!(line["context"], "orders");
        assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
    }
    assert_ne!(lines[1]["span_id"], lines[2]["span_id"]);
    assert_eq!(lines[1]["message"], "inside");
    assert_eq!(lines[1]["fields"]["quantity"], 3);
    assert_eq!(lines[1]["level"], "INFO");
    assert!(lines[1]["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_filter_hides_lines_but_not_the_ids_of_others() {
    let (log, _) = captured(LogFormat::Json, "warn", || {
        info_span!("command", correlation_id = "flow-2").in_scope(|| {
            tracing::info!("hidden");
            tracing::warn!("shown");
        });
    });
    let lines = log.lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["correlation_id"], "flow-2");
    assert!(lines[0]["trace_id"].is_string());
}

#[test]
fn an_id_recorded_later_counts() {
    let (log, _) = captured(LogFormat::Json, "info", || {
        let span = info_span!("command", correlation_id = tracing::field::Empty);
        span.record("correlation_id", "flow-3");
        span.in_scope(|| {
            tracing::info!("x");
            assert_eq!(correlation_of(&Span::current()).as_deref(), Some("flow-3"));
            assert_eq!(correlation_of(&info_span!("child")).as_deref(), Some("flow-3"));
        });
    });
    assert_eq!(log.lines()[0]["correlation_id"], "flow-3");
}

#[test]
fn a_line_stays_one_line() {
    for format in [LogFormat::Json, LogFormat::Pretty] {
        let (log, _) = captured(format, "info", || tracing::info!(evil = "a\nb", "two\nlines"));
        assert_eq!(log.text().lines().count(), 1, "{}", log.text());
    }
}

#[test]
fn pretty_lines_carry_the_ids_too() {
    let (log, _) = captured(LogFormat::Pretty, "info", || {
        info_span!("command", correlation_id = "flow-4").in_scope(|| tracing::info!(n = 1, "hello"));
    });
    let text = log.text();
    assert!(
        text.contains("hello n=1") && text.contains("correlation_id=flow-4") && text.contains("trace_id="),
        "{text}"
    );
}

#[test]
fn lines_have_ids_even_when_nothing_is_exported() {
    let log = Captured::default();
    let writer = log.clone();
    let (subscriber, _provider) =
        assemble(&settings(LogFormat::Json, "info"), move || writer.clone(), None::<SimpleSpanProcessor<Spans>>)
            .unwrap();
    tracing::subscriber::with_default(subscriber, || {
        info_span!("command").in_scope(|| tracing::info!("x"));
    });
    assert!(log.lines()[0]["trace_id"].is_string());
}

#[test]
fn a_trace_goes_out_and_comes_back_as_parent() {
    let (_, spans) = captured(LogFormat::Json, "info", || {
        let sender = info_span!("sender");
        let (traceparent, tracestate) = OtelLink::current(&sender).unwrap();
        assert_eq!((traceparent.len(), tracestate), (55, None));
        let receiver = info_span!(parent: None, "receiver");
        OtelLink::parent(&receiver, &traceparent, Some("vendor=1"));
        let (onward, state) = OtelLink::current(&receiver).unwrap();
        assert_eq!(onward[3..35], traceparent[3..35]);
        assert_eq!(state.as_deref(), Some("vendor=1"));
    });
    let spans = spans.0.lock().unwrap();
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    assert_eq!(named("receiver").parent_span_id, named("sender").span_context.span_id());
}

#[test]
fn a_broken_traceparent_starts_a_trace_of_its_own() {
    for broken in ["", "garbage", "00-00000000000000000000000000000000-0000000000000000-00"] {
        captured(LogFormat::Json, "info", || {
            let span = info_span!("x");
            OtelLink::parent(&span, broken, None);
            assert!(OtelLink::current(&span).is_some(), "{broken}");
        });
    }
}

#[test]
fn one_context_names_the_service() {
    assert_eq!(service_name(&[Context::Orders]), "holdfast-orders");
    assert_eq!(service_name(&[Context::Orders, Context::Inventory]), "holdfast");
}
