//! The rows of a commit: what the actors decided, and what becomes of messages that no actor has decided.
//!
//! Deliberately absent: which of them go into it, and why, which the machine says.

use std::time::Duration;

use holdfast_core::{
    AggregateId, Record,
    batch::{Condition, Entry, MailboxWrite, TimerWrite, Unfiled, Writes},
    disposition::WaitReason,
    ring::Pushed,
};
use holdfast_machine::lane::{Disposal, Part};
use uuid::Uuid;

use super::Lane;
use crate::{
    dead_letter::{self, Cause},
    spans, telemetry,
    work::{Input, Item, Origin, RefusedRecord, Work},
};

impl Lane {
    /// The entries of a commit, and for each part of its plan which of them is its own.
    pub(super) fn write(&mut self, parts: Vec<Part>) -> (Vec<Entry>, Vec<Option<usize>>) {
        let mut entries = Vec::with_capacity(parts.len());
        let mut places = Vec::with_capacity(parts.len());
        for part in parts {
            let before = entries.len();
            match part {
                Part::Decided { delivery, messages, claims: [claims, if_refused] } => {
                    let Some(decided) = self.decided.get_mut(&delivery) else {
                        places.push(None);
                        continue;
                    };
                    let partition = decided.delivery.home;
                    if let Some(outcome) = decided.outcome.take() {
                        decided.entry = Some(before);
                        let condition = outcome.condition.map(|(wants, refused)| {
                            let refused = with_claims(refused.writes, if_refused);
                            Condition { wants, refused }
                        });
                        let writes = with_claims(outcome.done.writes, claims);
                        entries.push(Entry { partition, condition, writes });
                    }
                    places.push(decided.entry);
                    let mut mail = Writes::default();
                    for number in messages {
                        mail.mailbox.extend(self.bodies.get(&number).and_then(removal));
                    }
                    if !mail.mailbox.is_empty() {
                        entries.push(Entry { partition, condition: None, writes: mail });
                    }
                }
                Part::Disposed { message, disposal } => {
                    places.push(None);
                    if let Some(input) = self.bodies.remove(&message) {
                        let writes = self.dispose(&input, disposal);
                        entries.push(Entry { partition: input.partition, condition: None, writes });
                        self.bodies.insert(message, input);
                    }
                }
            }
        }
        (entries, places)
    }

    fn dispose(&mut self, input: &Input, disposal: Disposal) -> Writes {
        let mut writes = Writes::default();
        if !matches!(disposal, Disposal::Put { .. } | Disposal::Defer { .. }) {
            writes.mailbox.extend(removal(input));
        }
        match (disposal, &input.work) {
            (Disposal::Put { reason, attempts, after, error }, Work::Item(item)) => {
                self.put(&mut writes, item, reason, attempts, after, error);
            }
            (Disposal::Defer { reason, attempts, after, error }, Work::Item(item)) => {
                if let Origin::Mail { position, .. } = item.origin {
                    writes.mailbox.push(MailboxWrite::Defer { position, reason, attempts, after, error });
                }
            }
            (Disposal::PutOff { after }, Work::Item(item)) => {
                if let Origin::Timer { name, serial } = &item.origin {
                    let (id, name) = (item.aggregate.clone(), name.clone());
                    let (after, serial) = (Some(after), Some(*serial));
                    writes.timers.push(TimerWrite { id, hash: item.hash, name, after, serial });
                }
            }
            (Disposal::Dead { reason, error, attempts, is_indexed }, Work::Item(item)) => {
                let now = self.env.clock.now();
                let first_failed = match item.origin {
                    Origin::Mail { since, .. } => since,
                    _ => now,
                };
                let cause = Cause { reason, error: &error, attempts, first_failed, last_failed: now };
                if let Some(record) = item.record() {
                    self.dead(&mut writes, is_indexed.then_some(&item.aggregate), record, &cause);
                }
            }
            (Disposal::Refuse, Work::Refused(refused)) => {
                let RefusedRecord { record, refused, now, mail, .. } = &**refused;
                let (first_failed, last_failed) = (mail.as_ref().map_or(*now, |mail| mail.since), *now);
                let attempts = mail.as_ref().map_or(1, |mail| mail.attempts.max(1));
                let cause =
                    Cause { reason: refused.reason, error: &refused.error, attempts, first_failed, last_failed };
                self.dead(&mut writes, None, record, &cause);
            }
            (Disposal::Unfiled { error }, Work::Item(item)) => {
                if let Some(record) = item.record() {
                    self.unfiled(&mut writes, record, error);
                }
            }
            (Disposal::Unfiled { error }, Work::Refused(refused)) => {
                self.unfiled(&mut writes, &refused.record, format!("{}; {error}", refused.refused.error));
            }
            _ => {}
        }
        writes
    }

