//! From the verdicts of a batch to what is written, what is answered and what goes round again.
//!
//! Upholds I7: every piece of work that enters ends in exactly one of: done (its source is consumed by this commit), kept (in the durable
//! mailbox, by this commit), or carried (undone, in memory, its source not consumed).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    AggregateId, PartitionId, Timestamp,
    batch::{Condition, Entry, MailboxWrite, TimerWrite, Unfiled, Writes},
    dedup::Answer,
    disposition::{DeadLetterReason, WaitReason},
    retry::{self, RetryPolicy},
};
use uuid::Uuid;

use crate::{
    dead_letter::{self, Cause},
    emit::Emit,
    ids::IdMap,
    owned::Owned,
    router::RouteError,
    spans, telemetry,
    work::{
        Delivery, Failure, Input, Item, MailRow, Origin, RefusedRecord, Snapshot, Step, UnfiledRecord, Verdict, Work,
    },
};

/// One commit's worth.
#[derive(Default)]
pub(crate) struct Plan {
    pub entries: Vec<Entry>,
    /// Deliveries to settle, with what the state becomes if the entry at that place is granted, and if not.
    pub settles: Vec<Settle>,
    /// Offsets that are consumed by this commit.
    pub consumed: Vec<(PartitionId, Arc<str>, u64)>,
    /// Answers to give once it is committed.
    pub answers: Vec<(PartitionId, Arc<Item>, Pending)>,
    /// All work of this commit, to go round again if it does not happen.
    pub work: Vec<Input>,
    /// How the durable mailboxes change: messages put minus messages removed.
    pub waiting: Vec<(PartitionId, AggregateId, i64)>,
    /// The ownerships under which it was made. It says nothing under any other.
    pub terms: Terms,
}

/// The ownerships at one moment: the term of each partition.
#[derive(Clone, Default)]
pub(crate) struct Terms(Arc<BTreeMap<PartitionId, u64>>);

impl Terms {
    pub fn of<'o>(owned: impl Iterator<Item = &'o Owned>) -> Self {
        Self(Arc::new(owned.map(|owned| (owned.partition, owned.term)).collect()))
    }

    pub fn get(&self, partition: PartitionId) -> Option<u64> {
        self.0.get(&partition).copied()
    }

    /// Whether this very ownership is one of them.
    pub fn include(&self, owned: &Owned) -> bool {
        self.get(owned.partition) == Some(owned.term)
    }
}

pub(crate) struct Settle {
    pub partition: PartitionId,
    pub aggregate: AggregateId,
    /// The entry in `entries`, and the snapshot if it is granted.
    pub granted: Option<(usize, Arc<Snapshot>)>,
    /// The snapshot if it is refused.
    pub refused: Option<Arc<Snapshot>>,
}

pub(crate) enum Pending {
    Known(Answer),
    /// By the entry at this place.
    Grant {
        entry: usize,
        granted: Answer,
        refused: Answer,
    },
}

/// Builds the plans of a batch. Those with conditions on shared quantities commit apart from those without.
pub(crate) struct Planner<'a> {
    pub context: &'static str,
    pub emit: &'a Emit,
    /// A partition count that the DLQ topic has reached.
    count: u32,
    pub retry: RetryPolicy,
    pub now: Timestamp,
    pub plain: Plan,
    conditional: Plan,
    /// Work for the next batch.
    carry: Vec<Input>,
    /// Aggregates behind something that was not done in this batch, and why.
    blocked: IdMap<AggregateId, Block>,
    late: Vec<Late>,
}

/// A record that becomes a dead letter or mail. It leaves no claim by which it would be recognised if it were read again, so it has to be
/// written by the very commit that moves the consumed offset past it.
struct Late {
    input: Input,
    why: Why,
}

/// What a batch comes to.
pub(crate) struct Planned {
    /// To be committed one after the other.
    pub plans: [Plan; 2],
    /// Work for the next batch.
    pub carry: Vec<Input>,
}

enum Why {
    Refused,
    Strange,
    Behind(WaitReason),
    Failed(Failure),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    /// Something before it is carried: so is what follows.
    Carried,
    /// Its mailbox was not empty: what is not from there queues behind.
    Waits(WaitReason),
    /// Something before it goes to the mailbox, or stays there, by this batch: what follows queues behind.
    Failed(WaitReason),
}

