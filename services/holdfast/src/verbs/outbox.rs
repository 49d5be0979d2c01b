//! `holdfast outbox`: what is committed and not published, and what the brokers refuse.
//!
//! Invariant: without `--yes` or an `--id` nothing changes. Every order is on record in the context's schema,
//! with who gave it and why. Deliberately absent: carrying an order out, which is the relay's: it takes a
//! second where the record's home has an owner.

use std::{cmp::Reverse, time::Duration};

use holdfast_core::{
    Timestamp,
    batch::OutboxRow,
    envelope::header,
    epoch::PartitionRow,
    port::{clock::Clock as _, store::Store as _},
    stuck::Order,
};
use holdfast_platform::{Config, Context};
use holdfast_postgres::{
    PgStore,
    outbox::{Pending, StuckRecord, WEIGHED_ROWS, Which},
};
use holdfast_runtime::SystemClock;

use crate::{
    cli::{Outbox, OutboxShow, Stuck, StuckWhich},
    compose,
    failure::Failure,
    infrastructure::Infrastructure,
    operator::survey,
    verbs::migrate,
};

/// Runs the verb.
pub async fn run(config: &Config, verb: Outbox) -> Result<u8, Failure> {
    match verb {
        Outbox::Status { context, json } => status(config, &context, json).await,
        Outbox::Show(wanted) => show(config, &wanted).await,
        Outbox::Stuck(Stuck::List { which, limit, json }) => {
            let found = find(config, &which, false, limit).await?;
            if found.is_empty() && !json {
                println!("no record is stuck");
            }
            print(&found, json);
            Ok(0)
        }
        Outbox::Stuck(Stuck::Retry { which, why, yes, json }) => {
            order(config, &which, &Order::Retry, &why, yes, json).await
        }
        Outbox::Stuck(Stuck::Discard { which, why, yes, json }) => {
            if why.trim().is_empty() {
                return Err(Failure::usage(anyhow::anyhow!("--why is empty: say why the records are given up")));
            }
            order(config, &which, &Order::Discard(why.clone()), &why, yes, json).await
        }
    }
}

/// The stores of the contexts meant, with their counts in force.
async fn stores(config: &Config, which: &str) -> Result<Vec<(Context, PgStore, u32)>, Failure> {
    let at = Infrastructure::configured(config)?;
    let contexts = match which {
        "all" => compose::deployed(config, at.brokers()).await?,
        which => migrate::contexts(which)?,
    };
    let mut stores = Vec::new();
    for context in contexts {
        let settings = compose::database(config, &at, context)?;
        let store = PgStore::connect(settings).await.map_err(survey::Error::from)?;
        let count = store.growth().await.map_err(survey::Error::from)?.current().1;
        stores.push((context, store, count));
    }
    Ok(stores)
}

async fn status(config: &Config, which: &str, json: bool) -> Result<u8, Failure> {
    let mut all: Vec<(Context, Pending)> = Vec::new();
    for (context, store, count) in stores(config, which).await? {
        let pending = store.outbox_pending(count).await.map_err(survey::Error::from)?;
        all.extend(pending.into_iter().map(|pending| (context, pending)));
    }
    let now = SystemClock.now();
    all.sort_by_key(|(context, pending)| {
        (Reverse((pending.stuck, age_ms(pending.since, now), pending.rows)), *context, pending.partition)
    });
    if json {
        for (context, pending) in &all {
            println!(
                "{}",
                serde_json::json!({
                    "context": context.as_str(), "partition": pending.partition, "pending": pending.rows,
                    "bytes": pending.bytes, "bytes_are_all": pending.rows <= u64::from(WEIGHED_ROWS),
                    "oldest_seconds": seconds(age_ms(pending.since, now)), "stuck": pending.stuck,
                })
            );
        }
    } else if all.is_empty() {
        println!("nobody has ever served this: there are no partition rows");
    } else {
        println!("{}", status_table(&all, now));
    }
    Ok(0)
}

/// Records asked of a partition's outbox at once, and their bytes.
const PAGE: u32 = 1000;
const PAGE_BYTES: usize = 4 << 20;

