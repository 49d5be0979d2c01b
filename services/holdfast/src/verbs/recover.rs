//! `holdfast recover`: after a database was restored from a backup, or a topic was lost.
//!
//! Says what it finds and what can't be recovered; changes something only with `--yes`. Nodes may run: they
//! stop serving the context meanwhile and take it up again. Deliberately absent: the work itself, which is
//! the runtime's ([`holdfast_runtime::recover`]).

use std::sync::Arc;

use holdfast_kafka::KafkaLog;
use holdfast_platform::{Config, Context};
use holdfast_runtime::{
    SystemClock,
    recover::{Error, Ports, Recovery, Settings, Summary},
};

use crate::{cli::Recover, compose, contexts, failure::Failure, infrastructure::Infrastructure, verbs::migrate};

/// What no run can bring back, whatever it finds.
const NOT_RECOVERED: &str = "\
Not recovered, because it was in the database alone:
  - events of the last moments before the loss that were not published yet. Commands that came through Kafka are read again
    and done again; calls by gRPC are lost, though their callers were answered;
  - rejections and their answers: a command or call that was rejected is decided again if it comes again;
  - dead letters' index rows, messages that waited in mailboxes, timers that were set without an event.
    Bad records are read again and become dead letters again, under another dlt-id.";

/// Recovers one context, or all.
pub async fn run(config: &Config, recover: Recover) -> Result<u8, Failure> {
    let contexts = migrate::contexts(&recover.contexts)?;
    let at = Infrastructure::configured(config)?;
    let mut failed = None;
    for context in contexts {
        match one(config, &at, context, &recover).await {
            Ok(summary) if recover.json => {
                let line = serde_json::to_string(&summary).map_err(|error| Failure::Check(error.into()))?;
                println!("{line}");
            }
            Ok(summary) => print(&summary, recover.yes),
            Err(failure) => {
                eprintln!("{context}: {failure}");
                failed.get_or_insert(failure);
            }
        }
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    if !recover.json {
        println!("{NOT_RECOVERED}");
        if !recover.yes {
            println!("Nothing was changed. Run it again with --yes.");
        }
    }
    Ok(0)
}

async fn one(config: &Config, at: &Infrastructure, context: Context, recover: &Recover) -> Result<Summary, Failure> {
    let bounded = contexts::bare(config, context)?;
    let store = compose::connect(config, at, context, contexts::about(context).views).await?;
    let log = KafkaLog::new(&compose::kafka(config, at.brokers(), context)).map_err(Failure::usage)?;
    let ports = Ports { log: Arc::new(log), store: Arc::new(store), clock: Arc::new(SystemClock) };
    let settings = Settings {
        callers: vec![holdfast_orders::app::CALL_SOURCE.to_owned()],
        accept_topics: recover.accept_topics,
        lease: config.lease + holdfast_runtime::Config::default().drift,
    };
    let recovery = Recovery::new(bounded, ports, settings).await.map_err(failure)?;
    if recover.yes { recovery.run().await } else { recovery.look().await }.map_err(failure)
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Log(_) | Error::Store(_) | Error::Commit(_) => Failure::unreachable(error),
        Error::Unreadable { .. } | Error::Broken { .. } | Error::Pools(_) | Error::Topics(_) | Error::Taken(_) => {
            Failure::Check(error.into())
        }
    }
}

fn print(summary: &Summary, done: bool) {
    let Summary { context, halted, events, aggregates, .. } = summary;
    println!("{context}: {}", halted.as_deref().unwrap_or("not halted"));
    for topic in &summary.topics {
        println!("  topics: {topic}");
    }
    let (folded, rebuilt) = if done { ("folded back", "rebuilt") } else { ("to fold back", "to rebuild") };
    println!(
        "  events {folded}: {events}, of {aggregates} aggregates; shared quantities among them: {}",
        summary.pools
    );
    println!(
        "  claims {rebuilt}: {} of commands that will be read again, {} of calls (any repeat of one gets its answer)",
        summary.claims_of_commands, summary.claims_of_calls
    );
    println!(
        "  commands decided before without an event, which stay without effect: {}",
        summary.decided_without_event
    );
    if summary.discarded > 0 {
        println!(
            "  of the events, discarded by an operator before, so that what they changed is lost: {}",
            summary.discarded
        );
    }
    if summary.repeated > 0 {
        println!("  outbox rows that may be published a second time, under the same ids: {}", summary.repeated);
    }
}