impl<'a> Planner<'a> {
    /// For a batch of so many `messages`.
    pub fn new(
        context: &'static str,
        emit: &'a Emit,
        count: u32,
        retry: RetryPolicy,
        now: Timestamp,
        messages: usize,
    ) -> Self {
        let (plain, conditional) = (Plan::of(messages), Plan::default());
        Self {
            context,
            emit,
            count,
            retry,
            now,
            plain,
            conditional,
            carry: Vec::new(),
            blocked: IdMap::default(),
            late: Vec::new(),
        }
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!(telemetry::MESSAGES_TOTAL, "context" => self.context, "outcome" => outcome).increment(1);
    }

    /// The aggregate's mailbox was not empty when the batch began.
    pub fn block_waiting(&mut self, aggregate: &AggregateId, reason: WaitReason) {
        self.blocked.entry(aggregate.clone()).or_insert(Block::Waits(reason));
    }

    /// If something before `item` in this batch (or its mailbox) stands in its way, disposes of it and returns `None`.
    pub fn unless_blocked(&mut self, input: Input, item: &Arc<Item>) -> Option<Input> {
        match self.blocked.get(&item.aggregate) {
            None => Some(input),
            Some(Block::Waits(_)) if !item.queues_behind_mail() => Some(input),
            Some(Block::Carried) => {
                self.carry.push(input);
                None
            }
            Some(Block::Waits(reason) | Block::Failed(reason)) => {
                let reason = *reason;
                self.behind(input, item, reason);
                None
            }
        }
    }

    /// Queues `item` behind others of its aggregate.
    fn behind(&mut self, input: Input, item: &Arc<Item>, reason: WaitReason) {
        match &item.origin {
            Origin::Log { .. } => self.late.push(Late { input, why: Why::Behind(reason) }),
            Origin::Call { .. } => item.answer(Err(RouteError::Waiting(reason))),
            // They are in their tables still and come again.
            Origin::Mail { .. } | Origin::Timer { .. } => {}
            Origin::Effect { .. } => self.carry.push(input),
        }
    }

    /// Writes `item` into the durable mailbox and consumes its offset.
    fn put(
        &mut self,
        input: Input,
        item: &Arc<Item>,
        reason: WaitReason,
        attempts: u32,
        after: Option<Duration>,
        error: &str,
    ) {
        let Origin::Log { record, .. } = &item.origin else { return };
        let writes = Writes {
            mailbox: vec![MailboxWrite::Put {
                id: item.aggregate.clone(),
                hash: item.hash,
                reason,
                attempts,
                after,
                since: item.now,
                error: error.to_owned(),
                record: record.clone(),
            }],
            ..Writes::default()
        };
        metrics::counter!(telemetry::MAILBOX_PUT_TOTAL, "context" => self.context, "reason" => reason.as_str())
            .increment(1);
        self.plain.waiting.push((input.partition, item.aggregate.clone(), 1));
        self.plain.add(input, writes);
    }

    /// A record whose home is another partition goes to that one's owner through the durable mailbox.
    pub fn transfer(&mut self, input: Input) {
        self.late.push(Late { input, why: Why::Strange });
    }

    /// A record that no aggregate sees. One from the mailbox moves no offset, so it need not wait for any.
    pub fn refuse(&mut self, input: Input) {
        let late = Late { input, why: Why::Refused };
        if late.input.place().is_some() { self.late.push(late) } else { self.write(late) }
    }