async fn show(config: &Config, wanted: &OutboxShow) -> Result<u8, Failure> {
    let mut table = comfy_table::Table::new();
    let header = ["context", "partition", "sequence", "id", "topic", "key", "type", "bytes", "published"];
    table.load_style(comfy_table::presets::NOTHING).set_header(header);
    let (mut shown, mut is_more) = (0, false);
    for (context, store, _) in stores(config, &wanted.context).await? {
        let rows = store.partitions().await.map_err(survey::Error::from)?;
        for row in rows.iter().filter(|row| wanted.partition.is_none_or(|partition| row.partition.0 == partition)) {
            let mut left = wanted.limit;
            let show = |record: &OutboxRow| {
                if left == 0 {
                    return false;
                }
                (left, shown) = (left - 1, shown + 1);
                let is_published = record.sequence <= row.outbox_cursor;
                if wanted.json {
                    println!("{}", json_of(context, record, is_published));
                } else {
                    table.add_row(cells_of(context, record, is_published));
                }
                true
            };
            is_more |= !visit(&store, row, wanted, show).await?;
        }
    }
    if shown == 0 && !wanted.json {
        println!("no such record; with --after 0 published ones are shown too");
    } else if !wanted.json {
        println!("{table}");
    }
    if is_more {
        eprintln!("there are more: --limit is {} for each partition, and --after goes on behind one", wanted.limit);
    }
    Ok(0)
}

/// Calls `show` with each record of a partition that is meant, until it returns `false`. Returns whether it
/// never did.
async fn visit(
    store: &PgStore,
    row: &PartitionRow,
    wanted: &OutboxShow,
    mut show: impl FnMut(&OutboxRow) -> bool,
) -> Result<bool, Failure> {
    let mut after = wanted.after.unwrap_or(row.outbox_cursor);
    loop {
        let page = store.outbox(row.partition, after, PAGE, PAGE_BYTES).await.map_err(survey::Error::from)?;
        let Some(last) = page.last() else { return Ok(true) };
        after = last.sequence;
        let is_meant = |record: &&OutboxRow| wanted.topic.as_ref().is_none_or(|topic| **topic == *record.draft.topic);
        if !page.iter().filter(is_meant).all(&mut show) {
            return Ok(false);
        }
    }
}

fn text(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn cells_of(context: Context, record: &OutboxRow, is_published: bool) -> [String; 9] {
    let draft = &record.draft;
    [
        context.to_string(),
        record.partition.to_string(),
        record.sequence.to_string(),
        draft.id.to_string(),
        draft.topic.to_string(),
        text(draft.key.as_deref()).unwrap_or_else(|| "-".to_owned()),
        text(draft.headers.get(header::TYPE)).unwrap_or_else(|| "-".to_owned()),
        draft.value.as_deref().map_or(0, <[u8]>::len).to_string(),
        if is_published { "yes" } else { "no" }.to_owned(),
    ]
}

fn json_of(context: Context, record: &OutboxRow, is_published: bool) -> serde_json::Value {
    let draft = &record.draft;
    let headers = draft.headers.0.iter().map(|(name, value)| serde_json::json!([name, text(value.as_deref())]));
    serde_json::json!({
        "context": context.as_str(), "partition": record.partition, "sequence": record.sequence, "id": draft.id,
        "topic": &*draft.topic, "target": draft.target, "key": text(draft.key.as_deref()),
        "headers": headers.collect::<Vec<_>>(), "body_hex": draft.value.as_ref().map(hex::encode),
        "published": is_published,
    })
}

fn status_table(all: &[(Context, Pending)], now: Timestamp) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    let header = ["context", "partition", "pending", "bytes", "oldest", "stuck"];
    table.load_style(comfy_table::presets::NOTHING).set_header(header);
    for (context, pending) in all {
        let at_least = if pending.rows > u64::from(WEIGHED_ROWS) { "> " } else { "" };
        table.add_row([
            context.to_string(),
            pending.partition.to_string(),
            pending.rows.to_string(),
            format!("{at_least}{}", pending.bytes),
            age(age_ms(pending.since, now)),
            pending.stuck.to_string(),
        ]);
    }
    table
}

