//! A settled batch as rows, sorted by what they do.
//!
//! Pure. Checks here what Postgres could only answer with a wrong number: `u64` beyond `bigint`, a view
//! nobody defined. Deliberately absent: SQL, and copies of what the batch holds.

use std::{collections::HashMap, time::Duration};

use holdfast_core::{
    batch::{
        Batch, DeadLetter, EffectWrite, Fence, Intent, MailboxWrite, OutboxRow, Settled, StateWrite, TimerWrite,
        Unfiled, ViewWrite,
    },
    dedup::Claim,
    port::store::CommitError,
};

use crate::{
    config::View,
    error,
    format::Parts,
    segment::{self, Segment},
};

/// All rows of one commit.
#[derive(Default)]
pub(crate) struct Rows<'a> {
    pub(crate) fences: Vec<FenceRow<'a>>,
    /// Whether the schema's format has rings.
    pub(crate) has_rings: bool,
    pub(crate) updates: Vec<&'a StateWrite>,
    /// States that may have no row yet.
    pub(crate) inserts: Vec<&'a StateWrite>,
    /// Those of them that have only refused.
    pub(crate) unborn: Vec<&'a StateWrite>,
    /// Records that are rows of their own.
    pub(crate) outbox: &'a [OutboxRow],
    /// The records instead, where the schema's format has segments.
    pub(crate) segments: Vec<Segment>,
    pub(crate) claims: Vec<&'a Claim>,
    pub(crate) timers_set: Vec<(&'a TimerWrite, i64)>,
    pub(crate) timers_unset: Vec<&'a TimerWrite>,
    /// With the setting that is meant, and for how long.
    pub(crate) timers_put_off: Vec<(&'a TimerWrite, i64, i64)>,
    pub(crate) effects_set: Vec<(&'a EffectWrite, &'a Intent)>,
    pub(crate) effects_unset: Vec<&'a EffectWrite>,
    pub(crate) mailbox: Vec<&'a MailboxWrite>,
    pub(crate) dead_letters: Vec<&'a DeadLetter>,
    pub(crate) unfiled: Vec<&'a Unfiled>,
    /// As many as there are views, each with its rows.
    pub(crate) views: Vec<Vec<&'a ViewWrite>>,
    pub(crate) pools: Vec<(&'a str, i64, i64)>,
}

/// A fence whose condition must hold, and what it advances.
pub(crate) struct FenceRow<'a> {
    pub(crate) fence: &'a Fence,
    pub(crate) head: u64,
}

impl<'a> Rows<'a> {
    /// Sorts what `settled` makes of `batch`.
    pub(crate) fn of(
        batch: &'a Batch,
        settled: &'a Settled<'a>,
        views: &[View],
        format: Parts,
    ) -> Result<Self, CommitError> {
        let Parts { has_segments, has_rings } = format;
        let mut rows = Self {
            has_rings,
            outbox: if has_segments { &[] } else { &settled.outbox },
            segments: if has_segments { segment::cut(&settled.outbox) } else { Vec::new() },
            views: vec![Vec::new(); views.len()],
            pools: settled.pools.iter().map(|(name, pool)| (name.as_str(), pool.total, pool.held)).collect(),
            ..Self::default()
        };
        for fence in &batch.fences {
            if let Some(head) = settled.heads.get(&fence.partition) {
                check_fence(fence, *head)?;
                rows.fences.push(FenceRow { fence, head: *head });
            }
        }
        let (mut timers, mut effects) = (HashMap::<_, Vec<_>>::new(), HashMap::new());
        for (_, writes) in &settled.writes {
            if let Some(state) = &writes.state {
                within("version", state.version)?;
                if state.expected > 0 {
                    rows.updates.push(state);
                } else if has_rings || state.version > 0 || !state.sources.is_empty() {
                    let is_refusal = state.version == 0 && state.sources.is_empty();
                    rows.unborn.extend(is_refusal.then_some(state));
                    rows.inserts.push(state);
                }
                // Else it is a row of version 0, of which builds of earlier formats know nothing.
            }
            rows.claims.extend(if has_rings { &writes.pushed_out } else { &writes.claims });
            // A statement touches a row once, so the last change of a timer, and of an effect, wins here.
            for timer in &writes.timers {
                change(timers.entry((&timer.id, timer.name.as_str())).or_default(), timer);
            }
            effects.extend(writes.effects.iter().map(|effect| ((&effect.id, effect.name.as_str()), effect)));
            rows.mailbox.extend(&writes.mailbox);
            rows.dead_letters.extend(&writes.dead_letters);
            rows.unfiled.extend(&writes.unfiled);
            if let Some(view) = &writes.view {
                let at = views.iter().position(|known| known.kind == view.id.kind);
                let at = at.ok_or_else(|| CommitError::Data {
                    sqlstate: "22000".into(),
                    message: format!("no view is defined for kind {}", view.id.kind),
                })?;
                rows.views[at].push(view);
            }
        }
        for timer in timers.into_values().flatten() {
            match (timer.after, timer.serial) {
                (Some(after), None) => rows.timers_set.push((timer, ms(after))),
                (Some(after), Some(serial)) => rows.timers_put_off.push((timer, serial, ms(after))),
                (None, _) => rows.timers_unset.push(timer),
            }
        }
        for effect in effects.into_values() {
            match &effect.intent {
                Some(intent) => rows.effects_set.push((effect, intent)),
                None => rows.effects_unset.push(effect),
            }
        }
        rows.check_mailbox()?;
        Ok(rows)
    }

    fn check_mailbox(&self) -> Result<(), CommitError> {
        for change in &self.mailbox {
            if let MailboxWrite::Put { record, .. } = change {
                within("offset", record.offset)?;
            }
        }
        self.dead_letters.iter().try_for_each(|letter| within("offset", letter.offset))
    }
}

/// Adds `next` to the changes of one timer, so that what is left is what they come to one after the other, at
/// most one for each setting: a new setting or a cancellation voids all before it, and what follows it for an
/// older setting is void; a setting that is removed can't be put off.
fn change<'a>(changes: &mut Vec<&'a TimerWrite>, next: &'a TimerWrite) {
    if next.serial.is_none() {
        changes.clear();
    } else if changes
        .iter()
        .any(|change| change.serial.is_none() || (change.serial == next.serial && change.after.is_none()))
    {
        return;
    } else {
        changes.retain(|change| change.serial != next.serial);
    }
    changes.push(next);
}

fn check_fence(fence: &Fence, head: u64) -> Result<(), CommitError> {
    within("batch", fence.number)?;
    within("outbox head", head)?;
    within("outbox cursor", fence.cursor.unwrap_or(0))?;
    fence.consumed.iter().try_for_each(|(_, next)| within("offset", *next))
}

fn within(what: &str, value: u64) -> Result<(), CommitError> {
    if i64::try_from(value).is_ok() { Ok(()) } else { Err(error::too_large(what, value)) }
}

/// Whole milliseconds, at least as long as `duration`; 10,000 years at most, which Postgres can still add to
/// now.
pub(crate) fn ms(duration: Duration) -> i64 {
    const MOST: i64 = 10_000 * 365 * 86_400_000;
    let ms = duration.as_nanos().div_ceil(1_000_000);
    i64::try_from(ms).unwrap_or(MOST).min(MOST)
}
