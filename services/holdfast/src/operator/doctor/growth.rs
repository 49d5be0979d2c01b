//! Checks of what should come to its end by itself: the growth of partitions, and a halt.

use std::time::Duration;

use holdfast_core::{PartitionId, growth::Growth};
use holdfast_platform::Context;

use super::{Facts, Finding, list, stored};

/// An owner lets go of what has moved within seconds.
const LET_GO_WITHIN: Duration = Duration::from_mins(1);
/// What was sent before a transition's time was up is consumed by then, unless something is wrong.
const CONSUMED_WITHIN: Duration = Duration::from_mins(10);

pub(super) fn no_context_is_halted(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (context, _, stored) in stored(facts) {
        let Some(halt) = stored.partitions.iter().find_map(|partition| partition.row.halted.as_ref()) else { continue };
        findings.push(Finding::wrong(
            format!("{context} is halted: {halt}; nothing of it is served, consumed or published"),
            format!(
                "follow deploy/runbooks/history-lost.md; `holdfast recover {context}` says what can be done, and does it with --yes"
            ),
        ));
    }
    findings
}

pub(super) fn growth_comes_to_its_end(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (context, _, stored) in stored(facts) {
        findings.extend(homes(context, &stored.growth));
        findings.extend(transitions(facts.producers_max_age, context, &stored.growth));
    }
    findings
}

/// Whose keys have moved away and who holds on to them.
fn homes(context: Context, growth: &Growth) -> Option<Finding> {
    let (generation, count) = growth.current();
    let age = growth.topics.get(&format!("{context}.commands"))?.steps.last()?.age;
    let holds_on = |partition: &PartitionId| !growth.acknowledged.contains_key(&(*partition, generation));
    let late: Vec<PartitionId> = (0..count).map(PartitionId).filter(holds_on).collect();
    (age > LET_GO_WITHIN && !late.is_empty()).then(|| {
        Finding::wrong(
            format!(
                "{context} grew to {count} partitions {} s ago, and partition {} has not let go of keys that moved away: their new homes wait",
                age.as_secs(),
                list(&late)
            ),
            "see whether it has an owner, and what that node's log says; nothing is lost",
        )
    })
}

fn transitions(max_age: Duration, context: Context, growth: &Growth) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (topic, counts) in &growth.topics {
        let Some((from, step)) = counts.oldest_in_transition().zip(counts.steps.iter().find(|step| !step.ended)) else {
            continue;
        };
        let what = format!(
            "{topic} grew from {from} to {} partitions {} s ago, and {context} still waits for records sent by the older count before it takes \
             newer ones of new partitions",
            step.count,
            step.age.as_secs()
        );
        let waits_for_relays = !topic.starts_with(&format!("{context}."))
            && step.ends.is_empty()
            && (0..from).any(|partition| !step.marked.contains(&PartitionId(partition)));
        findings.push(if step.age <= max_age {
            let left = max_age.saturating_sub(step.age).as_secs();
            Finding::hint(what, format!("nothing: producers may go by old metadata for another {left} s (kafka.producers_max_age)"))
        } else if waits_for_relays {
            let by = topic.split('.').next().unwrap_or_default();
            Finding::wrong(
                what,
                format!("the nodes of {by} have to say that they are done with the older count: see whether they run, and all topics of {by} have grown"),
            )
        } else if step.age <= max_age + CONSUMED_WITHIN {
            Finding::hint(what, "nothing: it ends once everything sent before is consumed; `holdfast partitions show` has the lag")
        } else {
            Finding::wrong(what, "see in `holdfast partitions show` which partition lags or has no owner")
        });
    }
    findings
}
