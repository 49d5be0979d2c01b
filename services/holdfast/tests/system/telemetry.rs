//! One trace through everything, and nothing of what callers sent in any of it.

use std::io::{Read as _, Write as _};

use holdfast_load_tests::by_hand::Raw;
use holdfast_proto::orders::v1::{AddItem, CreateOrder};
use libtest_mimic::Failed;
use uuid::Uuid;

use crate::{
    bad_records,
    shop::{Shop, customer, place, record},
};

pub async fn one_trace_leads_through_both_contexts(shop: &Shop) -> Result<(), Failed> {
    let id = Uuid::now_v7().to_string();
    let trace = Uuid::new_v4().simple().to_string();
    let flow = Uuid::now_v7().to_string();
    let traced = |raw: Raw| {
        raw.with("traceparent", Some(&format!("00-{trace}-00f067aa0ba902b7-01"))).with("ce_correlationid", Some(&flow))
    };
    let customer_id = customer();
    let create = CreateOrder { order_id: id.clone(), customer_id, currency: "EUR".to_owned() };
    let add = AddItem { order_id: id.clone(), sku: "sku-2".to_owned(), quantity: 1 };
    let place = place(&id);
    let flawed = AddItem { quantity: 0, ..add.clone() };
    let records = [
        traced(record(&id, &create)),
        traced(record(&id, &flawed)),
        traced(record(&id, &add)),
        traced(record(&id, &place)),
    ];
    shop.order(&records).await?;
    let mut seen = Vec::new();
    for topic in ["orders.events", "inventory.events"] {
        for (_, event) in shop.read(topic).await? {
            if event.key.as_deref() != Some(id.as_bytes()) {
                continue;
            }
            let parent = event.header("traceparent");
            if parent.split('-').nth(1) != Some(&trace) || event.header("ce_correlationid") != flow {
                let flow = event.header("ce_correlationid");
                return Err(
                    format!("{topic}: {} has traceparent `{parent}`, flow `{flow}`", event.header("ce_type")).into()
                );
            }
            seen.push(event.header("ce_type").to_owned());
        }
    }
    // Producer, orders, inventory, and orders again.
    let last = ["holdfast.orders.v1.OrderPlaced", "holdfast.inventory.v1.StockReserved"];
    match last.iter().find(|wanted| !seen.iter().any(|found| found == *wanted)) {
        None => {}
        Some(missing) => return Err(format!("no {missing} among {seen:?}").into()),
    }
    let log = shop.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&trace)).collect();
    for line in &lines {
        let line: serde_json::Value = serde_json::from_str(line)?;
        if line["trace_id"] != trace.as_str() || line["correlation_id"] != flow.as_str() || line["span_id"] == "" {
            return Err(format!("a line of the trace without its ids: {line}").into());
        }
    }
    // One of the trace's lines must report the dead letter.
    if lines.iter().any(|line| line.contains("dead letter")) {
        Ok(())
    } else {
        Err("the dead letter is not in the log".into())
    }
}

pub async fn what_the_caller_sent_shows_up_in_no_log_metric_or_error_text(shop: &Shop) -> Result<(), Failed> {
    let canary = format!("canary{}", Uuid::new_v4().simple());
    let records = canaries(&canary);
    shop.order(&records).await?;

    let mut places = vec![("the log", shop.log()), ("/metrics", metrics(shop)?)];
    let mut letters = 0;
    for (_, letter) in shop.read("orders.dlq").await? {
        letters += usize::from(letter.header("dlt-error").len() > 1);
        let added = letter.headers.iter().filter(|(name, _)| name.starts_with("dlt-"));
        places
            .extend(added.map(|(_, value)| ("a dlt header", crate::shop::text(value.as_deref().unwrap_or_default()))));
    }
    if letters < records.len() - 2 {
        return Err(format!("only {letters} dead letters of {} records", records.len()).into());
    }
    match places.iter().find(|(_, text)| text.contains(&canary)) {
        None => Ok(()),
        Some((place, text)) => {
            let line = text.lines().find(|line| line.contains(&canary)).unwrap_or_default();
            Err(format!("the canary is in {place}: {line}").into())
        }
    }
}

/// Bad records, some of which carry `canary` wherever a person might have put what does not belong there.
pub fn canaries(canary: &str) -> Vec<Raw> {
    let canary = canary.to_owned();
    let mut records: Vec<Raw> = bad_records::table().into_iter().map(|(_, raw, _)| raw).collect();
    let id = || Uuid::now_v7().to_string();
    let order = id();
    let create = CreateOrder { order_id: order.clone(), customer_id: canary.clone(), currency: "EUR".to_owned() };
    records.push(record(&order, &create));
    records.push(record(&order, &CreateOrder { customer_id: id(), currency: canary.clone(), ..create.clone() }));
    records.push(record(&canary, &CreateOrder { order_id: canary.clone(), ..create.clone() }));
    records.push(record(&order, &AddItem { order_id: order.clone(), sku: format!("{canary} {canary}"), quantity: 1 }));
    let with_canary = |name: &str| record(&order, &create).with(name, Some(&canary));
    records.extend(
        ["ce_id", "ce_type", "ce_subject", "ce_time", "ce_specversion", "content-type", "x-name"].map(with_canary),
    );
    records.push(Raw { value: Some(canary.as_bytes().to_vec()), ..record(&order, &create) });
    records.push(Raw {
        value: Some(format!("{{\"{canary}\":").into_bytes()),
        ..record(&order, &create).with("content-type", Some("application/json"))
    });
    records
}

/// `/metrics`, by a plain request.
pub fn metrics(shop: &Shop) -> Result<String, Failed> {
    let mut connection = std::net::TcpStream::connect(shop.http)?;
    write!(connection, "GET /metrics HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")?;
    let mut page = String::new();
    connection.read_to_string(&mut page)?;
    if page.contains("holdfast_") { Ok(page) } else { Err(format!("no metrics: {page}").into()) }
}
