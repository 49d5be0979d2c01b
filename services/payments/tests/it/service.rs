//! `PaymentService` and the webhook door before a node on in-memory ports.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use holdfast_core::{CallEnvelope, Timestamp, call::CallOrigin, envelope::EnvelopeOut};
use holdfast_money::Money as Amount;
use holdfast_payments::{
    app, grpc,
    provider::{Charge, Failure, NewCharge, NewRefund, Progress, Provider, Refund, Refunded},
    webhook,
};
use holdfast_platform::{Health, Shutdown, errors, grpc::Server};
use holdfast_proto::{
    money::v1::Money,
    orders::v1::OrderCancelled,
    payments::v1::{
        self, GetPaymentRequest, PaymentStatus, RefundPayment, RefundPaymentRequest,
        payment_service_client::PaymentServiceClient,
    },
    read::v1::Consistency,
};
use holdfast_runtime::{Config, Node, Ports, RouteError, Router as _, telemetry::NoTrace};
use holdfast_testkit::{MemoryGroup, MemoryLog, MemoryPublisher, MemoryStore, VirtualClock};
use prost::{Message as _, Name as _};
use tokio::{net::TcpListener, sync::watch};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::till;

const PARTITIONS: u32 = 2;

struct Office {
    log: MemoryLog,
    cashier: Arc<Cashier>,
    node: Arc<Node>,
    client: PaymentServiceClient<Channel>,
}

/// A provider that takes every charge and refund, once it is opened for them.
struct Cashier {
    charges: watch::Sender<bool>,
    refunds: watch::Sender<bool>,
}

impl Default for Cashier {
    fn default() -> Self {
        Self { charges: watch::Sender::new(false), refunds: watch::Sender::new(false) }
    }
}

async fn opened(gate: &watch::Sender<bool>) {
    let _ = gate.subscribe().wait_for(|open| *open).await;
}

