//! Checks of the cluster, its topics, and how we use it.

use std::{collections::BTreeMap, time::Duration};

use holdfast_kafka::admin::{TopicSpec, TopicState};
use holdfast_platform::config::GroupProtocol;

use super::{Facts, Finding, Level, list, stored};

/// Commands that nobody consumed are waited for at least as long as an outage over a weekend.
const COMMANDS_KEPT_MS: i64 = 3 * 24 * 60 * 60 * 1000;
/// Clocks that differ by less are not worth a word.
const SKEW_MAX_MS: i64 = 1_000;

pub(super) fn brokers_answer(facts: &Facts) -> Vec<Finding> {
    let away = |error: &String| {
        let remedy = "check HOLDFAST_KAFKA_BROKERS, the network, and TLS and SASL in HOLDFAST_KAFKA_PROPERTIES";
        Finding::new(Level::Unreachable, format!("no broker answers: {error}"), remedy)
    };
    facts.brokers.as_ref().err().map(away).into_iter().collect()
}

pub(super) fn topics_exist(facts: &Facts) -> Vec<Finding> {
    if facts.brokers.is_err() {
        return Vec::new();
    }
    let mut missing: Vec<&str> = Vec::new();
    for context in &facts.contexts {
        let wanted = context.wanted.iter().map(|spec| spec.name.as_str());
        for name in wanted.chain(context.inputs.iter().map(String::as_str)) {
            if !context.topics.iter().any(|topic| topic.name == name) && !missing.contains(&name) {
                missing.push(name);
            }
        }
    }
    if missing.is_empty() {
        return Vec::new();
    }
    vec![Finding::wrong(format!("missing: {}", list(missing)), "`holdfast topics apply` makes them")]
}

/// A topic's partitions, as text.
fn counts<'a>(topics: impl Iterator<Item = &'a TopicState>) -> String {
    list(topics.map(|topic| format!("{} has {}", topic.name, topic.partitions)))
}

pub(super) fn topics_have_equal_partitions(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for context in &facts.contexts {
        let is_own = |topic: &&TopicState| context.wanted.iter().any(|spec| spec.name == topic.name);
        let own: Vec<&TopicState> = context.topics.iter().filter(is_own).collect();
        let Some(first) = own.first() else { continue };
        if own.iter().any(|topic| topic.partitions != first.partitions) {
            findings.push(Finding::wrong(
                counts(own.into_iter()),
                "grow the smaller ones to the largest with `kafka-topics --alter --partitions`, one after the other; \
                 until then a key's records of different topics belong to different partitions",
            ));
        } else if first.partitions != facts.partitions {
            findings.push(Finding::hint(
                format!(
                    "the topics of {} have {} partitions, and `partitions` is set to {}",
                    context.context, first.partitions, facts.partitions
                ),
                format!("set HOLDFAST_PARTITIONS={} everywhere, so that new topics are made alike", first.partitions),
            ));
        }
    }
    findings
}

/// Whether a deployed context writes to this topic. A topic that was only made to be followed stays as small
/// as it was when the shop around it grows, and holds nothing.
fn is_written_to(facts: &Facts, topic: &str) -> bool {
    let context = topic.split_once('.').map_or(topic, |(context, _)| context);
    facts.contexts.iter().any(|deployed| deployed.context.as_str() == context)
}

pub(super) fn inputs_have_equal_partitions(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for context in &facts.contexts {
        let is_input = |topic: &&TopicState| context.inputs.contains(&topic.name) && is_written_to(facts, &topic.name);
        let inputs: Vec<&TopicState> = context.topics.iter().filter(is_input).collect();
        let Some(first) = inputs.first() else { continue };
        if inputs.iter().any(|topic| topic.partitions != first.partitions) {
            findings.push(Finding::wrong(
                format!("{} reads topics of different sizes: {}", context.context, counts(inputs.into_iter())),
                "give them equal counts; until then every record beyond goes through the durable mailbox to its home",
            ));
        }
    }
    findings
}

fn number(config: &BTreeMap<String, String>, name: &str) -> Option<i64> {
    config.get(name)?.parse().ok()
}

/// Each topic that exists with how it should be.
fn topics(facts: &Facts) -> impl Iterator<Item = (&TopicState, &TopicSpec)> {
    facts.contexts.iter().flat_map(|context| {
        let spec = |topic: &TopicState| context.wanted.iter().find(|spec| spec.name == topic.name);
        context.topics.iter().filter_map(move |topic| Some((topic, spec(topic)?)))
    })
}

pub(super) fn topics_keep_records(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (topic, spec) in topics(facts) {
        let is_commands = topic.name.ends_with(".commands");
        let wanted = number(&spec.config, "retention.ms").unwrap_or(if is_commands { COMMANDS_KEPT_MS } else { 0 });
        let kept = number(&topic.config, "retention.ms").filter(|kept| *kept >= 0);
        if let Some(kept) = kept.filter(|kept| *kept < wanted) {
            findings.push(Finding::wrong(
                format!("{} keeps records for {}, wanted {} at least", topic.name, span(kept), span(wanted)),
                format!(
                    "set retention.ms={wanted}; records that are gone before they are consumed halt their partition"
                ),
            ));
        }
        let size = number(&topic.config, "retention.bytes").filter(|bytes| *bytes >= 0);
        if let Some(bytes) = size {
            findings.push(Finding::wrong(
                format!("{} drops its oldest records beyond {bytes} bytes, consumed or not", topic.name),
                "set retention.bytes=-1, and size the disks for the retention in time",
            ));
        }
        if let Some(policy) = topic.config.get("cleanup.policy").filter(|policy| policy.contains("compact")) {
            findings.push(Finding::wrong(
                format!("{} has cleanup.policy={policy}: all but the last record of a key vanish", topic.name),
                "set cleanup.policy=delete",
            ));
        }
    }
    findings
}

