//! Checks of a context's tables, and of the log as far as those point into it.

use std::{collections::BTreeSet, net::IpAddr};

use holdfast_core::Timestamp;
use holdfast_postgres::{FORMAT, survey::Unfiled};

use super::{Facts, Finding, Level, list, stored};
use crate::operator::survey::Partition;

/// Mail of these reasons leaves by itself, and so soon.
const MAIL_MAX_MS: [(&str, i64, &str); 3] = [
    ("transferred", 60_000, "their homes' owners should take them at once; see whether those partitions have owners"),
    ("downstream", 60_000, "the context that is asked does not answer; see its health, and `inventory.addr`"),
    ("retrying", 600_000, "a handler keeps failing; the log tells on which message and why"),
];

pub(super) fn databases_answer(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for context in &facts.contexts {
        let Err(error) = &context.stored else { continue };
        // Its own words name the remedy.
        let finding = if error.contains("not migrated") {
            Finding::wrong(
                format!("the schema of {} is not there: {error}", context.context),
                format!("run `holdfast migrate {}`", context.context),
            )
        } else {
            Finding::new(
                Level::Unreachable,
                format!("{} can't be looked at: {error}", context.context),
                "check HOLDFAST_DATABASE_URL (or the context's own), and that the server is Postgres 18",
            )
        };
        findings.push(finding);
    }
    findings
}

pub(super) fn schemas_are_current(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (context, _, stored) in stored(facts) {
        let (applied, known): (BTreeSet<_>, BTreeSet<_>) =
            (stored.applied.iter().collect(), stored.known.iter().collect());
        let (behind, ahead): (Vec<_>, Vec<_>) =
            (known.difference(&applied).collect(), applied.difference(&known).collect());
        if !behind.is_empty() {
            findings.push(Finding::wrong(
                format!("{context} lacks migration {}", list(behind)),
                format!("run `holdfast migrate {context}` before serving with this build"),
            ));
        }
        if !ahead.is_empty() {
            findings.push(Finding::hint(
                format!("{context} has migration {}, which this build does not know", list(ahead)),
                "a newer build has been here; look with that one",
            ));
        }
        if (1..FORMAT).contains(&stored.format) {
            findings.push(Finding::hint(
                format!("{context} is written in format {}, and this build can write format {FORMAT}", stored.format),
                format!(
                    "once no node of an earlier build is needed any more, run `holdfast migrate {context} --finish`"
                ),
            ));
        }
    }
    findings
}

pub(super) fn partitions_have_owners(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (context, _, stored) in stored(facts) {
        if stored.partitions.is_empty() {
            if facts.brokers.is_ok() && stored.is_current() {
                let remedy = format!("start `holdfast serve {context}`");
                findings.push(Finding::wrong(format!("nobody has ever served {context}"), remedy));
            }
            continue;
        }
        let of_nobody = |partition: &&Partition| !partition.is_owned() && partition.row.halted.is_none();
        let idle = stored.partitions.iter().filter(of_nobody);
        let idle: Vec<_> = idle.map(|partition| partition.row.partition).collect();
        if !idle.is_empty() {
            findings.push(Finding::wrong(
                format!(
                    "no node owns {} of {} partitions of {context}: {}",
                    idle.len(),
                    stored.partitions.len(),
                    list(&idle)
                ),
                format!("start `holdfast serve {context}`; where one runs, see whether it is ready and in the group"),
            ));
        }
    }
    findings
}

/// Whether nobody can call this address, and whether only this very machine can.
fn reach(address: &str) -> (bool, bool) {
    let Some((host, port)) = address.rsplit_once(':') else { return (true, false) };
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let nowhere = host.is_empty() || port == "0" || ip.is_some_and(|ip| ip.is_unspecified());
    (nowhere, host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()))
}

pub(super) fn owners_can_be_called(facts: &Facts) -> Vec<Finding> {
    let remedy = "set HOLDFAST_ADVERTISED_ADDR=host:port on each node, as others reach its gRPC";
    let mut findings = Vec::new();
    for (context, _, stored) in stored(facts) {
        let owned = stored.partitions.iter().filter(|partition| partition.is_owned());
        let addresses: BTreeSet<&str> = owned.map(|partition| partition.row.address.as_str()).collect();
        for address in addresses.iter().filter(|address| reach(address).0) {
            let shown = if address.is_empty() { "nothing" } else { address };
            findings.push(Finding::wrong(format!("an owner of {context} says that it is called at {shown}"), remedy));
        }
        let near: Vec<_> = addresses.iter().filter(|address| reach(address).1).collect();
        if !near.is_empty() && near.len() < addresses.len() {
            findings.push(Finding::wrong(
                format!(
                    "owners of {context} on several machines, of which {} can be called from its own only",
                    list(near)
                ),
                remedy,
            ));
        }
    }
    findings
}

pub(super) fn offsets_are_in_the_log(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (_, _, stored) in stored(facts) {
        for partition in &stored.partitions {
            for input in partition.inputs.iter().filter(|input| !input.is_in_log()) {
                let place = format!("{}-{}", input.topic, partition.row.partition);
                let (next, start, end) = (input.next(), input.start, input.end);
                let (what, why) = if next < start {
                    (
                        format!("{place} is halted: offset {next} is next, and the log starts at {start}"),
                        "records were deleted before they were consumed: restore them",
                    )
                } else {
                    (
                        format!("{place} is halted: offset {next} is next, and the log ends at {end}"),
                        "the topic was deleted and made again, or lost its tail: restore it",
                    )
                };
                findings.push(Finding::wrong(what, format!("{why}; nothing is skipped without your word")));
            }
        }
    }
    findings
}

