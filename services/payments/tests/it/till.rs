//! Payments and their calls, as the runtime will drive them, before a simulated provider behind real HTTP.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
use holdfast_core::{
    Aggregate as _, Context, Decision, Message, Timestamp,
    codec::{Adapter as _, Again, Attempt},
};
use holdfast_money::{Currency, Money};
use holdfast_payments::{
    app::Settings,
    codec::{PaymentAdapter, effects_after},
    perform::perform,
    provider::Provider,
    rates::TableRates,
    simulator::{Config, Plan, Simulator, WebhookConfig},
    stripe::{self, Stripe},
    webhook::webhook,
};
use holdfast_payments_domain::{Command, Event, Payment, Quote};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long the adapter waits for an answer; the simulator hangs for twice that.
pub const PATIENCE: Duration = Duration::from_millis(150);

/// The secret of the webhooks.
pub const SECRET: &str = "whsec_till";

pub fn now() -> Timestamp {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_unix_ms(i64::try_from(now.as_millis()).unwrap())
}

pub fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

pub fn rates() -> TableRates {
    TableRates::parse(Currency::EUR, "USD=93/100,JPY=6/1000,BHD=245/100").unwrap()
}

/// One order's payment, and the calls that are under way for it.
#[derive(Default)]
pub struct Drawer {
    payment: Payment,
    version: u64,
    events: Vec<Event>,
    calls: BTreeMap<String, Attempt>,
}

/// What is known of payments, by order.
pub type Drawers = HashMap<String, Drawer>;

pub struct Till {
    pub simulator: Simulator,
    pub stripe: Stripe,
    adapter: PaymentAdapter,
    drawers: Mutex<Drawers>,
    stop: CancellationToken,
}

impl Drop for Till {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Till {
    pub async fn open(plan: Plan) -> Arc<Self> {
        Self::with(plan, Settings::default(), None).await
    }

    /// With webhooks that come late and, every third, twice, if `webhooks` says how late.
    pub async fn with(plan: Plan, settings: Settings, webhooks: Option<Duration>) -> Arc<Self> {
        let stop = CancellationToken::new();
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config {
            plan,
            hang: PATIENCE * 2,
            retry_after_s: 0,
            webhooks: webhooks.map(|delay_max| WebhookConfig {
                url: format!("http://{}/hook", door.local_addr().unwrap()),
                secret: SECRET.to_owned(),
                duplicates_per_mille: 333,
                delay_max,
            }),
            ..Config::default()
        };
        Self::at(Simulator::new(config), settings, door, stop).await
    }

    /// With this provider, whose webhooks come to `door`.
    pub async fn at(simulator: Simulator, settings: Settings, door: TcpListener, stop: CancellationToken) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let (served, until) = (simulator.clone(), stop.clone());
        tokio::spawn(async move { served.serve(listener, until).await.unwrap() });
        let stripe = Stripe::new(stripe::Settings { base_url, api_key: "sk_test".to_owned(), timeout: PATIENCE });
        let adapter = PaymentAdapter::new(settings, Arc::new(rates()), Arc::new(stripe.clone()));
        let till = Arc::new(Self { simulator, stripe, adapter, drawers: Mutex::default(), stop: stop.clone() });
        let weak = Arc::downgrade(&till);
        let hook = move |headers: HeaderMap, body: Bytes| {
            let till = weak.upgrade();
            async move {
                let Some(till) = till else { return };
                for report in webhook(&[SECRET.to_owned()], &headers, &body, now()).expect("signed") {
                    till.deliver(&report.order_id, &report.call().into_message().expect("sound")).await;
                }
            }
        };
        tokio::spawn(holdfast_platform::http::serve(
            door,
            Router::new().route("/hook", post(hook)),
            holdfast_platform::http::Limits::default(),
            stop,
        ));
        till
    }

    /// Begins the payment of a new order.
    pub async fn reserve(&self, amount: Money, payment_method: &str) -> String {
        let order_id = Uuid::now_v7().to_string();
        let command = Command::OrderReserved {
            amount,
            payment_method: Some(payment_method.into()),
            authorize_first: false,
            quote: Quote::NotAsked,
        };
        self.decide(&order_id, command).await;
        order_id
    }

    /// The same, authorizing first.
    pub async fn authorize(&self, amount: Money, payment_method: &str) -> String {
        let order_id = Uuid::now_v7().to_string();
        let command = Command::OrderReserved {
            amount,
            payment_method: Some(payment_method.into()),
            authorize_first: true,
            quote: Quote::NotAsked,
        };
        self.decide(&order_id, command).await;
        order_id
    }

    pub async fn cancel(&self, order_id: &str) {
        self.decide(order_id, Command::OrderCancelled).await;
    }

