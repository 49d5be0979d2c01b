//! `holdfast order trace`: one order's story, across contexts: what each says of it now, and everything that
//! happened to it.

use std::{collections::BTreeSet, sync::Arc};

use holdfast_core::{
    KeyHash, PartitionId, Record, Timestamp,
    envelope::header,
    port::{log::Log as _, store::Store as _},
};
use holdfast_kafka::KafkaLog;
use holdfast_platform::{Config, Context};

use crate::{
    cli, compose,
    failure::Failure,
    infrastructure::Infrastructure,
    operator::{
        books::disagreements,
        story::{Story, Tellers},
    },
};

/// Those that tell of orders.
const CONTEXTS: [Context; 4] = [Context::Orders, Context::Inventory, Context::Payments, Context::Fulfillment];

/// An event of the order, as the trace prints it.
struct Traced {
    at: String,
    context: Context,
    version: String,
    r#type: String,
    place: String,
}

/// Runs one of the verbs.
pub async fn run(config: &Config, verb: cli::Order) -> Result<u8, Failure> {
    let cli::Order::Trace { order_id, json } = verb;
    let at = Infrastructure::configured(config)?;
    let tellers = Tellers::find(config, &at).await?;
    let story = tellers.story(&order_id).await?;
    let mut traced = Vec::new();
    for context in CONTEXTS {
        traced.extend(events(config, &at, context, &order_id).await?);
    }
    traced.sort_by(|a, b| (&a.at, a.context, &a.version).cmp(&(&b.at, b.context, &b.version)));
    let found = disagreements(&story);
    if json {
        print_json(&story, &traced, &found);
    } else {
        print(&story, &traced, &found);
    }
    if story.order.is_none() && traced.is_empty() {
        return Err(Failure::Check(anyhow::anyhow!("nobody knows an order {order_id}")));
    }
    Ok(0)
}

/// The events of `order_id` in every partition that was ever its home.
async fn events(
    config: &Config,
    at: &Infrastructure,
    context: Context,
    order_id: &str,
) -> Result<Vec<Traced>, Failure> {
    let growth = compose::store(config, at, context).await?.growth().await.map_err(Failure::unreachable)?;
    let hash = KeyHash::of(order_id.as_bytes());
    let homes: BTreeSet<PartitionId> = growth.generations.values().map(|count| hash.home(*count)).collect();
    let log = KafkaLog::new(&compose::kafka(config, at.brokers(), context)).map_err(Failure::usage)?;
    let topic: Arc<str> = format!("{context}.events").into();
    let mut traced = Vec::new();
    for home in homes {
        let (mut next, end) = log.bounds(&topic, home).await.map_err(Failure::unreachable)?;
        let mut stream = log.open(&topic, home, Some(next)).await.map_err(Failure::unreachable)?;
        while next < end {
            // What is no record (a transaction's marker) may lie at the end.
            let Ok(record) = tokio::time::timeout(std::time::Duration::from_secs(2), stream.next()).await else {
                next = stream.position().unwrap_or(next);
                continue;
            };
            let record = record.map_err(Failure::unreachable)?;
            next = record.offset + 1;
            if record.key.as_deref() == Some(order_id.as_bytes()) {
                traced.push(of(context, &record));
            }
        }
    }
    Ok(traced)
}

fn of(context: Context, record: &Record) -> Traced {
    let text = |name: &str| {
        record.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    };
    let r#type = text(header::TYPE);
    let (at, version) = (text(header::TIME), text(header::SEQUENCE));
    let place = format!("{}-{}@{}", record.topic, record.partition, record.offset);
    let at = if at.is_empty() { record.timestamp.map(Timestamp::rfc3339).unwrap_or_default() } else { at };
    Traced { at, context, version, r#type: r#type.rsplit('.').next().unwrap_or_default().to_owned(), place }
}

/// What each context says, by its name.
fn parts(story: &Story) -> [(Context, serde_json::Value); 4] {
    fn json<T: serde::Serialize>(part: Option<&T>) -> serde_json::Value {
        part.and_then(|part| serde_json::to_value(part).ok()).unwrap_or_default()
    }
    [
        (Context::Orders, json(story.order.as_ref())),
        (Context::Inventory, json(story.reservation.as_ref())),
        (Context::Payments, json(story.payment.as_ref())),
        (Context::Fulfillment, json(story.shipment.as_ref())),
    ]
}

fn print_json(story: &Story, traced: &[Traced], found: &[String]) {
    for one in traced {
        println!(
            "{}",
            serde_json::json!({
                "at": one.at, "context": one.context.as_str(), "version": one.version, "event": one.r#type, "place": one.place,
            })
        );
    }
    for (context, state) in parts(story) {
        println!("{}", serde_json::json!({ "context": context.as_str(), "state": state }));
    }
    for what in found {
        println!("{}", serde_json::json!({ "disagreement": what }));
    }
}

fn print(story: &Story, traced: &[Traced], found: &[String]) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    for one in traced {
        table.add_row([&one.at, one.context.as_str(), &one.version, &one.r#type, &one.place]);
    }
    println!("{table}");
    for (context, state) in parts(story) {
        let now = if state.is_null() { "knows of none".to_owned() } else { state.to_string() };
        println!("{context} now: {now}");
    }
    for what in found {
        println!("disagreement, or on its way: {what}");
    }
}
