//! Spans that reach an OpenTelemetry collector: a real OTLP receiver over gRPC, and a shop that is given its
//! address by the standard variables alone.
//!
//! The process sends by itself only once an hour here, so whatever is received at the end was flushed when it
//! left.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use holdfast_load_tests::by_hand::Raw;
use holdfast_proto::orders::v1::{AddItem, CreateOrder};
use libtest_mimic::Failed;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::{ResourceSpans, Span},
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};
use uuid::Uuid;

use crate::{
    shop::{Shop, customer, place, record},
    telemetry,
};

/// The sender's span, in which everything must hang.
const SENDER: [u8; 8] = [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on a free port, whose address it returns.
    async fn listen(&self) -> Result<String, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Ok(format!("http://{address}"))
    }

    fn received(&self) -> Vec<ResourceSpans> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of one trace by their ids, each with its `service.name`.
    fn trace(&self, id: &[u8]) -> BTreeMap<Vec<u8>, (String, Span)> {
        let mut spans = BTreeMap::new();
        for resource in self.received() {
            let service = service(&resource);
            let found = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            for span in found.filter(|span| span.trace_id == id) {
                spans.insert(span.span_id.clone(), (service.clone(), span));
            }
        }
        spans
    }
}

fn service(resource: &ResourceSpans) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
    let name = attributes.filter(|pair| pair.key == "service.name").find_map(|pair| pair.value.as_ref()?.value.clone());
    match name {
        Some(Value::StringValue(name)) => name,
        other => format!("{other:?}"),
    }
}

pub async fn collector_gets_one_two_context_trace_without_personal_data(_: &Shop) -> Result<(), Failed> {
    let collector = Collector::default();
    let endpoint = collector.listen().await?;
    let mut shop = Shop::open_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
    ])
    .await?;
    let (order, trace) = (Uuid::now_v7().to_string(), Uuid::new_v4());
    let traced =
        |raw: Raw, trace: &Uuid| raw.with("traceparent", Some(&format!("00-{}-00f067aa0ba902b7-01", trace.simple())));
    let customer_id = customer();
    let create = CreateOrder { order_id: order.clone(), customer_id, currency: "EUR".to_owned() };
    let add = AddItem { order_id: order.clone(), sku: "sku-2".to_owned(), quantity: 1 };
    let place = place(&order);
    let records = [record(&order, &create), record(&order, &add), record(&order, &place)];
    shop.order(&records.map(|raw| traced(raw, &trace))).await?;
    let canary = format!("canary{}", Uuid::new_v4().simple());
    let other = Uuid::new_v4();
    let canaries: Vec<Raw> = telemetry::canaries(&canary).into_iter().map(|raw| traced(raw, &other)).collect();
    shop.order(&canaries).await?;

    let status = shop.leave().await?;
    if status.code() != Some(0) {
        return Err(format!("it left with {status}:\n{}", shop.log()).into());
    }
    is_whole(&collector.trace(trace.as_bytes()))?;
    let dead = collector.trace(other.as_bytes());
    if !dead.values().any(|(_, span)| span.name == "dead_letter") {
        return Err(format!("no dead letter among the {} spans of the bad records", dead.len()).into());
    }
    match collector.received().into_iter().find(|spans| format!("{spans:?}").contains(&canary)) {
        None => Ok(()),
        Some(spans) => Err(format!("the canary reached the collector: {spans:?}").into()),
    }
}

/// Every stage of both contexts is there, and every span hangs in the sender's.
fn is_whole(spans: &BTreeMap<Vec<u8>, (String, Span)>) -> Result<(), Failed> {
    let seen: BTreeSet<(&str, &str)> =
        spans.values().map(|(service, span)| (service.as_str(), span.name.as_str())).collect();
    for service in ["holdfast-orders", "holdfast-inventory"] {
        for stage in ["receive", "process", "decide", "commit", "publish"] {
            if !seen.contains(&(service, stage)) {
                return Err(format!("no {stage} of {service} among {seen:?}").into());
            }
        }
    }
    // The price is asked for in the same trace, and answered.
    let call = "holdfast.inventory.v1.CatalogService/GetPrices";
    for service in ["holdfast-orders", "holdfast-inventory"] {
        if !seen.contains(&(service, call)) {
            return Err(format!("no {call} of {service} among {seen:?}").into());
        }
    }
    let mut crossed = false;
    for (service, span) in spans.values() {
        let mut above = vec![(service.as_str(), span.name.as_str())];
        let mut parent = &span.parent_span_id;
        while *parent != SENDER {
            let Some((service, span)) = spans.get(parent).filter(|_| above.len() < spans.len()) else {
                return Err(format!("{above:?} hang in {parent:?}, which is no span of the trace").into());
            };
            above.push((service, &span.name));
            parent = &span.parent_span_id;
        }
        crossed |= above.starts_with(&[("holdfast-inventory", "process"), ("holdfast-orders", "process")]);
    }
    if crossed { Ok(()) } else { Err("no message of orders is processed by inventory in this trace".into()) }
}