async fn find(
    config: &Config,
    which: &StuckWhich,
    is_refused: bool,
    limit: u32,
) -> Result<Vec<(Context, StuckRecord)>, Failure> {
    let mut all = Vec::new();
    for (context, store, count) in stores(config, &which.context).await? {
        let asked = Which { id: which.id, topic: which.topic.clone(), is_refused };
        let found = store.stuck_records(&asked, count, limit).await.map_err(survey::Error::from)?;
        all.extend(found.into_iter().map(|record| (context, record)));
    }
    Ok(all)
}

/// How many records an order looks at, for the dry run.
const ORDER_LIMIT: u32 = 100_000;

async fn order(
    config: &Config,
    which: &StuckWhich,
    order: &Order,
    why: &str,
    yes: bool,
    json: bool,
) -> Result<u8, Failure> {
    let meant = find(config, which, which.id.is_none(), ORDER_LIMIT).await?;
    if let Some(id) = which.id
        && let Some((context, record)) = meant.first().filter(|(_, record)| record.attempts == 0)
    {
        return Err(Failure::Check(anyhow::anyhow!(
            "{id} of {context} was not refused: it is number {} in the queue of its topic and key, and goes out once those before it have",
            record.place
        )));
    }
    let none = || Failure::Check(anyhow::anyhow!("no stuck record is meant; see `holdfast outbox stuck list`"));
    if meant.is_empty() {
        return Err(none());
    }
    if which.id.is_none() && !yes {
        print(&meant, json);
        eprintln!("{} records are meant. Nothing was changed; run it again with --yes.", meant.len());
        return Ok(0);
    }
    let who = operator();
    let mut ordered = 0;
    for (context, store, _) in stores(config, &which.context).await? {
        let asked = Which { id: which.id, topic: which.topic.clone(), is_refused: true };
        let ids = store.order_stuck(&asked, order, why, &who).await.map_err(survey::Error::from)?;
        for id in &ids {
            if json {
                println!("{}", serde_json::json!({ "context": context.as_str(), "id": id, "who": who }));
            } else {
                println!("{context} {id}: ordered by {who}");
            }
        }
        ordered += ids.len();
    }
    if ordered == 0 {
        return Err(none()); // gone out meanwhile
    }
    eprintln!("{ordered} records are ordered; the owners of their homes do it. See `holdfast outbox stuck list`.");
    Ok(0)
}

/// Who runs this, for the record.
fn operator() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let who = format!("{}@{}", user.as_deref().unwrap_or("unknown"), host.trim());
    who.chars().filter(|letter| !letter.is_control()).take(200).collect()
}

fn print(all: &[(Context, StuckRecord)], json: bool) {
    let now = SystemClock.now();
    if json {
        for (context, record) in all {
            println!(
                "{}",
                serde_json::json!({
                    "context": context.as_str(), "id": record.id, "topic": &*record.topic, "key": record.key,
                    "type": record.r#type, "partition": record.partition, "sequence": record.sequence,
                    "home": record.home, "place": record.place, "attempts": record.attempts, "error": record.error,
                    "bytes": record.bytes, "age_seconds": seconds(age_ms(Some(record.since), now)),
                    "ordered": record.ordered,
                })
            );
        }
        return;
    }
    if all.is_empty() {
        return;
    }
    let mut table = comfy_table::Table::new();
    let header = ["context", "id", "topic", "key", "type", "place", "bytes", "since", "refused", "error", "ordered"];
    table.load_style(comfy_table::presets::NOTHING).set_header(header);
    for (context, record) in all {
        table.add_row([
            context.to_string(),
            record.id.to_string(),
            record.topic.to_string(),
            record.key.clone().unwrap_or_else(|| "-".to_owned()),
            record.r#type.clone(),
            record.place.to_string(),
            record.bytes.to_string(),
            age(age_ms(Some(record.since), now)),
            record.attempts.to_string(),
            record.error.clone(),
            record.ordered.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    println!("{table}");
}

fn age_ms(since: Option<Timestamp>, now: Timestamp) -> u64 {
    since.map_or(0, |since| now.ms_since(since))
}

#[allow(clippy::cast_precision_loss)]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// `1.5s`, `2h 3m`; `-` if there is none.
fn age(ms: u64) -> String {
    match ms {
        0 => "-".to_owned(),
        1..10_000 => format!("{:.1}s", seconds(ms)),
        _ => humantime::format_duration(Duration::from_secs(ms / 1000)).to_string(),
    }
}
