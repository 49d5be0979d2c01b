//! Every row of "bad record" in the contracts: the exact dead letter, and the partition goes on.

use holdfast_load_tests::by_hand::{self, Place, Raw};
use holdfast_proto::{
    money::v1::Money,
    orders::v1::{AddItem, CancelOrder, CreateOrder},
    payments::v1::PaymentCaptured,
};
use libtest_mimic::Failed;
use uuid::Uuid;

use crate::shop::{Shop, customer, place, record, text};

fn create(id: &str) -> CreateOrder {
    CreateOrder { order_id: id.to_owned(), customer_id: customer(), currency: "EUR".to_owned() }
}

fn add(id: &str, quantity: i64) -> AddItem {
    AddItem { order_id: id.to_owned(), sku: "sku-1".to_owned(), quantity }
}

/// What is wrong, the record, and the reason of its dead letter.
pub fn table() -> Vec<(String, Raw, &'static str)> {
    let id = || Uuid::now_v7().to_string();
    let good = || {
        let id = id();
        record(&id, &create(&id))
    };
    let mut rows: Vec<(String, Raw, &'static str)> = Vec::new();
    let mut row = |what: &str, raw: Raw, reason| rows.push((what.to_owned(), raw, reason));
    row("no headers", Raw { headers: Vec::new(), ..good() }, "UNDECODABLE");
    for name in ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type"] {
        row(&format!("no {name}"), good().with(name, None), "UNDECODABLE");
    }
    row("another specversion", good().with("ce_specversion", Some("0.3")), "UNDECODABLE");
    row("another content type", good().with("content-type", Some("text/plain")), "UNDECODABLE");
    row("garbage", Raw { value: Some(vec![0xff; 64]), ..good() }, "UNDECODABLE");
    row("protobuf said to be JSON", good().with("content-type", Some("application/json")), "UNDECODABLE");
    row("no value", Raw { value: None, ..good() }, "UNDECODABLE");
    row("unknown type", good().with("ce_type", Some("holdfast.orders.v1.EatOrder")), "UNKNOWN_TYPE");
    row("an event's type", good().with("ce_type", Some("holdfast.orders.v1.OrderPlaced")), "UNKNOWN_TYPE");
    row("key is not the subject", good().with("ce_subject", Some(&id())), "INVALID");
    row("key is not the order", record(&id(), &create(&id())), "INVALID");
    row("no key", Raw { key: None, ..good() }, "INVALID");
    row("message id malformed", good().with("ce_id", Some("seven")), "INVALID");
    row("order id malformed", record("seven", &create("seven")), "INVALID");
    let upper = id().to_uppercase();
    row("order id not canonical", record(&upper, &create(&upper)), "INVALID");
    let order = id();
    row("customer malformed", record(&order, &CreateOrder { customer_id: "me".into(), ..create(&order) }), "INVALID");
    row("quantity 0", record(&order, &add(&order, 0)), "INVALID");
    row("quantity below 0", record(&order, &add(&order, -1)), "INVALID");
    for currency in ["", "eur", "XXX", "EURO"] {
        let order = id();
        let body = CreateOrder { currency: currency.to_owned(), ..create(&order) };
        row(&format!("currency `{currency}`"), record(&order, &body), "INVALID");
    }
    for source in ["grpc", "stripe/webhook", "holdfast/orders/order", "holdfast/payments/payment"] {
        row(&format!("source {source}"), good().with("ce_source", Some(source)), "UNKNOWN_TYPE");
    }
    row(
        "a false seal",
        good().with("ce_source", Some("holdfast/orders/order")).with("ce_holdfastseal", Some("00")),
        "UNKNOWN_TYPE",
    );
    let order = id();
    let cent = Some(Money { minor: 1, currency: "EUR".to_owned() });
    let paid = PaymentCaptured { order_id: order.clone(), amount: cent, ..PaymentCaptured::default() };
    row("another context's event", record(&order, &paid), "UNKNOWN_TYPE");
    row("ce_sequence 0", good().with("ce_sequence", Some("0")), "INVALID");
    row("ce_time malformed", good().with("ce_time", Some("yesterday")), "INVALID");
    row("NUL in a header", good().with("ce_correlationid", Some("a\0b")), "INVALID");
    let order = id();
    let nul = CancelOrder { order_id: order.clone(), reason: "a\0b".to_owned() };
    row("NUL in the body", record(&order, &nul), "INVALID");
    row("NUL in the key", record("\0x", &create("\0x")), "INVALID");
    row("a header over 1 KiB", good().with("ce_correlationid", Some(&"x".repeat(1025))), "TOO_LARGE");
    row("headers over 64 KiB", good().with("x-large", Some(&"x".repeat(64 * 1024))), "TOO_LARGE");
    row("over 1 MiB", Raw { value: Some(vec![b'x'; 1024 * 1024 + 1]), ..good() }, "TOO_LARGE");
    rows
}

/// The dead letters of these records, in their order.
async fn dead(shop: &Shop, places: &[Place]) -> Result<Vec<Raw>, Failed> {
    let letters = shop.read("orders.dlq").await?;
    let of = |place: &Place| {
        let mut found = letters.iter().filter(|(_, letter)| {
            letter.header("dlt-original-partition") == place.partition.to_string()
                && letter.header("dlt-original-offset") == place.offset.to_string()
        });
        match (found.next(), found.next()) {
            (Some((_, letter)), None) => Ok(letter.clone()),
            (None, _) => Err(Failed::from(format!("no dead letter for {place:?}"))),
            _ => Err(Failed::from(format!("several dead letters for {place:?}"))),
        }
    };
    places.iter().map(of).collect()
}

