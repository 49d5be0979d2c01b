//! Canaries in every part of an address: where they may be found, and where never.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use holdfast_proto::fulfillment::v1;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::shop::{CANARY, Shop, eventually, id};

/// Everything that is logged, at any level, by this workspace's crates; spans and their fields too.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn address_is_only_in_the_state_and_in_get_shipment() {
    let lines = Lines::default();
    let subscriber =
        tracing_subscriber::fmt().with_writer(lines.clone()).with_env_filter(EnvFilter::new("holdfast=trace"));
    subscriber.with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL).init();
    let mut shop = Shop::in_memory().await;
    let (customer, order_id) = (id(), id());
    shop.pay(&order_id, 4, &customer, &id());
    shop.confirm(&order_id);
    let answer = format!("{:?}", shop.get(&order_id, 2).await.unwrap());
    for part in ["recipient", "line-1", "line-2", "city", "zip", "country"] {
        assert!(answer.contains(&format!("{CANARY}-{part}")), "GetShipment answers with {part}");
    }
    let listed = shop.client.list_pickable(v1::ListPickableRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.shipments.len(), 1);
    let mut answers = vec![format!("{listed:?}")];
    answers.push(format!("{:?}", shop.start_picking(&order_id).await.unwrap()));
    answers.push(format!("{:?}", shop.start_picking(&order_id).await.unwrap_err()));
    answers.push(format!("{:?}", shop.pack(&order_id).await.unwrap()));
    answers.push(format!("{:?}", shop.dispatch(&order_id).await.unwrap()));
    shop.events(&order_id, 5).await;
    shop.events(&customer, 1).await;

    let everything = |shop: &Shop| {
        let topics = shop.log.topics().into_iter().map(|topic| format!("{:?}", shop.log.all_records(&topic)));
        let mut contents = shop.memory.contents();
        let states = format!("{:?}", std::mem::take(&mut contents.states));
        assert!(!contents.claims.is_empty() && !contents.outbox.is_empty() && !contents.views.is_empty());
        (states, topics.collect::<String>() + &format!("{contents:?}"))
    };
    let (states, others) = everything(&shop);
    assert!(states.contains(CANARY), "the canaries have to be somewhere for this test to say anything");
    assert!(!others.contains(CANARY), "a record, a claim, an outbox row or a row of the read model holds one");

    shop.erase(&customer);
    shop.events(&customer, 2).await;
    shop.events(&order_id, 6).await;
    eventually("the address is gone", || !everything(&shop).0.contains(CANARY)).await;
    assert!(!everything(&shop).1.contains(CANARY));
    let answer = format!("{:?}", shop.get(&order_id, 6).await.unwrap());
    assert!(answer.contains(&order_id) && !answer.contains(CANARY));
    assert!(answers.iter().all(|answer| !answer.contains(CANARY)), "an answer of a mutation or of a list: {answers:?}");
    let lines = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
    assert!(lines.contains("holdfast_"), "nothing was logged, so nothing was looked at: {lines}");
    assert!(!lines.contains(CANARY), "a line or a span of the log holds one");
}
