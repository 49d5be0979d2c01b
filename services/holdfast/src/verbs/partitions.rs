//! `holdfast partitions show`: who owns what, how far it is, and what is late; the worst first.

use std::{cmp::Reverse, time::Duration};

use holdfast_core::{Timestamp, port::clock::Clock as _};
use holdfast_platform::{Config, Context};
use holdfast_runtime::SystemClock;

use crate::{
    failure::Failure,
    infrastructure::Infrastructure,
    operator::survey::{Partition, Survey},
    verbs::migrate,
};

use crate::compose;

/// Prints every partition of one context, or of all.
pub async fn show(config: &Config, which: &str, json: bool) -> Result<u8, Failure> {
    let at = Infrastructure::configured(config)?;
    let contexts = match which {
        "all" => compose::deployed(config, at.brokers()).await?,
        which => migrate::contexts(which)?,
    };
    let mut all: Vec<(Context, Partition)> = Vec::new();
    for context in contexts {
        let survey = Survey::open(config, &at, context).await??;
        all.extend(survey.partitions().await.map_err(Failure::from)?.into_iter().map(|found| (context, found)));
    }
    let now = SystemClock.now();
    all.sort_by_cached_key(|(context, partition)| (Reverse(partition.badness(now)), *context, partition.row.partition));
    if json {
        for (context, partition) in &all {
            println!("{}", object(*context, partition, now));
        }
    } else if all.is_empty() {
        println!("nobody has ever served this: there are no partition rows");
    } else {
        println!("{}", table(&all, now));
    }
    Ok(0)
}

#[allow(clippy::cast_precision_loss)]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn object(context: Context, partition: &Partition, now: Timestamp) -> serde_json::Value {
    let row = &partition.row;
    let input = |input: &crate::operator::survey::Input| {
        serde_json::json!({
            "topic": &*input.topic, "consumed": input.consumed, "log_start": input.start, "log_end": input.end,
            "lag_records": input.lag(), "lag_seconds": seconds(input.lag_ms(now)), "in_log": input.is_in_log(),
        })
    };
    let mailbox: serde_json::Map<String, serde_json::Value> =
        partition.mail.iter().map(|mail| (mail.reason.clone(), mail.messages.into())).collect();
    serde_json::json!({
        "context": context.as_str(), "partition": row.partition, "owner": partition.is_owned().then_some(&row.address),
        "epoch": row.epoch.0, "generation": row.generation.0, "released": row.released, "batch": row.batch,
        "lag_records": partition.lag(), "lag_seconds": seconds(partition.lag_ms(now)),
        "inputs": partition.inputs.iter().map(input).collect::<Vec<_>>(),
        "outbox_pending": partition.outbox_pending(), "mailbox": mailbox,
    })
}

fn table(all: &[(Context, Partition)], now: Timestamp) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header([
        "context",
        "partition",
        "owner",
        "epoch",
        "gen",
        "batch",
        "consumed / end",
        "lag",
        "late",
        "outbox",
        "mailbox",
    ]);
    for (context, partition) in all {
        let row = &partition.row;
        let owner = match (partition.is_owned(), row.token) {
            (true, _) => row.address.clone(),
            (false, None) => "none (never owned)".to_owned(),
            (false, Some(_)) => "none (released)".to_owned(),
        };
        let input = |input: &crate::operator::survey::Input| {
            let halted = if input.is_in_log() { "" } else { " HALTED" };
            format!(
                "{} {} / {}{halted}",
                input.topic,
                input.consumed.map_or("-".to_owned(), |at| at.to_string()),
                input.end
            )
        };
        let inputs: Vec<String> = partition.inputs.iter().map(input).collect();
        let mail: Vec<String> =
            partition.mail.iter().map(|mail| format!("{} {}", mail.messages, mail.reason)).collect();
        table.add_row([
            context.to_string(),
            row.partition.to_string(),
            owner,
            row.epoch.0.to_string(),
            row.generation.0.to_string(),
            row.batch.to_string(),
            inputs.join("\n"),
            partition.lag().to_string(),
            late(partition.lag_ms(now)),
            partition.outbox_pending().to_string(),
            if mail.is_empty() { "-".to_owned() } else { mail.join("\n") },
        ]);
    }
    table
}

/// `1.5s`, `2h 3m`; `-` if nothing is late.
fn late(ms: u64) -> String {
    match ms {
        0 => "-".to_owned(),
        1..10_000 => format!("{:.1}s", seconds(ms)),
        _ => format!("{:?}", Duration::from_secs(ms / 1000)),
    }
}