#[async_trait]
impl Provider for Cashier {
    fn accepts(&self, _: Amount) -> Result<(), &'static str> {
        Ok(())
    }

    async fn charge(&self, charge: &NewCharge<'_>, _: &str) -> Result<Charge, Failure> {
        opened(&self.charges).await;
        let order_id = Some(charge.order_id.to_owned());
        Ok(Charge { reference: "pi_1".to_owned(), order_id, amount: charge.amount, progress: Progress::Captured })
    }

    async fn capture(&self, _: &str, _: &str) -> Result<Charge, Failure> {
        Err(Failure::Unknown { reason: "TIMEOUT" })
    }

    async fn void(&self, _: &str, _: &str) -> Result<Charge, Failure> {
        Err(Failure::Unknown { reason: "TIMEOUT" })
    }

    async fn refund(&self, refund: &NewRefund<'_>, _: &str) -> Result<Refund, Failure> {
        opened(&self.refunds).await;
        Ok(Refund {
            reference: "re_1".to_owned(),
            order_id: Some(refund.order_id.to_owned()),
            charge: Some(refund.reference.to_owned()),
            number: Some(refund.number.to_string()),
            amount: refund.amount,
            progress: Refunded::Taken,
        })
    }

    async fn find(&self, _: &str, _: Timestamp) -> Result<Option<Charge>, Failure> {
        Ok(None)
    }

    async fn look(&self, _: &str) -> Result<Charge, Failure> {
        Err(Failure::Unknown { reason: "TIMEOUT" })
    }

    async fn find_refund(&self, _: &str, _: u32) -> Result<Option<Refund>, Failure> {
        Ok(None)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct OrderReserved {
    #[prost(string, tag = "1")]
    order_id: String,
    #[prost(message, optional, tag = "5")]
    total: Option<Money>,
    #[prost(string, tag = "6")]
    payment_method: String,
}

impl Office {
    async fn open() -> Self {
        let log = MemoryLog::new();
        for topic in ["payments.commands", "payments.events", "payments.dlq", "orders.events"] {
            log.create_topic(topic, PARTITIONS);
        }
        let ports = Ports {
            publishers: Arc::new(MemoryPublisher::new(log.node())),
            log: Arc::new(log.node()),
            membership: Arc::new(MemoryGroup::new(PARTITIONS).join()),
            store: Arc::new(MemoryStore::new()),
            clock: Arc::new(VirtualClock::start()),
            trace: Arc::new(NoTrace),
        };
        let config = Config { address: "memory".into(), ..Config::default() };
        let cashier = Arc::new(Cashier::default());
        let context = app::context(app::Settings::default(), Arc::new(till::rates()), cashier.clone());
        let node = Node::start(context, config, ports).await.unwrap();
        while node.owned_partitions() < PARTITIONS as usize {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let health = Health::new();
        let server = grpc::register(Server::new(health.clone()), node.clone());
        tokio::spawn(async move { server.serve(listener, &Shutdown::new(health)).await.unwrap() });
        let client = PaymentServiceClient::connect(format!("http://{address}")).await.unwrap();
        Self { log, cashier, node, client }
    }

    fn send(&self, topic: &str, r#type: &str, order_id: &str, body: Vec<u8>) {
        let at = Timestamp::from_unix_ms(0);
        let source = if topic == "orders.events" { "holdfast/orders/order" } else { "test" };
        let headers = EnvelopeOut::new(Uuid::now_v7(), source, r#type, at, order_id).headers();
        self.log.append(topic, None, Some(order_id.to_owned().into()), headers, Some(body.into())).unwrap();
    }

    fn reserve(&self, order_id: &str, minor: i64, currency: &str) {
        let total = Some(Money { minor, currency: currency.to_owned() });
        let body = OrderReserved { order_id: order_id.to_owned(), total, payment_method: "pm_card_visa".to_owned() };
        self.send("orders.events", "holdfast.orders.v1.OrderReserved", order_id, body.encode_to_vec());
    }

    async fn payment(&self, order_id: &str, version: u64) -> v1::Payment {
        let request = GetPaymentRequest { order_id: order_id.to_owned(), consistency: 0, min_version: version };
        self.client.clone().get_payment(request).await.unwrap().into_inner().payment.unwrap()
    }

    async fn captured(&self, minor: i64) -> String {
        let order = Uuid::now_v7().to_string();
        self.reserve(&order, minor, "USD");
        self.cashier.charges.send_replace(true);
        self.payment(&order, 2).await;
        order
    }
}

fn refund(request_id: &str, order_id: &str, id: &str, minor: i64, currency: &str) -> RefundPaymentRequest {
    let amount = Some(Money { minor, currency: currency.to_owned() });
    let command = Some(RefundPayment { order_id: order_id.to_owned(), refund_id: id.to_owned(), amount });
    RefundPaymentRequest { request_id: request_id.to_owned(), command }
}

#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String, Option<String>) {
    let status = result.unwrap_err();
    let fields = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
    let reason = errors::reason(&status).unwrap_or_else(|| panic!("no reason: {status:?}"));
    (status.code(), reason, fields.into_iter().next().map(|violation| violation.field))
}

/// The wire forms that payments read from anyone who could write its topic.
fn forged(order_id: &str) -> [(String, Vec<u8>); 7] {
    let order_id = || order_id.to_owned();
    let provider_ref = || "pi_forged".to_owned();
    let rate = Some(v1::ExchangeRate { from: "USD".into(), to: "EUR".into(), numerator: 1, denominator: 1 });
    let charged =
        v1::ChargeSucceeded { order_id: order_id(), provider_ref: provider_ref(), captured: true, rate: rate.clone() };
    let declined = v1::ChargeDeclined { order_id: order_id(), code: "no".into() };
    let amount = Some(Money { minor: 10_00, currency: "USD".to_owned() });
    let captured = v1::CaptureSucceeded { order_id: order_id(), rate, amount: amount.clone() };
    let ended = v1::AuthorizationEnded { order_id: order_id() };
    let refunded = v1::RefundSucceeded { order_id: order_id(), refund_no: 1, provider_ref: provider_ref() };
    let refused = v1::RefundRefused { order_id: order_id(), refund_no: 1, code: "no".into() };
    let news = v1::ProviderNews::Captured.into();
    let reported =
        v1::ProviderReported { order_id: order_id(), provider_ref: provider_ref(), news, amount, code: String::new() };
    fn of<M: prost::Name>(body: &M) -> (String, Vec<u8>) {
        (M::full_name(), body.encode_to_vec())
    }
    [of(&charged), of(&declined), of(&captured), of(&ended), of(&refunded), of(&refused), of(&reported)]
}

#[tokio::test]
async fn news_of_the_provider_from_a_stranger_changes_nothing() {
    let office = Office::open().await;
    let order = Uuid::now_v7().to_string();
    office.reserve(&order, 10_00, "USD");
    office.payment(&order, 1).await;
    let forged = forged(&order);
    for (name, body) in &forged {
        office.send("payments.commands", name, &order, body.clone());
        office.send("orders.events", name, &order, body.clone());
        let call = CallEnvelope::new(Uuid::now_v7(), name.as_str(), order.as_str(), body.clone().into());
        let refused = office.node.command(call.clone()).await;
        assert!(matches!(refused, Err(RouteError::Forbidden(_))), "{name}: {refused:?}");
        let origin = CallOrigin::Webhook("paypal/webhook".into());
        let refused = office.node.command(CallEnvelope { origin, ..call }).await;
        assert!(matches!(refused, Err(RouteError::Forbidden(_))), "{name}: {refused:?}");
    }
    while office.log.all_records("payments.dlq").len() < 2 * forged.len() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for dead in office.log.all_records("payments.dlq") {
        assert_eq!(dead.headers.get("dlt-reason"), Some(&b"UNKNOWN_TYPE"[..]));
        let error = String::from_utf8(dead.headers.get("dlt-error").unwrap().to_vec()).unwrap();
        assert!(error.contains("may not come from"), "{error}");
    }
    let payment = office.payment(&order, 1).await;
    assert_eq!((payment.status(), payment.version), (PaymentStatus::Requested, 1));
}

#[tokio::test]
async fn a_payment_is_read_with_what_the_books_have() {
    let office = Office::open().await;
    let order = office.captured(10_00).await;
    let payment = office.payment(&order, 2).await;
    assert_eq!((payment.status(), payment.version, payment.payment_id.as_str()), (PaymentStatus::Captured, 2, "pi_1"));
    assert_eq!(payment.settled, Some(Money { minor: 9_30, currency: "EUR".to_owned() }));
    let rate = v1::ExchangeRate { from: "USD".to_owned(), to: "EUR".to_owned(), numerator: 93, denominator: 100 };
    assert_eq!(payment.rate, Some(rate));
    let local = GetPaymentRequest { order_id: order, consistency: Consistency::Local.into(), min_version: 2 };
    let answer = office.client.clone().get_payment(local).await.unwrap().into_inner();
    assert_eq!((answer.payment, answer.read.unwrap().consistency()), (Some(payment), Consistency::Local));
}

#[tokio::test]
async fn a_refund_is_asked_for_once_whatever_id_it_comes_under() {
    let office = Office::open().await;
    let order = office.captured(10_00).await;
    let mut client = office.client.clone();
    let first = client.refund_payment(refund("a", &order, "r1", 4_00, "USD")).await.unwrap().into_inner();
    let payment = first.payment.clone().unwrap();
    assert_eq!((payment.version, payment.refunds.len()), (3, 1));
    let again = client.refund_payment(refund("a", &order, "r1", 4_00, "USD")).await.unwrap().into_inner();
    assert_eq!(again, first, "the same request");
    let twin = client.refund_payment(refund("b", &order, "r1", 4_00, "USD")).await.unwrap().into_inner();
    assert_eq!(twin.payment.unwrap().refunds.len(), 1, "another request for the same refund");
    let reused = (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned(), Some("request_id".to_owned()));
    assert_eq!(refusal(client.refund_payment(refund("a", &order, "r1", 5_00, "USD")).await), reused);
    let reused = (Code::AlreadyExists, "REFUND_ID_REUSED".to_owned(), Some("command.refund_id".to_owned()));
    assert_eq!(refusal(client.refund_payment(refund("c", &order, "r1", 5_00, "USD")).await), reused);
    office.cashier.refunds.send_replace(true);
    let payment = office.payment(&order, 4).await;
    assert_eq!(payment.status(), PaymentStatus::PartiallyRefunded);
    assert_eq!(payment.settled_refunded, Some(Money { minor: 3_72, currency: "EUR".to_owned() }));
}

#[tokio::test]
async fn each_refusal_has_its_code_its_reason_and_its_field() {
    let office = Office::open().await;
    let order = office.captured(10_00).await;
    let mut client = office.client.clone();
    let new = || Uuid::now_v7().to_string();
    let rejected = |reason: &str| (Code::FailedPrecondition, reason.to_owned(), None);
    let invalid = |field: &str| (Code::InvalidArgument, "INVALID".to_owned(), Some(field.to_owned()));
    let none = Uuid::now_v7().to_string();
    let rows = [
        (refund(&new(), &order, "r", 10_01, "USD"), rejected("REFUND_EXCEEDS_CAPTURED")),
        (refund(&new(), &order, "r", i64::MAX, "USD"), rejected("REFUND_EXCEEDS_CAPTURED")),
        (refund(&new(), &order, "r", 1, "JPY"), rejected("CURRENCY_MISMATCH")),
        (refund(&new(), &none, "r", 1, "USD"), (Code::NotFound, "PAYMENT_NOT_FOUND".to_owned(), None)),
        (refund(&new(), &order, "r", 0, "USD"), invalid("command.amount.minor")),
        (refund(&new(), &order, "r", 1, "EURO"), invalid("command.amount.currency")),
        (refund(&new(), &order, "", 1, "USD"), invalid("command.refund_id")),
        (refund(&new(), "no order", "r", 1, "USD"), invalid("command.order_id")),
        (RefundPaymentRequest { request_id: new(), command: None }, invalid("command")),
    ];
    for (request, expected) in rows {
        assert_eq!(refusal(client.refund_payment(request.clone()).await), expected, "{request:?}");
    }
    let ask = |order_id: &str| GetPaymentRequest { order_id: order_id.to_owned(), ..Default::default() };
    assert_eq!(refusal(client.get_payment(ask(&none)).await).1, "PAYMENT_NOT_FOUND");
    assert_eq!(refusal(client.get_payment(ask("x")).await), invalid("order_id"));
}

#[tokio::test]
async fn cancelled_order_is_refunded_in_full_or_voided_if_unreserved() {
    let office = Office::open().await;
    let order = office.captured(10_00).await;
    let cancel = |order_id: &str| {
        let body = OrderCancelled { order_id: order_id.to_owned(), ..OrderCancelled::default() };
        office.send("orders.events", &OrderCancelled::full_name(), order_id, body.encode_to_vec());
    };
    cancel(&order);
    let payment = office.payment(&order, 4).await;
    assert!(payment.cancelled);
    assert_eq!(payment.refunds[0].cause(), v1::RefundCause::OrderCancelled);
    office.cashier.refunds.send_replace(true);
    let payment = office.payment(&order, 5).await;
    assert_eq!((payment.status(), payment.settled_refunded), (PaymentStatus::Refunded, payment.settled));
    let early = Uuid::now_v7().to_string();
    cancel(&early);
    assert_eq!(office.payment(&early, 1).await.status(), PaymentStatus::Voided);
}

#[tokio::test]
async fn a_webhook_reaches_its_payment_once_and_a_forged_one_never() {
    let office = Office::open().await;
    let order = Uuid::now_v7().to_string();
    office.reserve(&order, 5_00, "USD");
    office.payment(&order, 1).await;
    let config = holdfast_payments::simulator::Config {
        webhooks: Some(holdfast_payments::simulator::WebhookConfig {
            url: serve_door(&office, "whsec_right").await,
            secret: "whsec_wrong".to_owned(),
            duplicates_per_mille: 1_000,
            delay_max: Duration::ZERO,
        }),
        ..Default::default()
    };
    charge(&config, &order).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(office.payment(&order, 1).await.status(), PaymentStatus::Requested, "forged");
    let mut config = config;
    config.webhooks.as_mut().unwrap().secret = "whsec_right".to_owned();
    charge(&config, &order).await;
    let payment = office.payment(&order, 2).await;
    assert_eq!((payment.status(), payment.version), (PaymentStatus::Captured, 2));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(office.payment(&order, 2).await.version, 2, "twice is once");
}

async fn serve_door(office: &Office, secret: &str) -> String {
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}{}", door.local_addr().unwrap(), webhook::PATH);
    let routes = webhook::routes(vec![secret.to_owned()], office.node.clone(), till::now);
    let limits = holdfast_platform::http::Limits::default();
    tokio::spawn(holdfast_platform::http::serve(door, routes, limits, tokio_util::sync::CancellationToken::new()));
    url
}

/// Charges 5.00 USD for the order at a provider with this behaviour, which reports it.
async fn charge(config: &holdfast_payments::simulator::Config, order_id: &str) {
    use holdfast_payments::{
        simulator::Simulator,
        stripe::{Settings, Stripe},
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let simulator = Simulator::new(config.clone());
    tokio::spawn(async move { simulator.serve(listener, tokio_util::sync::CancellationToken::new()).await });
    let stripe = Stripe::new(Settings { base_url, api_key: "sk".to_owned(), timeout: Duration::from_secs(5) });
    let amount = till::usd(5_00);
    let new = NewCharge { order_id, amount, payment_method: "pm_card_visa", authorize_first: false };
    stripe.charge(&new, "key").await.unwrap();
}
