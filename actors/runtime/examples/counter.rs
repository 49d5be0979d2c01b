//! A whole context in one file: a counter, served on a real Kafka and a real Postgres.
//!
//! `cargo run --release -p holdfast-runtime --example counter` starts both, sends a few commands, and prints
//! the events they caused.

use std::{sync::Arc, time::Duration};

use holdfast_core::{
    Aggregate, CallEnvelope, Context, Decision, Message,
    codec::{Adapter, EncodedEvent, StateError},
    dedup::Rejection,
    disposition::Refused,
    origin::{Handled, MessageOrigin},
};

/// The state, and the two functions that a domain consists of.
#[derive(Clone, Default)]
pub struct Counter {
    total: i64,
}

/// What may be asked of it.
pub enum Command {
    /// Add this much.
    Add(i64),
}

/// So much was added.
pub struct Added(i64);

/// It would count past 1000.
pub struct TooMuch;

impl Aggregate for Counter {
    const KIND: &'static str = "counter";
    const SCHEMA: u32 = 1;
    type Command = Command;
    type Event = Added;
    type Rejection = TooMuch;

    fn decide(&self, Command::Add(n): &Command, _: &Context<'_>) -> Result<Decision<Self>, TooMuch> {
        if self.total + n > 1000 { Err(TooMuch) } else { Ok(Decision::event(Added(*n))) }
    }

    fn evolve(&mut self, Added(n): &Added) {
        self.total += n;
    }
}

/// How it looks on the wire and in storage: numbers as text.
pub struct CounterAdapter;

impl Adapter for CounterAdapter {
    type Aggregate = Counter;

    fn handles(&self) -> Vec<Handled> {
        vec![Handled::new("example.v1.Add", &[MessageOrigin::Commands, MessageOrigin::Call])]
    }

    /// Any text.
    fn check_key(&self, _: &str) -> Result<(), Refused> {
        Ok(())
    }

    fn decode(&self, message: &Message) -> Result<Command, Refused> {
        let text = std::str::from_utf8(&message.payload).map_err(|_| Refused::undecodable("the body is not text"))?;
        let n: i64 = text.parse().map_err(|_| Refused::undecodable("the body is not a number"))?;
        if (0..=1000).contains(&n) { Ok(Command::Add(n)) } else { Err(Refused::invalid("body", "not within 0..=1000")) }
    }

    fn encode_event(&self, Added(n): &Added, _: &Context<'_>) -> EncodedEvent {
        EncodedEvent { r#type: "example.v1.Added", payload: n.to_string().into() }
    }

    fn encode_state(&self, state: &Counter) -> bytes::Bytes {
        state.total.to_string().into()
    }

    fn decode_state(&self, schema: u32, bytes: &[u8]) -> Result<Counter, StateError> {
        let total = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
        total.map(|total| Counter { total }).ok_or(StateError { schema, reason: "not a number".into() })
    }

    fn encode_reply(&self, state: &Counter, _: &Context<'_>) -> bytes::Bytes {
        self.encode_state(state)
    }

    fn rejection(&self, _: &TooMuch) -> Rejection {
        Rejection { code: "TOO_MUCH".into(), message: "a counter ends at 1000".into() }
    }
}
// ---- that was all of the domain; from here on it is served

#[tokio::main]
#[allow(dead_code)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use holdfast_runtime::{Consistency, Router};

    println!("starting Kafka and Postgres (the first time they are downloaded) ...");
    let stack = holdfast_stack::Stack::start(holdfast_stack::StackOptions::default()).await?;
    let node = serve(stack.brokers(), &stack.postgres_url("postgres")).await?;
    while node.owned_partitions() < 4 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for n in [1, 20, 300, 4000] {
        match node.command(add("teacups", n)).await {
            Ok(answer) => println!("add {n}: {answer:?}"),
            Err(error) => println!("add {n}: {error}"),
        }
    }
    let read = node.read("counter", "teacups", Consistency::Strong, 0).await?;
    println!("teacups: {} at version {}", String::from_utf8_lossy(&read.body), read.version);
    node.stop().await;
    stack.stop().await?;
    Ok(())
}

/// Wires the context to a broker and a database, creating topics and tables.
pub async fn serve(brokers: &str, database: &str) -> Result<Arc<holdfast_runtime::Node>, Box<dyn std::error::Error>> {
    use holdfast_kafka::{KafkaConfig, KafkaLog, KafkaMembership, KafkaPublishers, admin};
    use holdfast_runtime::{BoundedContext, Config, Node, Ports, SystemClock, telemetry::NoTrace};

    let kafka = KafkaConfig { session_timeout: Duration::from_secs(6), ..KafkaConfig::new(brokers, "counter") };
    let topics = admin::TopicSpec::of_context("counter", 4, 1);
    let admin = admin::KafkaAdmin::new(&kafka)?;
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    admin.apply(&admin::plan(&admin.describe(&names).await?, &topics), false).await?;
    holdfast_postgres::migrate(database, "counter", None, &[]).await?;

    let membership = KafkaMembership::join(&kafka)?;
    let ports = Ports {
        log: Arc::new(KafkaLog::with_member(&kafka, &membership)?),
        membership: Arc::new(membership),
        publishers: Arc::new(KafkaPublishers::new(&kafka)?),
        store: Arc::new(
            holdfast_postgres::PgStore::connect(holdfast_postgres::Config::new(database, "counter")).await?,
        ),
        clock: Arc::new(SystemClock),
        trace: Arc::new(NoTrace),
    };
    Ok(Node::start(BoundedContext::new("counter").with(CounterAdapter), Config::default(), ports).await?)
}

/// A command as a caller would send it.
pub fn add(key: &str, n: i64) -> CallEnvelope {
    CallEnvelope::new(uuid::Uuid::now_v7(), "example.v1.Add", key, n.to_string().into())
}
