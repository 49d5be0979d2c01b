//! What waits in the store for its time: timers, effects, and messages in the durable mailbox.
//!
//! Due is by the store's clock. A firing is of one setting of its timer: it removes or puts off no other, and
//! is void once the loop knows that the timer was set again or cancelled since. Deliberately absent: any
//! order between a timer and other messages; a timer that was cancelled by another owner in the same moment
//! may still fire, so `decide` must look at the state.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use holdfast_core::{
    AggregateId, KeyHash, Message, PartitionId,
    disposition::{DeadLetterReason, Refused, WaitReason},
    origin::Arrival,
    port::store::{DueEffect, DueTimer, MailLimit, Slice, StoreError, Waiting},
};
use tokio::time::Instant;
use tracing::Span;
use uuid::Uuid;

use crate::{
    context::decoded,
    environment::Environment,
    guard::guarded,
    spans, telemetry,
    work::{Input, Item, MailRow, Origin, RefusedRecord, Work},
};

/// How many timers, effects, and aggregates with mail, are taken in one go.
const LIMIT: u32 = 256;

/// What one look at the mailboxes takes, for each lane: the next look comes when this is decided, so this
/// bounds the memory that mail takes (I11). A node reads mail outside the byte budget, which records that
/// queue behind that very mail may have spent.
const MAIL: MailLimit =
    MailLimit { aggregates: LIMIT, each: LIMIT, messages: 4 * LIMIT, bytes_each: 1024 * 1024, bytes: 4 * 1024 * 1024 };

/// What the store has that is due.
pub(crate) struct Found {
    timers: Result<Vec<DueTimer>, StoreError>,
    mail: Result<Vec<Waiting>, StoreError>,
    effects: Result<Vec<DueEffect>, StoreError>,
}

/// The inputs that are due, and what no kind of this build knows.
pub(crate) struct Due {
    pub inputs: Vec<Input>,
    pub strange: Strange,
}

/// What is due and can't be done by this build. Another one may know it, so it is kept; put off, it stands in
/// nobody's way.
#[derive(Default)]
pub(crate) struct Strange {
    timers: Vec<DueTimer>,
    effects: Vec<DueEffect>,
}

impl Strange {
    pub const fn is_empty(&self) -> bool {
        self.timers.is_empty() && self.effects.is_empty()
    }
}

/// Asks for everything due for `partitions` (with their terms), which are homes under `count`; for no more
/// effects than there is room for.
pub(crate) fn look(
    env: &Environment,
    partitions: &[(PartitionId, u64)],
    count: u32,
) -> impl Future<Output = Found> + use<> {
    let slice = Slice { partitions: partitions.iter().map(|(partition, _)| *partition).collect(), count };
    let room = if env.effects.are_there() { env.effects.room().min(LIMIT) } else { 0 };
    let (store, hold) = (env.store.clone(), env.config.effect_hold());
    async move {
        let effects = async { if room == 0 { Ok(Vec::new()) } else { store.due_effects(&slice, room, hold).await } };
        let (timers, mail, effects) =
            tokio::join!(store.due_timers(&slice, LIMIT), store.due_mail(&slice, MAIL), effects);
        Found { timers, mail, effects }
    }
}

/// Sorts what was found into inputs, but for mailboxes of which mail `is_here` already, and begins the
/// effects.
pub(crate) fn sort(
    env: &Environment,
    partitions: &[(PartitionId, u64)],
    count: u32,
    found: Found,
    is_here: impl Fn(PartitionId, &AggregateId) -> bool,
) -> Due {
    let Found { timers, mail, effects } = found;
    let term_of = |hash: KeyHash| partitions.iter().find(|(partition, _)| *partition == hash.home(count));
    let mut due = Due { inputs: Vec::new(), strange: Strange::default() };
    for timer in noted(env, "timers", timers) {
        let home = term_of(KeyHash::of(timer.key.as_bytes()));
        match fire(env, &timer) {
            Some(item) => {
                if let Some((partition, term)) = home {
                    due.inputs.push(Input { partition: *partition, term: *term, work: Work::Item(Arc::new(item)) });
                }
            }
            None => due.strange.timers.push(timer),
        }
    }
    for waiting in noted(env, "mailboxes", mail) {
        if let Some((partition, term)) = term_of(waiting.hash) {
            let kind = env.context.kind(&waiting.kind).map(|kind| kind.name());
            let id = kind.map(|kind| AggregateId { kind, key: waiting.key.clone() });
            if id.is_some_and(|id| is_here(*partition, &id)) {
                continue;
            }
            let work = open(env, waiting);
            due.inputs.push(Input { partition: *partition, term: *term, work });
        }
    }
    for effect in noted(env, "effects", effects) {
        if env.context.kind(&effect.kind).is_none() {
            due.strange.effects.push(effect);
        } else if let Some((partition, term)) = term_of(KeyHash::of(effect.key.as_bytes())) {
            env.effects.begin(*partition, *term, effect);
        }
    }
    due
}

