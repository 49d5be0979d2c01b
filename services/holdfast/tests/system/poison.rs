//! A command whose handler panics, among ten thousand good ones.
//!
//! On servers of its own, with the load tests' order aggregate, which panics when it is asked to.

use std::time::Duration;

use holdfast_load_tests::{
    by_hand, checkers,
    checkers::Target,
    kafka,
    producer::{self, Options},
    scenarios::{
        holdfast::{Contestant, Serving},
        stand_in::PANIC_SKU,
    },
    work::Mix,
};
use holdfast_proto::orders::v1::{AddItem, CreateOrder};
use holdfast_stack::{Stack, StackOptions};
use libtest_mimic::Failed;
use uuid::Uuid;

use crate::shop::{Shop, record};

pub async fn panicking_command_is_dead_letter_and_10000_others_are_done(_: &Shop) -> Result<(), Failed> {
    let stack = Stack::start(StackOptions::default()).await?;
    let url = stack.postgres_url("postgres");
    let topics = ["orders.commands", "orders.events", "orders.dlq"];
    kafka::create_topics(stack.brokers(), &topics, 12).await?;
    let config = holdfast_runtime::Config { address: "poison".into(), ..holdfast_runtime::Config::default() };
    let serving = Serving::start(Contestant::stand_in(), config, stack.brokers(), &url, "orders").await?;
    serving.ready(Duration::from_mins(1)).await?;

    let brokers = stack.brokers().to_owned();
    let sending = tokio::spawn(async move {
        producer::produce(&brokers, &Mix::benchmark(2_500, 1), Options::to("orders.commands"), |_| {}).await
    });
    let id = Uuid::now_v7().to_string();
    let create = CreateOrder { order_id: id.clone(), customer_id: Uuid::now_v7().to_string(), currency: "EUR".into() };
    let panics = record(&id, &AddItem { order_id: id.clone(), sku: PANIC_SKU.to_owned(), quantity: 1 });
    let sent = [record(&id, &create), panics.clone()];
    let places = by_hand::send(stack.brokers(), "orders.commands", &sent).await?;
    let ledger = sending.await??;

    let target = Target::new(stack.brokers(), &url).orders_only();
    checkers::settled(&target, Duration::from_secs(90), |_| {}).await?;
    let letters = by_hand::read(stack.brokers(), "orders.dlq").await?;
    let report = checkers::account(&target, &ledger).await?;
    serving.stop().await;
    stack.stop().await?;

    let [(_, letter)] = &letters[..] else { return Err(format!("{} dead letters instead of 1", letters.len()).into()) };
    let place = (letter.header("dlt-original-partition"), letter.header("dlt-original-offset"));
    let right = letter.value == panics.value
        && letter.key == panics.key
        && letter.headers.starts_with(&panics.headers)
        && place == (&*places[1].partition.to_string(), &*places[1].offset.to_string())
        && (letter.header("dlt-reason"), letter.header("dlt-attempts")) == ("POISON", "3");
    if !right {
        return Err(format!("the dead letter: {:?}", letter.headers).into());
    }
    if report.applied < 10_000 || report.lost() + report.doubled() + report.out_of_order() > 0 {
        return Err(report.to_string().into());
    }
    Ok(())
}