    /// Writes what has to go with its offset, or carries it if something before it in its partition is not done yet. `low_after` says how far
    /// a partition's topic is done once some offsets are; `None` if the partition is lost.
    pub fn finish(mut self, low_after: impl Fn(PartitionId, &str, &BTreeSet<u64>) -> Option<u64>) -> Planned {
        let late = std::mem::take(&mut self.late);
        if late.is_empty() {
            return Planned { plans: [self.plain, self.conditional], carry: self.carry };
        }
        let mut done: HashMap<(PartitionId, Arc<str>), BTreeSet<u64>> = HashMap::new();
        let places = late.iter().filter_map(|late| {
            let (topic, offset) = late.input.place()?;
            Some((late.input.partition, topic.clone(), offset))
        });
        for (partition, topic, offset) in self.plain.consumed.iter().cloned().chain(places) {
            done.entry((partition, topic)).or_default().insert(offset);
        }
        let lows: HashMap<_, _> = done
            .iter()
            .filter_map(|((partition, topic), offsets)| {
                Some(((*partition, topic.clone()), low_after(*partition, topic, offsets)?))
            })
            .collect();
        let mut carry = Vec::new();
        for late in late {
            let Some((topic, offset)) = late.input.place() else { continue };
            match lows.get(&(late.input.partition, topic.clone())) {
                None => {}
                Some(low) if offset < *low => self.write(late),
                Some(_) => carry.push(late.into_undone()),
            }
        }
        // They came before whatever is carried for their aggregates.
        self.carry.splice(0..0, carry);
        Planned { plans: [self.plain, self.conditional], carry: self.carry }
    }

    fn write(&mut self, late: Late) {
        let Late { input, why } = late;
        match (&input.work, why) {
            (Work::Refused(refused), _) => {
                let RefusedRecord { record, refused, now, mail, .. } = &**refused;
                let (first_failed, last_failed) = (mail.as_ref().map_or(*now, |mail| mail.since), *now);
                let attempts = mail.as_ref().map_or(1, |mail| mail.attempts.max(1));
                let cause =
                    Cause { reason: refused.reason, error: &refused.error, attempts, first_failed, last_failed };
                let mut writes = Writes::default();
                self.dead(&mut writes, None, record, &cause);
                remove(&mut writes, &mut self.plain.waiting, mail.as_ref(), input.partition);
                self.plain.add(input, writes);
            }
            (Work::Unfiled(unfiled), _) => {
                let UnfiledRecord { record, error, mail } = &**unfiled;
                let row = Unfiled { id: Uuid::now_v7(), error: error.clone(), record: record.clone() };
                metrics::counter!(telemetry::UNFILED_TOTAL, "context" => self.context).increment(1);
                tracing::error!(
                    context = self.context, topic = %record.topic, partition = record.partition.0, offset = record.offset, id = %row.id, error,
                    "a record was kept in the table unfiled, since its dead letter was refused"
                );
                let mut writes = Writes { unfiled: vec![row], ..Writes::default() };
                remove(&mut writes, &mut self.plain.waiting, mail.as_ref(), input.partition);
                self.plain.add(input, writes);
            }
            (Work::Item(item), Why::Strange) => {
                let (item, why) = (item.clone(), "read from a partition that is not its home");
                if let Some(record) = item.record() {
                    let labels = [("context", self.context.to_owned()), ("topic", record.topic.to_string())];
                    metrics::counter!(telemetry::MISROUTED_TOTAL, &labels).increment(1);
                }
                self.put(input, &item, WaitReason::Transferred, 0, Some(Duration::ZERO), why);
            }
            (Work::Item(item), Why::Behind(reason)) => {
                let item = item.clone();
                self.put(input, &item, reason, 0, None, "behind another message");
            }
            (Work::Item(item), Why::Failed(failure)) => {
                let item = item.clone();
                self.dispose(input, &item, &failure);
            }
            _ => {}
        }
    }

    fn dead(&self, writes: &mut Writes, id: Option<&AggregateId>, record: &holdfast_core::Record, cause: &Cause<'_>) {
        dead_letter::write(writes, self.emit, self.count, id, record, cause);
        let labels = [("context", self.context), ("reason", cause.reason.as_str())];
        metrics::counter!(telemetry::DEAD_LETTERS_TOTAL, &labels).increment(1);
        self.count("dead_letter");
        let _span = spans::dead_letter(self.context, record, &self.emit.trace).entered();
        tracing::warn!(
            context = self.context,
            topic = %record.topic,
            partition = record.partition.0,
            offset = record.offset,
            reason = cause.reason.as_str(),
            error = cause.error,
            attempts = cause.attempts,
            "dead letter"
        );
    }

