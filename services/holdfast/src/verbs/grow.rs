//! `holdfast partitions grow`: more partitions, while everything runs.
//!
//! Invariant: this only grows topics, one after the other, and looks on. What has to wait for what is the
//! nodes' business (they do the same if the topics are grown by Kafka's own tools), so ending this verb early
//! harms nothing. Deliberately absent: shrinking.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use holdfast_core::{growth::Growth, port::store::Store as _};
use holdfast_kafka::admin::KafkaAdmin;
use holdfast_platform::{Config, Context};
use holdfast_postgres::PgStore;
use serde_json::json;

use crate::{cli::Grow, compose, failure::Failure, infrastructure::Infrastructure};

/// The nodes look every second; one that does not notice within this time is not there.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// One context with what it has.
struct Growing {
    context: Context,
    store: PgStore,
    /// Its topics and their counts now.
    topics: BTreeMap<String, u32>,
}

/// Grows all contexts, or says what that would do.
pub async fn run(config: &Config, grow: Grow) -> Result<u8, Failure> {
    let at = Infrastructure::configured(config)?;
    let admin = KafkaAdmin::new(&compose::kafka(config, at.brokers(), Context::Orders)).map_err(Failure::usage)?;
    let mut all = Vec::new();
    // Not what they read of contexts that nobody serves: the growth of such a topic would never be said to be
    // over.
    for context in &compose::deployed(config, at.brokers()).await? {
        all.push(find(config, &at, &admin, *context).await?);
    }
    for growing in &all {
        growing.check(grow.to)?;
    }
    for growing in &all {
        growing.announce(&grow).await?;
    }
    if grow.dry_run {
        return Ok(0);
    }
    for growing in &all {
        for (topic, count) in growing.topics.iter().filter(|(_, count)| **count < grow.to) {
            admin.grow(topic, grow.to).await.map_err(Failure::unreachable)?;
            tell(
                &grow,
                &format!("{topic}: {count} -> {}", grow.to),
                || json!({ "step": "grown", "topic": topic, "from": count, "to": grow.to }),
            );
        }
    }
    for growing in &all {
        growing.watch(&grow).await?;
    }
    Ok(0)
}

fn tell(grow: &Grow, text: &str, object: impl FnOnce() -> serde_json::Value) {
    if grow.json {
        println!("{}", object());
    } else {
        println!("{text}");
    }
}

async fn find(config: &Config, at: &Infrastructure, admin: &KafkaAdmin, context: Context) -> Result<Growing, Failure> {
    let names: Vec<String> = ["commands", "events", "dlq"].iter().map(|kind| format!("{context}.{kind}")).collect();
    let found = admin.describe(&names).await.map_err(Failure::unreachable)?;
    let topics: BTreeMap<String, u32> = found.into_iter().map(|topic| (topic.name, topic.partitions)).collect();
    if let Some(missing) = names.iter().find(|name| !topics.contains_key(*name)) {
        return Err(Failure::usage(anyhow!("topic {missing} does not exist; `holdfast topics apply` creates it")));
    }
    Ok(Growing { context, store: compose::store(config, at, context).await?, topics })
}

impl Growing {
    /// Refuses what would cost order, or does nothing.
    fn check(&self, to: u32) -> Result<(), Failure> {
        for (topic, count) in &self.topics {
            if to < *count {
                return Err(Failure::usage(anyhow!(
                    "{topic} has {count} partitions already, and partitions are never taken away; --to must be a multiple of {count}"
                )));
            }
            if !to.is_multiple_of(*count) {
                return Err(Failure::usage(anyhow!(
                    "{topic} has {count} partitions and {to} is no multiple of it: keys would go anywhere, and their order would be lost. \
                     Try --to {}",
                    count * to.div_ceil(*count)
                )));
            }
        }
        Ok(())
    }

    async fn growth(&self) -> Result<Growth, Failure> {
        let growth = self.store.growth().await;
        growth.with_context(|| format!("the database of {}", self.context)).map_err(Failure::Unreachable)
    }