/// What was found, or nothing and a word about why.
fn noted<T>(env: &Environment, what: &'static str, found: Result<Vec<T>, StoreError>) -> Vec<T> {
    found.unwrap_or_else(|error| {
        tracing::warn!(context = env.context.name(), what, %error, "what is due could not be looked up");
        Vec::new()
    })
}

/// Puts off what this build does not know, each time for longer.
pub(crate) fn put_off(env: &Environment, strange: Strange) -> impl Future<Output = ()> + use<> {
    let (store, context) = (env.store.clone(), env.context.name());
    async move {
        let Strange { timers, effects } = strange;
        for (what, kind, name) in timers
            .iter()
            .map(|timer| ("timer", &timer.kind, &timer.name))
            .chain(effects.iter().map(|effect| ("effect", &effect.kind, &effect.name)))
        {
            metrics::counter!(telemetry::UNKNOWN_DUE_TOTAL, "context" => context, "what" => what).increment(1);
            tracing::error!(
                context,
                what,
                kind,
                name,
                "something fell due that this build does not know; it was put off"
            );
        }
        let mut outcome = Ok(());
        if !timers.is_empty() {
            outcome = store.put_off_timers(&timers).await;
        }
        for effect in effects {
            let after = EFFECT_PUT_OFF.saturating_mul(1 << effect.attempts.min(6));
            let error = "this build does not know its kind";
            outcome = outcome.and(store.put_off_effect(&effect.kind, &effect.key, &effect.name, after, error).await);
        }
        if let Err(error) = outcome {
            tracing::warn!(context, %error, "what this build does not know could not be put off");
        }
    }
}

/// How long an effect of an unknown kind is put off, twice as long for each attempt counted, up to about an
/// hour.
const EFFECT_PUT_OFF: Duration = Duration::from_mins(1);

/// The message of a timer; `None` if this build has no such kind or timer.
fn fire(env: &Environment, timer: &DueTimer) -> Option<Item> {
    let kind = env.context.kind(&timer.kind)?;
    let aggregate = AggregateId { kind: kind.name(), key: timer.key.clone() };
    if !env.context.declares(kind.name(), &Arrival::Timer(&timer.name)) {
        return None;
    }
    let (command, failure) = decoded(
        guarded("timer", || kind.timer(&timer.name))
            .map_or_else(|panicked| Some(Err(panicked)), |command| command.map(Ok))?,
    );
    let message = Message::new(Uuid::now_v7(), "timer", timer.name.as_str(), timer.key.clone(), Bytes::new());
    let hash = KeyHash::of(aggregate.key.as_bytes());
    Some(Item {
        origin: Origin::Timer { name: timer.name.clone(), serial: timer.serial },
        aggregate,
        hash,
        message,
        command,
        now: env.clock.now(),
        admitted: Instant::now(),
        failure,
        fingerprint: OnceLock::new(),
        span: Span::none(),
        credit: None,
    })
}

/// The message of a mailbox row; the row itself, to become a dead letter in its turn, if it can't be read.
fn open(env: &Environment, waiting: Waiting) -> Work {
    let Waiting { position, kind, key, hash, attempts, since, record, reason, .. } = waiting;
    let own = record.topic == *env.context.commands_topic();
    let kind = env.context.kind(&kind).ok_or_else(|| Refused {
        reason: DeadLetterReason::UnknownType,
        error: "no kind of this name".to_owned(),
        field: None,
    });
    let aggregate = kind.as_ref().ok().map(|kind| AggregateId { kind: kind.name(), key });
    let read = reason.map_err(|row| Refused::undecodable(row.to_string()));
    let read = kind.and(read).and_then(|reason| Ok((reason, env.context.decode(&record)?)));
    let (reason, (aggregate, message, command)) = match read {
        Ok(read) => read,
        Err(refused) => {
            let mail = Some(MailRow { position, since, attempts, aggregate });
            let now = env.clock.now();
            return Work::Refused(Box::new(RefusedRecord { record, refused, now, mail, credit: None }));
        }
    };
    // A transferred message was never tried here.
    let attempts = if reason == WaitReason::Transferred { 0 } else { attempts };
    let (command, failure) = decoded(command);
    Work::Item(Arc::new(Item {
        hash,
        span: spans::process(env.context.name(), &message, Some(&record), &env.emit.trace),
        origin: Origin::Mail { position, attempts, since, record, own },
        aggregate,
        message,
        command,
        now: env.clock.now(),
        admitted: Instant::now(),
        failure,
        fingerprint: OnceLock::new(),
        credit: None,
    }))
}