    /// A record that queues in the durable mailbox.
    fn put(
        &mut self,
        writes: &mut Writes,
        item: &Item,
        reason: WaitReason,
        attempts: u32,
        after: Option<Duration>,
        error: String,
    ) {
        let Some(record) = item.record().cloned() else { return };
        let context = self.env.context.name();
        if reason == WaitReason::Transferred {
            let labels = [("context", context.to_owned()), ("topic", record.topic.to_string())];
            metrics::counter!(telemetry::MISROUTED_TOTAL, &labels).increment(1);
        } else if after.is_some() {
            self.count("deferred");
        }
        metrics::counter!(telemetry::MAILBOX_PUT_TOTAL, "context" => context, "reason" => reason.as_str()).increment(1);
        writes.mailbox.push(MailboxWrite::Put {
            id: item.aggregate.clone(),
            hash: item.hash,
            reason,
            attempts,
            after,
            since: item.now,
            error,
            record,
        });
    }

    fn unfiled(&self, writes: &mut Writes, record: &Record, error: String) {
        let context = self.env.context.name();
        let row = Unfiled { id: Uuid::now_v7(), error, record: record.clone() };
        metrics::counter!(telemetry::UNFILED_TOTAL, "context" => context).increment(1);
        tracing::error!(
            context, topic = %record.topic, partition = record.partition.0, offset = record.offset, id = %row.id, row.error,
            "a record was kept in the table unfiled, since its dead letter was refused"
        );
        writes.unfiled.push(row);
    }

    fn dead(&mut self, writes: &mut Writes, id: Option<&AggregateId>, record: &Record, cause: &Cause<'_>) {
        let context = self.env.context.name();
        dead_letter::write(writes, &self.env.emit, self.env.homes.count(), id, record, cause);
        let labels = [("context", context), ("reason", cause.reason.as_str())];
        metrics::counter!(telemetry::DEAD_LETTERS_TOTAL, &labels).increment(1);
        self.count("dead_letter");
        let _span = spans::dead_letter(context, record, &self.env.emit.trace).entered();
        tracing::warn!(
            context,
            topic = %record.topic,
            partition = record.partition.0,
            offset = record.offset,
            reason = cause.reason.as_str(),
            error = cause.error,
            attempts = cause.attempts,
            "dead letter"
        );
    }
}

/// The writes of an aggregate together with what stands of its claims from then on.
fn with_claims(mut writes: Writes, claims: Pushed) -> Writes {
    if let Some(state) = &mut writes.state {
        (state.ring, state.spills, writes.pushed_out) = (claims.ring, claims.spills, claims.out);
    }
    writes
}

/// What becomes of the mailbox row of a message that is done.
fn removal(input: &Input) -> Option<MailboxWrite> {
    let position = match &input.work {
        Work::Item(item) => match item.origin {
            Origin::Mail { position, .. } => Some(position),
            _ => None,
        },
        Work::Refused(refused) => refused.mail.as_ref().map(|mail| mail.position),
        _ => None,
    };
    position.map(|position| MailboxWrite::Remove { position })
}