pub(super) fn outboxes_drain(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (context, _, stored) in stored(facts) {
        if stored.stuck.is_empty() {
            continue;
        }
        let is_stuck = |id| stored.stuck.contains(&id);
        let rows: u64 =
            stored.partitions.iter().filter(|p| is_stuck(p.row.partition)).map(Partition::outbox_pending).sum();
        findings.push(Finding::wrong(
            format!("{rows} events and dead letters of {context} are committed and not published: the outbox of partition {} stands still", list(&stored.stuck)),
            "see whether the partition has an owner, and what its log says of publishing; nothing is lost, the owner goes on by itself",
        ));
    }
    findings
}

pub(super) fn every_loop_moves(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (context, _, stored) in stored(facts) {
        for (address, stalled) in &stored.stalled {
            findings.push(Finding::wrong(
                format!("on {address}, {context} has work and makes no progress: {stalled}"),
                "mend what it waits for; a loop that waits for nothing outside is ended by the liveness probe of /health/live, so see whether one is set",
            ));
        }
    }
    findings
}

pub(super) fn every_record_is_filed(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (context, _, stored) in stored(facts) {
        for Unfiled { topic, records, since: oldest, error } in &stored.unfiled {
            findings.push(Finding::wrong(
                format!("{records} records of {topic} could not even become dead letters of {context}, the oldest since {}; the newest for: {error}", since(Some(*oldest))),
                format!("they lie in the table {context}.unfiled as raw bytes; look at them, send on what is wanted, and delete the rows"),
            ));
        }
    }
    findings
}

pub(super) fn topics_take_what_is_published(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (context, _, stored) in stored(facts) {
        let topics: BTreeSet<&str> = stored.refused.iter().map(|record| &*record.topic).collect();
        for topic in topics {
            let of = || stored.refused.iter().filter(|record| &*record.topic == topic);
            let Some(first) = of().find(|record| record.attempts > 0) else { continue };
            let (refused, behind) =
                (of().filter(|record| record.attempts > 0).count(), of().filter(|record| record.attempts == 0).count());
            findings.push(Finding::wrong(
                format!(
                    "{topic} refuses {refused} records of {context}, and {behind} of the same keys queue behind them; the first, {} of {} bytes, since {}: {}",
                    first.id,
                    first.bytes,
                    first.since.rfc3339(),
                    first.error
                ),
                format!(
                    "see `holdfast outbox stuck list {context}`; raise the topic's max.message.bytes and `holdfast outbox stuck retry {context}`, \
                     or `holdfast outbox stuck discard {context} --why ...`"
                ),
            ));
        }
    }
    findings
}

fn since(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "unknown".to_owned(), holdfast_core::Timestamp::rfc3339)
}

pub(super) fn nothing_waits_for_long(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (context, _, stored) in stored(facts) {
        let named = |source: &str| {
            if source.is_empty() { "a producer without ce_source".to_owned() } else { format!("`{source}`") }
        };
        let remedy = "let that producer partition by murmur2 of the key (Java's default; `partitioner=murmur2_random` in librdkafka); \
                      order between such records and others of their keys is not promised";
        for stray in &stored.misrouted {
            let (source, topic) = (named(&stray.source), &stray.topic);
            let what = format!(
                "{source} sent {} of the newest records of {topic} to a partition that is not their key's home, since {}",
                stray.records,
                since(stray.since)
            );
            findings.push(Finding::wrong(what, remedy));
        }
        for stray in &stored.strays {
            let (source, topic) = (named(&stray.source), &stray.topic);
            let what = format!(
                "{} records that {source} misrouted in {topic} wait to be taken home, since {}",
                stray.messages,
                since(Some(stray.since))
            );
            findings.push(Finding::hint(what, remedy));
        }
        let mail = || stored.partitions.iter().flat_map(|partition| &partition.mail);
        let reasons: BTreeSet<&str> = mail().map(|mail| mail.reason.as_str()).collect();
        for reason in reasons {
            let of = || mail().filter(|mail| mail.reason == reason);
            let oldest = of().map(|mail| mail.since).min().unwrap_or_default();
            let (messages, aggregates): (u64, u64) = of()
                .fold((0, 0), |(messages, aggregates), mail| (messages + mail.messages, aggregates + mail.aggregates));
            let (max_ms, remedy) = MAIL_MAX_MS
                .iter()
                .find(|(known, ..)| *known == reason)
                .map_or((0, "an operator has to act; see the dead letters of that aggregate"), |(_, max, text)| {
                    (*max, *text)
                });
            if facts.now.unix_ms() - oldest.unix_ms() >= max_ms {
                findings.push(Finding::wrong(
                    format!("{messages} messages for {aggregates} aggregates of {context} wait ({reason}), the oldest since {}", since(Some(oldest))),
                    remedy,
                ));
            }
        }
    }
    findings
}