fn span(ms: i64) -> String {
    match ms / 3_600_000 {
        0 => format!("{} s", ms / 1000),
        hours if hours < 48 => format!("{hours} h"),
        hours => format!("{} days", hours / 24),
    }
}

pub(super) fn copies_outlive_a_broker(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (topic, spec) in topics(facts) {
        let copies = i64::from(topic.replication);
        let needed = number(&topic.config, "min.insync.replicas").unwrap_or(1);
        let name = &topic.name;
        if topic.replication < spec.replication {
            findings.push(Finding::wrong(
                format!("{name} has {copies} copies on a cluster that bears {}", spec.replication),
                "raise them with `kafka-reassign-partitions`; with one copy a lost disk is a lost topic",
            ));
        }
        if needed > copies {
            findings.push(Finding::wrong(
                format!("{name} wants {needed} copies in sync and has {copies}: every write is refused"),
                format!("set min.insync.replicas={}", (copies - 1).max(1)),
            ));
        } else if copies > 1 && needed == copies {
            findings.push(Finding::wrong(
                format!("{name} wants all of its {copies} copies in sync: one broker away stops every write"),
                format!("set min.insync.replicas={}", copies - 1),
            ));
        } else if copies > 2 && needed < 2 {
            findings.push(Finding::wrong(
                format!("{name} acknowledges a write that one copy of {copies} has: losing that one loses it"),
                format!("set min.insync.replicas={}", copies - 1),
            ));
        }
    }
    findings
}

pub(super) fn large_records_fit(facts: &Facts) -> Vec<Finding> {
    let small = |(topic, spec): (&TopicState, &TopicSpec)| {
        let wanted = number(&spec.config, "max.message.bytes")?;
        let is = number(&topic.config, "max.message.bytes").filter(|is| *is < wanted)?;
        Some(Finding::wrong(
            format!("{} takes records up to {is} bytes, wanted {wanted}", topic.name),
            format!(
                "set max.message.bytes={wanted}; a record that is too large then becomes a dead letter with its bytes \
                 instead of an error of its producer, and a dead letter always fits"
            ),
        ))
    };
    topics(facts).filter_map(small).collect()
}

pub(super) fn group_settings_fit(facts: &Facts) -> Vec<Finding> {
    let Ok(brokers) = &facts.brokers else { return Vec::new() };
    let mut findings = Vec::new();
    let ours = i64::try_from(facts.session_timeout.as_millis()).unwrap_or(i64::MAX);
    let setting = |name: &str| number(&brokers.settings, name);
    match facts.group_protocol {
        GroupProtocol::Classic => {
            let (min, max) = (setting("group.min.session.timeout.ms"), setting("group.max.session.timeout.ms"));
            if min.is_some_and(|min| ours < min) || max.is_some_and(|max| ours > max) {
                let bound = |bound: Option<i64>| bound.map_or_else(|| "?".to_owned(), |ms| ms.to_string());
                findings.push(Finding::wrong(
                    format!(
                        "kafka.session_timeout is {ours} ms; the brokers take {} to {} ms, so nobody can join a group",
                        bound(min),
                        bound(max)
                    ),
                    "set HOLDFAST_KAFKA_SESSION_TIMEOUT within those bounds, or the brokers' bounds wider",
                ));
            }
            if facts.session_timeout > Duration::from_secs(45) {
                findings.push(Finding::hint(
                    format!("kafka.session_timeout is {} s: so long a crash goes unnoticed", ours / 1000),
                    "set HOLDFAST_KAFKA_SESSION_TIMEOUT=10s unless the network needs more",
                ));
            }
        }
        GroupProtocol::Consumer => {
            let session = setting("group.consumer.session.timeout.ms").unwrap_or(45_000);
            if session > 15_000 {
                findings.push(Finding::hint(
                    format!("under group protocol `consumer` the brokers' session of {} s applies: so long a crash goes unnoticed", session / 1000),
                    "lower group.consumer.session.timeout.ms on the brokers, or use HOLDFAST_KAFKA_GROUP_PROTOCOL=classic",
                ));
            }
        }
    }
    if facts.lease > facts.session_timeout && facts.group_protocol == GroupProtocol::Classic {
        findings.push(Finding::hint(
            format!(
                "a lease of {} s outlives the session of {} s: after a crash the taker waits longer than it took to notice",
                facts.lease.as_secs(),
                facts.session_timeout.as_secs()
            ),
            "set HOLDFAST_LEASE to half of the session timeout or less",
        ));
    }
    findings
}

pub(super) fn failures_are_retried(facts: &Facts) -> Vec<Finding> {
    if facts.retry_budget > 1 {
        return Vec::new();
    }
    vec![Finding::hint(
        "retry_budget is 1: the first failure of a handler makes a dead letter, without any backoff",
        "set HOLDFAST_RETRY_BUDGET=3",
    )]
}

pub(super) fn clocks_agree(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (context, _, stored) in stored(facts) {
        let ahead = stored.database_ahead_ms;
        if ahead.abs() > SKEW_MAX_MS {
            findings.push(Finding::hint(
                format!("the database of {context} is {ahead} ms ahead of this machine"),
                "check NTP on both; nothing breaks by it, but ages and timers look wrong",
            ));
        }
        if stored.records_ahead_ms > SKEW_MAX_MS.unsigned_abs() {
            findings.push(Finding::hint(
                format!(
                    "a record that {context} reads was stamped {} ms in this machine's future",
                    stored.records_ahead_ms
                ),
                "check NTP on the producers and the brokers; nothing breaks by it, but ages look wrong",
            ));
        }
    }
    findings
}
