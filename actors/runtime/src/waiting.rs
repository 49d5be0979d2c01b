//! What waits in the store for its time: timers, effects, and messages in the durable mailbox.
//!
//! Due is by the store's clock. A firing is of one setting of its timer: it removes or puts off no other, and
//! is void once the loop knows that the timer was set again or cancelled since. Deliberately absent: any
//! order between a timer and other messages; a timer that was cancelled by another owner in the same moment
//! may still fire, so `decide` must look at the state.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use holdfast_core::{
    AggregateId, KeyHash, Message, PartitionId,
    disposition::WaitReason,
    port::store::{DueTimer, Slice, Waiting},
};
use tracing::Span;
use uuid::Uuid;

use crate::{
    lane::Environment,
    spans,
    work::{Input, Item, Origin, Work},
};

/// How many timers, and how many aggregates with mail, are taken in one go.
const LIMIT: u32 = 256;

/// Everything due for `partitions` (with their terms), which are homes under `count`, that `busy` does not hold already.
pub(crate) async fn due(
    env: &Environment,
    partitions: &[(PartitionId, u64)],
    count: u32,
    busy: &[&Input],
) -> Vec<Input> {
    let slice = Slice { partitions: partitions.iter().map(|(partition, _)| *partition).collect(), count };
    let (timers, mail) = tokio::join!(env.store.due_timers(&slice, LIMIT), env.store.due_mail(&slice, LIMIT));
    let mut found = Vec::new();
    let busy = Busy::of(busy);
    match timers {
        Ok(timers) => found.extend(timers.into_iter().filter_map(|timer| fire(env, &busy, timer))),
        Err(error) => tracing::warn!(context = env.context.name(), %error, "timers could not be looked up"),
    }
    match mail {
        Ok(mail) => found.extend(mail.into_iter().filter_map(|waiting| open(env, &busy, waiting))),
        Err(error) => tracing::warn!(context = env.context.name(), %error, "mailboxes could not be looked up"),
    }
    let term_of =
        |home: PartitionId| partitions.iter().find(|(partition, _)| *partition == home).map(|(_, term)| *term);
    found
        .into_iter()
        .filter_map(|item| {
            let partition = item.hash.home(count);
            Some(Input { partition, term: term_of(partition)?, work: Work::Item(Arc::new(item)) })
        })
        .collect()
}

/// Begins the effects that are due for `partitions`, as many as there is room for.
pub(crate) async fn begin_effects(env: &Environment, partitions: &[(PartitionId, u64)], count: u32) {
    let room = env.effects.room().min(LIMIT);
    if room == 0 || !env.effects.are_there() {
        return;
    }
    let slice = Slice { partitions: partitions.iter().map(|(partition, _)| *partition).collect(), count };
    match env.store.due_effects(&slice, room, env.config.effect_hold()).await {
        Ok(due) => {
            for effect in due {
                let home = KeyHash::of(effect.key.as_bytes()).home(count);
                if let Some((partition, term)) = partitions.iter().find(|(partition, _)| *partition == home) {
                    env.effects.begin(*partition, *term, effect);
                }
            }
        }
        Err(error) => tracing::warn!(context = env.context.name(), %error, "effects could not be looked up"),
    }
}

/// What is on its way already.
struct Busy<'a> {
    timers: HashSet<(&'a AggregateId, &'a str)>,
    mail: HashSet<&'a AggregateId>,
}

impl<'a> Busy<'a> {
    fn of(inputs: &[&'a Input]) -> Self {
        let mut busy = Self { timers: HashSet::new(), mail: HashSet::new() };
        for input in inputs {
            busy.timers.extend(firing(input));
            if let Work::Item(item) = &input.work
                && matches!(item.origin, Origin::Mail { .. })
            {
                busy.mail.insert(&item.aggregate);
            }
        }
        busy
    }
}

/// The timer that `input` is a firing of, if it is one.
pub(crate) fn firing(input: &Input) -> Option<(&AggregateId, &str)> {
    match &input.work {
        Work::Item(item) => match &item.origin {
            Origin::Timer { name, .. } => Some((&item.aggregate, name)),
            _ => None,
        },
        _ => None,
    }
}

fn fire(env: &Environment, busy: &Busy<'_>, timer: DueTimer) -> Option<Item> {
    let Some(kind) = env.context.kind(&timer.kind) else {
        tracing::error!(kind = timer.kind, "a timer of a kind that this build does not know");
        return None;
    };
    let aggregate = AggregateId { kind: kind.name(), key: timer.key.clone() };
    if busy.timers.contains(&(&aggregate, timer.name.as_str())) {
        return None;
    }
    let Some(command) = kind.timer(&timer.name) else {
        tracing::error!(aggregate = %aggregate, timer = timer.name, "a timer that this build does not know");
        return None;
    };
    let message = Message::new(Uuid::now_v7(), "timer", timer.name.as_str(), timer.key, Bytes::new());
    let hash = KeyHash::of(aggregate.key.as_bytes());
    Some(Item {
        origin: Origin::Timer { name: timer.name, serial: timer.serial },
        aggregate,
        hash,
        message,
        command,
        now: env.clock.now(),
        failure: OnceLock::new(),
        claim: OnceLock::new(),
        prepared: false,
        span: Span::none(),
        credit: None,
    })
}

fn open(env: &Environment, busy: &Busy<'_>, waiting: Waiting) -> Option<Item> {
    let Waiting { position, attempts, since, record, reason, .. } = waiting;
    let (aggregate, message, command) = match env.context.decode(&record) {
        Ok(decoded) => decoded,
        Err(error) => {
            tracing::error!(topic = %record.topic, partition = record.partition.0, offset = record.offset, %error,
                "a message in the mailbox that this build cannot read");
            return None;
        }
    };
    if busy.mail.contains(&aggregate) {
        return None;
    }
    let own = record.topic == *env.context.commands_topic();
    // A transferred message was never tried here.
    let attempts = if reason == WaitReason::Transferred { 0 } else { attempts };
    Some(Item {
        hash: record.key_hash(),
        span: spans::process(env.context.name(), &message, Some(&record), &env.emit.trace),
        origin: Origin::Mail { position, attempts, since, record, own },
        aggregate,
        message,
        command,
        now: env.clock.now(),
        failure: OnceLock::new(),
        claim: OnceLock::new(),
        prepared: false,
        credit: None,
    })
}