    pub async fn refund(&self, order_id: &str, id: &str, amount: Money) {
        self.decide(order_id, Command::RefundPayment { id: id.into(), amount }).await;
    }

    /// A message arrives.
    async fn deliver(&self, order_id: &str, message: &Message) {
        let command = self.adapter.decode(message).expect("well-formed");
        self.decide(order_id, command).await;
    }

    async fn decide(&self, order_id: &str, mut command: Command) {
        let prepared = self.adapter.prepare(&mut [&mut command]).await;
        assert_eq!(prepared, [Ok(())]);
        let mut drawers = self.drawers.lock().unwrap();
        let drawer = drawers.entry(order_id.to_owned()).or_default();
        let context = Context { key: order_id, version: drawer.version, now: now() };
        let Decision::Done(effects) = drawer.payment.decide(&command, &context).expect("not rejected") else {
            panic!("wants nothing shared")
        };
        for event in effects.events {
            drawer.payment.evolve(&event);
            drawer.version += 1;
            for change in effects_after(&event, order_id) {
                match change.request {
                    Some(request) => {
                        let call = effect(order_id, &change.name, request);
                        assert!(drawer.calls.insert(change.name, call).is_none());
                    }
                    None => drop(drawer.calls.remove(&change.name)),
                }
            }
            drawer.events.push(event);
        }
    }

    /// Makes the order's calls until there are none.
    pub async fn settle(&self, order_id: &str) {
        for _ in 0..400 {
            let call = self.drawers.lock().unwrap()[order_id].calls.values().next().cloned();
            let Some(call) = call else { return };
            match perform(&self.stripe, &rates(), &call).await {
                Ok(command) => {
                    // As the runtime has it: with the decision on its outcome the call is over.
                    self.drawers.lock().unwrap().get_mut(order_id).unwrap().calls.remove(&call.name);
                    self.decide(order_id, command).await;
                }
                Err(Again { after, .. }) => {
                    let pause = after.unwrap_or(Duration::from_millis(10)).min(Duration::from_millis(30));
                    tokio::time::sleep(pause).await;
                    if let Some(call) =
                        self.drawers.lock().unwrap().get_mut(order_id).unwrap().calls.get_mut(&call.name)
                    {
                        call.number += 1;
                    }
                }
            }
        }
        panic!("the calls of {order_id} never end: {:?}", self.drawers.lock().unwrap()[order_id].calls);
    }

    /// Everything that is known of payments, as a store would keep it for the next run.
    pub fn close(&self) -> Drawers {
        self.stop.cancel();
        std::mem::take(&mut *self.drawers.lock().unwrap())
    }

    /// Goes on with what an earlier run knew.
    pub fn keep(&self, drawers: Drawers) {
        self.drawers.lock().unwrap().extend(drawers);
    }

    /// The last call that was begun for an order, whether or not it is under way.
    pub fn last_call(&self, order_id: &str) -> Attempt {
        let drawers = self.drawers.lock().unwrap();
        let begun = drawers[order_id].events.iter().flat_map(|event| effects_after(event, order_id));
        let last = begun.filter_map(|change| Some((change.name, change.request?))).last().expect("a call");
        effect(order_id, &last.0, last.1)
    }

    pub fn payment(&self, order_id: &str) -> Payment {
        self.drawers.lock().unwrap()[order_id].payment.clone()
    }

    pub fn status(&self, order_id: &str) -> &'static str {
        self.payment(order_id).details().unwrap().status.name()
    }

    /// The provider's account of one order: charges that went through, and the sum of what was given back, in
    /// its units.
    pub fn ledger(&self, order_id: &str) -> (Vec<i64>, Vec<i64>) {
        let account = self.simulator.account();
        let of = |list: &str, keep: fn(&Value) -> bool| -> Vec<i64> {
            let rows = account[list].as_array().unwrap().iter().filter(|row| row["order_id"] == *order_id && keep(row));
            rows.map(|row| row["amount"].as_i64().unwrap()).collect()
        };
        (of("charges", |row| row["status"] == "succeeded"), of("refunds", |_| true))
    }
}

/// The first attempt at a call.
pub fn effect(order_id: &str, name: &str, request: bytes::Bytes) -> Attempt {
    Attempt { key: order_id.into(), name: name.to_owned(), request, number: 1, age: Duration::ZERO, now: now() }
}

/// A provider that is never asked.
pub fn nobody() -> Arc<dyn Provider> {
    let (base_url, api_key) = ("http://127.0.0.1:9".to_owned(), String::new());
    Arc::new(Stripe::new(stripe::Settings { base_url, api_key, timeout: PATIENCE }))
}