fn check(what: &str, sent: &Raw, letter: &Raw, reason: &str) -> Result<(), Failed> {
    let wrong = |why: String| Err(Failed::from(format!("{what}: {why}")));
    if letter.header("dlt-reason") != reason {
        return wrong(format!("{} ({}) instead of {reason}", letter.header("dlt-reason"), letter.header("dlt-error")));
    }
    if (&letter.key, &letter.value) != (&sent.key, &sent.value) {
        return wrong("key or value are not as they came".to_owned());
    }
    if letter.headers.get(..sent.headers.len()) != Some(&sent.headers[..]) {
        return wrong(format!("headers are not as they came: {:?}", letter.headers));
    }
    for header in [
        "dlt-original-topic",
        "dlt-original-timestamp",
        "dlt-consumer",
        "dlt-error",
        "dlt-first-failed-at",
        "dlt-last-failed-at",
    ] {
        if letter.header(header).is_empty() {
            return wrong(format!("no {header}"));
        }
    }
    if letter.header("dlt-original-topic") != "orders.commands" || letter.header("dlt-attempts") != "1" {
        return wrong(format!(
            "topic {}, attempts {}",
            letter.header("dlt-original-topic"),
            letter.header("dlt-attempts")
        ));
    }
    match Uuid::try_parse(letter.header("dlt-id")) {
        Ok(_) => Ok(()),
        Err(_) => wrong(format!("dlt-id `{}`", letter.header("dlt-id"))),
    }
}

pub async fn dead_letter_keeps_bad_records_bytes_and_partition_goes_on(shop: &Shop) -> Result<(), Failed> {
    let rows = table();
    let sent: Vec<Raw> = rows.iter().map(|(_, raw, _)| raw.clone()).collect();
    let places = shop.order(&sent).await?;
    let letters = dead(shop, &places).await?;
    for ((what, raw, reason), letter) in rows.iter().zip(&letters) {
        check(what, raw, letter, reason)?;
    }
    // Two hundred good orders reach every partition.
    let ids: Vec<String> = (0..200).map(|_| Uuid::now_v7().to_string()).collect();
    let good: Vec<Raw> = ids.iter().map(|id| record(id, &create(id))).collect();
    let reached: std::collections::BTreeSet<i32> =
        shop.order(&good).await?.iter().map(|place| place.partition).collect();
    let events = shop.read("orders.events").await?;
    let done = |id: &&String| events.iter().any(|(_, event)| event.key.as_deref() == Some(id.as_bytes()));
    let count = ids.iter().filter(done).count();
    if (count, reached.len()) != (ids.len(), 12) {
        return Err(format!("{count} of {} orders were created, on {} partitions", ids.len(), reached.len()).into());
    }
    Ok(())
}

/// Larger than any topic takes, and entered compressed: its dead letter is cut, and its partition's
/// publishing goes on.
pub async fn compressed_record_larger_than_any_topic_takes_is_cut(shop: &Shop) -> Result<(), Failed> {
    const BYTES: usize = 12 * 1024 * 1024;
    let id = Uuid::now_v7().to_string();
    let bomb = Raw { value: Some(vec![0; BYTES]), ..record(&id, &create(&id)) };
    let places = by_hand::send_compressed(shop.brokers(), "orders.commands", &[bomb]).await?;
    shop.order(&[record(&id, &create(&id))]).await?;
    let letter = dead(shop, &places).await?.remove(0);
    let (cut, left) = (letter.header("dlt-cut").to_owned(), letter.value.as_ref().map_or(0, Vec::len));
    if letter.header("dlt-reason") != "TOO_LARGE" || !cut.contains(&format!("value={BYTES} ")) || left == 0 {
        return Err(format!("{} `{cut}`, {left} bytes left", letter.header("dlt-reason")).into());
    }
    let events = shop.read("orders.events").await?;
    if !events.iter().any(|(_, event)| event.key.as_deref() == Some(id.as_bytes())) {
        return Err("the order sent behind it was not created".into());
    }
    Ok(())
}

pub async fn an_identical_repeat_does_nothing_and_another_body_is_invalid(shop: &Shop) -> Result<(), Failed> {
    let id = Uuid::now_v7().to_string();
    let first = record(&id, &create(&id));
    let other = Raw { value: record(&id, &place(&id)).value, ..first.clone() };
    let places = shop.order(&[first.clone(), first.clone(), other.clone(), first]).await?;
    let events = shop.read("orders.events").await?;
    let count = events.iter().filter(|(_, event)| event.key.as_deref() == Some(id.as_bytes())).count();
    if count != 1 {
        return Err(format!("{count} events instead of 1").into());
    }
    let letters = dead(shop, &places[2..3]).await?;
    check("reused ce_id", &other, &letters[0], "INVALID")?;
    match dead(shop, &places[1..2]).await {
        Err(_) => Ok(()),
        Ok(letters) => Err(format!(
            "an identical repeat became a dead letter: {}",
            text(&letters[0].value.clone().unwrap_or_default())
        )
        .into()),
    }
}