    /// A message that was answered before: its source is consumed, its caller gets the first answer.
    pub fn repeat(&mut self, input: Input, item: &Arc<Item>, answer: Option<Answer>) {
        self.count("repeat");
        if let Some(answer) = answer {
            item.answer(Ok(answer)); // committed long since
        }
        let mut writes = Writes::default();
        finish(&mut writes, &mut self.plain.waiting, item, input.partition);
        if item.record().is_some() || matches!(item.origin, Origin::Timer { .. }) {
            self.plain.add(input, writes);
        }
    }

    /// A message that could not be applied.
    pub fn fail(&mut self, input: Input, item: &Arc<Item>, failure: &Failure) {
        if !matches!(item.origin, Origin::Log { .. }) {
            return self.dispose(input, item, failure);
        }
        if self.wait_after(item, failure).is_some() {
            self.blocked.insert(item.aggregate.clone(), Block::Failed(failure.wait_reason()));
        }
        self.late.push(Late { input, why: Why::Failed(failure.clone()) });
    }

    /// How long a message waits after `failure`; `None` if it is not tried again.
    fn wait_after(&self, item: &Item, failure: &Failure) -> Option<Duration> {
        match failure {
            Failure::Reused | Failure::TooLarge(_) | Failure::Refused(_) | Failure::Unreadable(_) => None,
            Failure::Lookup(_) | Failure::Slow(_) => Some(self.wait_as_long_again(item)),
            Failure::Handler(_) => self.retry.wait_after(item.attempts() + 1),
        }
    }

    /// Half as long again as it has waited already, whatever was tried: an outage costs less the longer it lasts.
    fn wait_as_long_again(&self, item: &Item) -> Duration {
        let Origin::Mail { since, .. } = item.origin else { return self.retry.base };
        let longest = (Duration::from_millis(self.now.ms_since(since)) / 2).clamp(self.retry.base, self.retry.max);
        retry::spread(longest, item.message.id.as_bytes()[15])
    }

    fn dispose(&mut self, input: Input, item: &Arc<Item>, failure: &Failure) {
        let attempts = item.attempts() + u32::from(matches!(failure, Failure::Handler(_)));
        let error = match failure {
            Failure::Reused => "the id was used before with another body",
            Failure::Lookup(error)
            | Failure::TooLarge(error)
            | Failure::Handler(error)
            | Failure::Refused(error)
            | Failure::Unreadable(error)
            | Failure::Slow(error) => error.as_str(),
        };
        let wait = self.wait_after(item, failure);
        match (&item.origin, wait) {
            (Origin::Call { .. }, _) => item.answer(Err(failure.to_caller())),
            (Origin::Timer { name, serial }, wait) => {
                let (after, serial) = (Some(wait.unwrap_or(self.retry.max)), Some(*serial));
                let (id, name) = (item.aggregate.clone(), name.clone());
                let timer = TimerWrite { id, hash: item.hash, name, after, serial };
                self.plain.add(input, Writes { timers: vec![timer], ..Writes::default() });
            }
            (Origin::Effect { name }, _) => {
                tracing::error!(aggregate = %item.aggregate, effect = name, error, "the end of an effect could not be taken in; it is asked for again");
            }
            (Origin::Log { .. }, Some(after)) => {
                self.count("deferred");
                self.put(input, item, failure.wait_reason(), attempts, Some(after), error);
            }
            (Origin::Mail { position, .. }, Some(after)) => {
                self.blocked.insert(item.aggregate.clone(), Block::Failed(failure.wait_reason()));
                let (reason, error) = (failure.wait_reason(), error.to_owned());
                let defer = MailboxWrite::Defer { position: *position, reason, attempts, after, error };
                self.plain.add(input, Writes { mailbox: vec![defer], ..Writes::default() });
            }
            (Origin::Log { record, .. } | Origin::Mail { record, .. }, None) => {
                let reason = match failure {
                    Failure::Reused | Failure::Refused(_) => DeadLetterReason::Invalid,
                    Failure::TooLarge(_) => DeadLetterReason::TooLarge,
                    Failure::Lookup(_) | Failure::Handler(_) | Failure::Unreadable(_) | Failure::Slow(_) => {
                        DeadLetterReason::Poison
                    }
                };
                // A key that the store refuses can't stand in the index either.
                let id = (!matches!(failure, Failure::Refused(_))).then_some(&item.aggregate);
                let first_failed = match item.origin {
                    Origin::Mail { since, .. } => since,
                    _ => self.now,
                };
                let mut writes = Writes::default();
                let cause = Cause { reason, error, attempts: attempts.max(1), first_failed, last_failed: self.now };
                self.dead(&mut writes, id, record, &cause);
                finish(&mut writes, &mut self.plain.waiting, item, input.partition);
                self.plain.add(input, writes);
            }
        }
    }

