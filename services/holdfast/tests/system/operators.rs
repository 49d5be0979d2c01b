//! The operators' verbs on a shop of their own: first nothing is wrong, then one thing after the other is
//! made so.

use std::{collections::BTreeSet, process::Output};

use holdfast_kafka::{KafkaAdmin, KafkaConfig};
use holdfast_load_tests::{
    by_hand::{self, Raw},
    checkers,
};
use holdfast_proto::orders::v1::{AddItem, CreateOrder};
use libtest_mimic::Failed;
use serde_json::Value;
use uuid::Uuid;

use crate::shop::{Shop, customer, holdfast, place, record, text};

const TOKEN: &str = "an-operators-token-of-this-test";

/// Runs a verb against the shop, with what `variables` replace.
fn run(shop: &Shop, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Output, Failed> {
    let url = shop.stack.postgres_url("postgres");
    let usual =
        [("HOLDFAST_KAFKA_BROKERS", shop.brokers()), ("HOLDFAST_DATABASE_URL", &url), ("HOLDFAST_ADMIN_TOKEN", TOKEN)];
    Ok(holdfast().args(arguments).envs(usual).envs(variables.iter().copied()).output()?)
}

/// The lines it printed, if it ended with `code`.
fn lines(output: &Output, code: i32) -> Result<Vec<Value>, Failed> {
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    if output.status.code() != Some(code) {
        return Err(format!("exit code {:?} instead of {code}: {said}{complained}", output.status.code()).into());
    }
    if said.contains(TOKEN) || complained.contains(TOKEN) {
        return Err("the operators' token was printed".into());
    }
    said.lines().map(|line| serde_json::from_str(line).map_err(|error| format!("{line}: {error}").into())).collect()
}

/// It ended with `code` and complained in these words.
fn refused(output: &Output, code: i32, words: &[&str]) -> Result<(), Failed> {
    let complained = text(&output.stderr);
    lines(output, code)?;
    match words.iter().find(|word| !complained.contains(**word)) {
        None => Ok(()),
        Some(word) => Err(format!("`{word}` is not in: {complained}").into()),
    }
}

fn expect(what: &str, holds: bool, seen: &impl std::fmt::Debug) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{what}: {seen:#?}").into()) }
}

/// A finding of this check, in words that hold each of `words`.
fn found(findings: &[Value], check: &str, words: &[&str]) -> Result<(), Failed> {
    let fits = |finding: &&Value| {
        let what = format!("{} {}", finding["what"], finding["remedy"]);
        finding["check"] == check && finding["level"] == "wrong" && words.iter().all(|word| what.contains(word))
    };
    expect(&format!("{check} does not tell of {words:?}"), findings.iter().any(|finding| fits(&finding)), &findings)
}

fn order(id: &str) -> [Raw; 3] {
    let customer_id = customer();
    let create = CreateOrder { order_id: id.to_owned(), customer_id, currency: "EUR".to_owned() };
    let add = AddItem { order_id: id.to_owned(), sku: "sku-2".to_owned(), quantity: 2 };
    let place = place(id);
    [record(id, &create), record(id, &add), record(id, &place)]
}

pub async fn see_owners_lag_live_actors_and_what_is_wrong(_: &Shop) -> Result<(), Failed> {
    let mut shop = Shop::open_with(&[("HOLDFAST_ADMIN_TOKEN", TOKEN)]).await?;
    let id = Uuid::now_v7().to_string();
    shop.order(&order(&id)).await?;
    let findings = lines(&run(&shop, &["doctor", "--json"], &[])?, 0)?;
    expect("a healthy shop", findings.iter().all(|finding| finding["level"] == "ok"), &findings)?;
    owners(&shop)?;
    outbox(&shop, &id)?;
    live_actors(&shop, &id)?;
    faults(&shop).await?;
    gone(&mut shop).await
}

fn owners(shop: &Shop) -> Result<(), Failed> {
    let partitions = lines(&run(shop, &["partitions", "show", "--json"], &[])?, 0)?;
    let address = shop.grpc.trim_start_matches("http://");
    let places: BTreeSet<String> = partitions.iter().map(|p| format!("{} {}", p["context"], p["partition"])).collect();
    expect("each partition of each context once", (partitions.len(), places.len()) == (36, 36), &partitions)?;
    for partition in &partitions {
        let inputs = partition["inputs"].as_array().map_or(0, Vec::len);
        let expected = match partition["context"].as_str() {
            Some("orders") => 4,
            Some("inventory") => 2,
            _ => 1,
        };
        let is_quiet =
            partition["lag_records"] == 0 && partition["outbox_pending"] == 0 && partition["released"] == false;
        expect(
            "owned, and nothing left to do",
            is_quiet && partition["owner"] == address && inputs == expected,
            partition,
        )?;
    }
    let ends = |partition: &Value| partition["inputs"][0]["log_end"].as_u64().unwrap_or(0);
    expect(
        "orders' three commands and inventory's two hundred",
        partitions.iter().map(ends).sum::<u64>() >= 3,
        &partitions,
    )?;
    let of_one = lines(&run(shop, &["partitions", "show", "orders", "--json"], &[])?, 0)?;
    expect("orders alone", of_one.len() == 12 && of_one.iter().all(|p| p["context"] == "orders"), &of_one)?;
    let table = text(&run(shop, &["partitions", "show"], &[])?.stdout);
    expect("the table", table.contains(address) && table.contains("inventory.events "), &table)
}

/// Single records, whichever rows hold them.
fn outbox(shop: &Shop, id: &str) -> Result<(), Failed> {
    let show = |arguments: &[&str]| lines(&run(shop, &[&["outbox", "show"], arguments, &["--json"]].concat(), &[])?, 0);
    expect("nothing is unpublished", show(&["all"])?.is_empty(), &show(&["all"])?)?;
    let topic = ["orders", "--after", "0", "--topic", "orders.events"];
    let events = show(&topic)?;
    let is_ours = |record: &&Value| record["key"] == id && record["published"] == true;
    let mut sequences: Vec<u64> = events.iter().filter(is_ours).filter_map(|it| it["sequence"].as_u64()).collect();
    expect("an order's events", sequences.len() >= 3 && sequences.is_sorted(), &events)?;
    let body = events.iter().filter(is_ours).all(|it| it["body_hex"].as_str().is_some_and(|hex| !hex.is_empty()));
    expect("with headers and bodies", body && events[0]["headers"].as_array().is_some_and(|it| it.len() > 5), &events)?;
    sequences.dedup();
    let partition = events.iter().find(is_ours).map(|it| it["partition"].to_string()).unwrap_or_default();
    let (second, one) = (sequences[0].to_string(), ["orders", "--partition", &partition, "--limit", "1"]);
    let next = show(&[&one[..], &["--after", &second]].concat())?;
    expect("the next one", next.len() == 1 && next[0]["sequence"].as_u64() > Some(sequences[0]), &next)?;
    let table = text(&run(shop, &[&["outbox", "show"], &topic[..]].concat(), &[])?.stdout);
    expect("the table", table.contains(id) && table.contains("orders.v1.OrderPlaced"), &table)
}

fn live_actors(shop: &Shop, id: &str) -> Result<(), Failed> {
    let get =
        |arguments: &[&str], code| lines(&run(shop, &[&["actor", "get"], arguments, &["--json"]].concat(), &[])?, code);
    let actor = get(&["orders", id], 0)?;
    let seen = |actor: &Value| (actor["kind"].clone(), actor["lease"].clone(), actor["mailbox"].clone());
    let as_expected = seen(&actor[0]) == ("order".into(), "held".into(), Value::Array(Vec::new()));
    expect("the order", as_expected && actor[0]["state"]["status"] == "ORDER_STATUS_PLACED", &actor)?;
    expect(
        "its version and owner",
        actor[0]["version"].as_u64() >= Some(3) && shop.grpc.ends_with(actor[0]["owner"].as_str().unwrap_or("?")),
        &actor,
    )?;
    let reservation = get(&["inventory", id], 0)?;
    let timer = &reservation[0]["timers"][0]["name"];
    expect("its reservation", reservation[0]["kind"] == "reservation" && timer == "expiry", &reservation)?;
    let sku = get(&["inventory", "sku-2", "--kind", "stock_item"], 0)?;
    expect("a sku", sku[0]["kind"] == "stock_item" && sku[0]["state"]["price"]["minor"] == "1000", &sku)?;
    let shown = text(&run(shop, &["actor", "get", "orders", id], &[])?.stdout);
    expect("for people", shown.contains("ORDER_STATUS_PLACED") && shown.contains("lease"), &shown)?;

    let get =
        |variables: &[(&str, &str)], arguments: &[&str]| run(shop, &[&["actor", "get"], arguments].concat(), variables);
    refused(&get(&[("HOLDFAST_ADMIN_TOKEN", "")], &["orders", id])?, 2, &["HOLDFAST_ADMIN_TOKEN"])?;
    refused(&get(&[("HOLDFAST_ADMIN_TOKEN", "not-the-token-of-that-node")], &["orders", id])?, 2, &["admin.token"])?;
    refused(&get(&[], &["orders", &Uuid::now_v7().to_string()])?, 1, &["no such aggregate"])?;
    refused(&get(&[], &["orders", id, "--kind", "reservation"])?, 2, &["order"])?;
    refused(&get(&[], &["shipping", id])?, 2, &["shipping"])?;
    let closed = closed()?;
    refused(&get(&[], &["orders", id, "--at", &closed])?, 3, &[&closed])
}

/// A port that was just free, and that nobody listens on.
fn closed() -> Result<String, Failed> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

async fn faults(shop: &Shop) -> Result<(), Failed> {
    // A record of another partitioner's: to every partition but its home it is the wrong one, so one of two
    // is.
    let id = Uuid::now_v7().to_string();
    let strays = order(&id).map(|raw| raw.with("ce_source", Some("crc32-shop")));
    for partition in [3, 4] {
        by_hand::send_astray(shop.brokers(), "orders.commands", partition, &strays).await?;
    }
    checkers::settled(&shop.target, std::time::Duration::from_mins(1), |_| {}).await?;
    let metrics = crate::telemetry::metrics(shop)?;
    expect(
        "the metric",
        metrics.contains("holdfast_misrouted_total{context=\"orders\",topic=\"orders.commands\"}"),
        &metrics,
    )?;
    let admin = KafkaAdmin::new(&KafkaConfig::new(shop.brokers(), "orders"))?;
    admin.grow("orders.dlq", 24).await?;
    let findings = lines(&run(shop, &["doctor", "--json"], &[("HOLDFAST_RETRY_BUDGET", "1")])?, 1)?;
    found(&findings, "records lie at home, and none waits for long", &["`crc32-shop`", "orders.commands", "since 2"])?;
    found(&findings, "a context's topics have equal partitions", &["orders.dlq has 24", "orders.events has 12"])?;
    let hint = findings.iter().find(|finding| finding["check"] == "failures are retried");
    expect("a hint alone", hint.is_some_and(|hint| hint["level"] == "hint"), &findings)?;
    let shown = text(&run(shop, &["doctor"], &[])?.stdout);
    expect("for people", shown.contains("ok           brokers answer") && shown.contains("►"), &shown)
}

async fn gone(shop: &mut Shop) -> Result<(), Failed> {
    shop.leave().await?;
    let id = Uuid::now_v7().to_string();
    let places = by_hand::send(shop.brokers(), "orders.commands", &order(&id)).await?;
    let partitions = lines(&run(shop, &["partitions", "show", "orders", "--json"], &[])?, 0)?;
    let worst = &partitions[0];
    let is_released = partitions.iter().all(|partition| partition["released"] == true && partition["owner"].is_null());
    expect("nobody owns anything", is_released, &partitions)?;
    let is_late = worst["lag_records"] == 3 && worst["lag_seconds"].as_f64() > Some(0.0);
    expect("the worst first", is_late && worst["partition"] == places[0].partition, &partitions)?;
    let findings = lines(&run(shop, &["doctor", "--json"], &[])?, 1)?;
    found(&findings, "partitions have owners", &["12 of 12 partitions of orders", "holdfast serve orders"])?;
    refused(&run(shop, &["actor", "get", "orders", &id], &[])?, 3, &["no node owns"])?;

    let closed = closed()?;
    let away = format!("postgres://nobody:secret@{closed}/none");
    refused(&run(shop, &["partitions", "show"], &[("HOLDFAST_DATABASE_URL", &away)])?, 3, &[])?;
    let without_database = run(shop, &["doctor", "--json"], &[("HOLDFAST_DATABASE_URL", &away)])?;
    let without_brokers = run(shop, &["doctor", "--json"], &[("HOLDFAST_KAFKA_BROKERS", &closed)])?;
    for (check, output) in [("databases answer", without_database), ("brokers answer", without_brokers)] {
        expect("no password is printed", !text(&output.stdout).contains("secret"), &output)?;
        let findings = lines(&output, 3)?;
        let is_reported = findings.iter().any(|finding| finding["check"] == check && finding["level"] == "unreachable");
        expect(check, is_reported, &findings)?;
    }
    Ok(())
}