    async fn announce(&self, grow: &Grow) -> Result<(), Failure> {
        let (_, in_force) = self.growth().await?.current();
        let counted = self.store.moving(in_force, grow.to).await;
        let (moving, keys) = counted.context("counting keys").map_err(Failure::Unreachable)?;
        let (context, to) = (self.context, grow.to);
        tell(
            grow,
            &format!(
                "{context}: {in_force} -> {to} partitions; {moving} of {keys} keys move. Order holds for producers with acks=all that await a \
                 record's acknowledgement before the next of its key, and whose metadata does not go back; and for all that send ce_sequence. \
                 A producer made of librdkafka also needs max.in.flight=1, or it may lose a new partition's first records unnoticed."
            ),
            || json!({ "step": "plan", "context": context.as_str(), "from": in_force, "to": to, "keys": keys, "keys_moving": moving }),
        );
        Ok(())
    }

    /// Looks on until the homes have moved, or all is over.
    async fn watch(&self, grow: &Grow) -> Result<(), Failure> {
        let (began, mut last) = (Instant::now(), String::new());
        loop {
            let growth = self.growth().await?;
            let stand = Stand::of(&growth, self.context, grow.to);
            let text = stand.to_string();
            if text != last {
                tell(grow, &format!("{}: {text}", self.context), || stand.json(self.context));
                last = text;
            }
            if stand.is_over || (stand.has_moved && !grow.wait) {
                return Ok(());
            }
            if !stand.is_noticed && began.elapsed() > NOTICED_WITHIN {
                return Err(Failure::unreachable(anyhow!(
                    "the topics of {} have grown, and no node has noticed within {NOTICED_WITHIN:?}; is one running? \
                     Nothing is lost: the next one that starts goes on with it",
                    self.context
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// How far one context is.
struct Stand {
    in_force: u32,
    to: u32,
    is_noticed: bool,
    /// Rows whose owner has let go of what has moved, of all.
    acknowledged: (usize, usize),
    /// Homes that serve, of all.
    serving: (usize, usize),
    has_moved: bool,
    /// Topics in transition, with the seconds since that was noticed.
    in_transition: Vec<(String, u64)>,
    is_over: bool,
}

impl Stand {
    fn of(growth: &Growth, context: Context, to: u32) -> Self {
        let (generation, in_force) = growth.current();
        let commands = format!("{context}.commands");
        let homes = || growth.rows.iter().filter(|row| row.partition.0 < in_force);
        let acknowledged = homes().filter(|row| growth.acknowledged.contains_key(&(row.partition, generation))).count();
        let serving = homes()
            .filter(|row| growth.acknowledged.contains_key(&(row.partition, generation)))
            .filter(|row| growth.serves(row.partition, generation))
            .count();
        let has_moved = in_force >= to && serving == homes().count();
        let in_transition: Vec<(String, u64)> = growth
            .topics
            .iter()
            .filter_map(|(topic, counts)| {
                let open = counts.steps.iter().find(|step| !step.ended)?;
                Some((topic.clone(), open.age.as_secs()))
            })
            .collect();
        Self {
            in_force,
            to,
            is_noticed: growth.topic_count(&commands) >= to,
            acknowledged: (acknowledged, homes().count()),
            serving: (serving, homes().count()),
            has_moved,
            is_over: has_moved && in_transition.is_empty(),
            in_transition,
        }
    }

    fn json(&self, context: Context) -> serde_json::Value {
        json!({
            "step": "progress",
            "context": context.as_str(),
            "in_force": self.in_force,
            "to": self.to,
            "noticed": self.is_noticed,
            "acknowledged": self.acknowledged.0,
            "serving": self.serving.0,
            "homes": self.serving.1,
            "in_transition": self.in_transition.iter().map(|(topic, _)| topic).collect::<Vec<_>>(),
        })
    }
}

impl std::fmt::Display for Stand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.is_noticed {
            return write!(f, "not noticed yet");
        }
        if self.in_force < self.to {
            return write!(f, "noticed; {} homes in force until all topics have grown", self.in_force);
        }
        let ((acknowledged, homes), (serving, _)) = (self.acknowledged, self.serving);
        write!(f, "{} homes in force, {acknowledged} of {homes} acknowledged, {serving} serve", self.in_force)?;
        if self.has_moved && !self.in_transition.is_empty() {
            let topics: Vec<&str> = self.in_transition.iter().map(|(topic, _)| topic.as_str()).collect();
            write!(f, "; producers change over ({})", topics.join(", "))?;
        }
        if self.is_over {
            write!(f, "; done")?;
        }
        Ok(())
    }
}