    /// Takes in what an actor made of its messages. `inputs` are the works behind `delivery.items`, in the same order.
    pub fn verdict(&mut self, partition: PartitionId, delivery: &Delivery, inputs: Vec<Input>, verdict: Verdict) {
        let Verdict { steps, outcome, failed, unreadable, .. } = verdict;
        let is_conditional = outcome.as_ref().is_some_and(|outcome| outcome.condition.is_some());
        let undecided = steps.len();
        let mut inputs = inputs.into_iter();
        let done: Vec<Input> = inputs.by_ref().take(undecided).collect();
        {
            let plan = if is_conditional { &mut self.conditional } else { &mut self.plain };
            let mut settle = Settle { partition, aggregate: delivery.aggregate.clone(), granted: None, refused: None };
            let mut at = None;
            if let Some(outcome) = outcome {
                at = Some(plan.entries.len());
                settle.granted = at.map(|at| (at, outcome.done.after));
                let condition = outcome.condition.map(|(wants, refused)| {
                    settle.refused = Some(refused.after);
                    Condition { wants, refused: refused.writes }
                });
                plan.entries.push(Entry { partition, condition, writes: outcome.done.writes });
            }
            let mut mail = Writes::default();
            for item in &delivery.items[..undecided] {
                finish(&mut mail, &mut plan.waiting, item, partition);
            }
            if !mail.mailbox.is_empty() {
                plan.entries.push(Entry { partition, condition: None, writes: mail });
            }
            if !unreadable {
                plan.settles.push(settle);
            }
            for ((step, item), input) in steps.into_iter().zip(&delivery.items).zip(done) {
                match step {
                    Step::Answered(answer) => plan.answers.push((partition, item.clone(), Pending::Known(answer))),
                    Step::Conditional { granted, refused } => {
                        let entry = at.expect("a condition has an entry");
                        plan.answers.push((partition, item.clone(), Pending::Grant { entry, granted, refused }));
                    }
                    Step::Repeat => {
                        let labels = [("context", self.context), ("outcome", "repeat")];
                        metrics::counter!(telemetry::MESSAGES_TOTAL, &labels).increment(1);
                    }
                }
                plan.consume(&input);
                plan.work.push(input);
            }
        }
        if unreadable {
            let failure = failed.unwrap_or_else(|| Failure::Unreadable(String::new()));
            for (input, item) in inputs.zip(&delivery.items[undecided..]) {
                self.fail(input, item, &failure);
            }
            return;
        }
        let is_unprepared = matches!(failed, Some(Failure::Lookup(_)));
        let reached_culprit = is_unprepared || undecided == delivery.open().len();
        if let Some(failure) = failed.filter(|_| reached_culprit)
            && let Some(input) = inputs.next()
        {
            let item = &delivery.items[undecided];
            let failure = item.failure.get().cloned().unwrap_or(failure);
            self.fail(input, item, &failure);
        }
        let is_carried = self.blocked.get(&delivery.aggregate) == Some(&Block::Carried);
        let before = self.carry.len();
        for input in inputs {
            let Work::Item(item) = &input.work else { continue };
            let item = item.clone();
            self.blocked.entry(item.aggregate.clone()).or_insert(Block::Carried);
            // What is left over is mail that stands first in its mailbox: it is there still, and comes again.
            let _ = self.unless_blocked(input, &item);
        }
        let left = self.carry.len() - before;
        let is_its = |input: &Input| matches!(&input.work, Work::Item(item) if item.aggregate == delivery.aggregate);
        // What was carried when the batch was sorted came after what was left over here.
        if is_carried && let Some(first) = self.carry[..before].iter().position(is_its) {
            self.carry[first..].rotate_right(left);
        }
    }

    /// Marks everything that follows for `aggregate` in this batch as carried.
    pub fn carry(&mut self, input: Input, aggregate: &AggregateId) {
        // Mail is in its table still and comes again in its place, which it would lose here if what is before it is not done.
        if matches!(&input.work, Work::Item(item) if matches!(item.origin, Origin::Mail { .. })) {
            self.blocked.insert(aggregate.clone(), Block::Failed(WaitReason::Retrying));
            return;
        }
        self.blocked.entry(aggregate.clone()).or_insert(Block::Carried);
        self.carry.push(input);
    }
}

impl Input {
    /// Where in the log it came from, if it did.
    pub fn place(&self) -> Option<(&Arc<str>, u64)> {
        match &self.work {
            Work::Item(item) => match &item.origin {
                Origin::Log { record, .. } => Some((&record.topic, record.offset)),
                _ => None,
            },
            Work::Refused(refused) if refused.mail.is_none() => Some((&refused.record.topic, refused.record.offset)),
            Work::Unfiled(unfiled) if unfiled.mail.is_none() => Some((&unfiled.record.topic, unfiled.record.offset)),
            Work::Ignored { topic, offset } => Some((topic, *offset)),
            Work::Refused(_) | Work::Unfiled(_) | Work::Activate { .. } => None,
        }
    }
}

impl Late {
    /// The input, to go round again; what failed is remembered, so that it isn't tried in vain.
    fn into_undone(self) -> Input {
        if let (Work::Item(item), Why::Failed(failure @ Failure::Handler(_))) = (&self.input.work, self.why) {
            let _ = item.failure.set(failure); // it has one already
        }
        self.input
    }
}

impl Plan {
    /// An empty one, with room for so many `messages`.
    fn of(messages: usize) -> Self {
        Self {
            entries: Vec::with_capacity(messages),
            settles: Vec::with_capacity(messages),
            consumed: Vec::with_capacity(messages),
            answers: Vec::with_capacity(messages),
            work: Vec::with_capacity(messages),
            ..Self::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.consumed.is_empty() && self.settles.is_empty() && self.answers.is_empty()
    }

    /// Whether it was made under this very ownership.
    pub fn is_of(&self, owned: &Owned) -> bool {
        self.terms.include(owned)
    }

    /// The partitions it touches.
    pub fn partitions(&self) -> HashSet<PartitionId> {
        let entries = self.entries.iter().map(|entry| entry.partition);
        entries.chain(self.consumed.iter().map(|(partition, ..)| *partition)).collect()
    }

    /// Adds an unconditional entry for `input`, whose source is consumed with it.
    pub fn add(&mut self, input: Input, writes: Writes) {
        self.consume(&input);
        self.entries.push(Entry { partition: input.partition, condition: None, writes });
        self.work.push(input);
    }

    /// Notes that the offset of `input`, if it has one, is consumed.
    pub fn consume(&mut self, input: &Input) {
        let Some((topic, offset)) = input.place() else { return };
        self.consumed.push((input.partition, topic.clone(), offset));
    }
}

/// What must happen to the source of a message that is done: its mailbox row is removed.
fn finish(
    writes: &mut Writes,
    waiting: &mut Vec<(PartitionId, AggregateId, i64)>,
    item: &Item,
    partition: PartitionId,
) {
    if let Origin::Mail { position, .. } = item.origin {
        writes.mailbox.push(MailboxWrite::Remove { position });
        waiting.push((partition, item.aggregate.clone(), -1));
    }
}

/// The same for a record that no aggregate sees.
fn remove(
    writes: &mut Writes,
    waiting: &mut Vec<(PartitionId, AggregateId, i64)>,
    mail: Option<&MailRow>,
    partition: PartitionId,
) {
    let Some(mail) = mail else { return };
    writes.mailbox.push(MailboxWrite::Remove { position: mail.position });
    waiting.extend(mail.aggregate.clone().map(|aggregate| (partition, aggregate, -1)));
}
