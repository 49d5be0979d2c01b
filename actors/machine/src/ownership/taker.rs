//! One partition on its way from assigned to released.
//!
//! `actors/README.md` draws its phases; a test compares the drawing with what the model has seen.
//!
//! Invariants: the lease of the last owner is waited out after the epoch was raised (I4, I5); a taker that
//! begins writes a beat and then reads the row, and its lease counts from before that beat; the
//! acknowledgement comes last, since it is written, and nothing may be written to a row whose past is in
//! doubt (I10). A taker whose assignment has gone asks for no epoch any more (one that is being raised may
//! still be), and leaves a row that it has raised as it is; one whose acknowledgement is on its way waits for
//! it, and releases the row.

use std::time::Duration;

use holdfast_core::{
    PartitionId,
    epoch::{Generation, PartitionRow, Token},
    growth::Growth,
    port::store::{StoreError, Taken},
};

use super::{Action, Desk, Grant, Loss, Report, Unsound};
use crate::{Ask, Now, step::Step};

/// What a taker waits for once it has raised the epoch.
pub const THE_LEASE: &str = "the last owner's lease";

/// How often a halted context is looked at again.
const HALTED_PAUSE: Duration = Duration::from_secs(2);
/// How often a row is looked at while its release is hoped for.
const RELEASE_PAUSE: Duration = Duration::from_millis(50);
/// How long a row that was released too early is served on, where that rule is left out.
const TOO_LONG: Duration = Duration::from_secs(1);

/// What takers ask for together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// All rows.
    Rows,
    /// A beat of this node's.
    Beat,
}

/// Where a taker stands.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// The row is looked at, until it is released or there is no use in hoping for that.
    Looking(Step),
    /// The epoch is raised, if it still is the expected one.
    Raising { step: Step, row: Box<PartitionRow> },
    /// The last owner's lease is waited out.
    Waiting { until: Duration, token: Token },
    /// A beat is written: whichever taker has not heard of it finds the row taken, and one that comes later
    /// knows that this node lives.
    Beating { step: Step, token: Token, sent: Duration },
    /// The row is read as it stands now that nobody else writes it.
    Reading { step: Step, token: Token, sent: Duration },
    /// Its history is checked.
    Verifying { step: Step, token: Token, sent: Duration, row: Box<PartitionRow> },
    /// The counts as this node knows them lack its generation.
    Counting { step: Step, token: Token, sent: Duration, row: Box<PartitionRow>, known: Option<u64> },
    /// Its generation is acknowledged.
    Acknowledging { step: Step, token: Token, sent: Duration, count: u32, generation: Generation, known: Option<u64> },
    /// It is owned.
    Serving { term: u64, token: Token },
    /// It is to be released, from then on.
    Closing { term: u64, due: Duration },
    /// Its lane finishes with it.
    HandingOver { ask: Ask, term: u64, deadline: Duration },
    /// Its row is marked as released.
    Releasing { ask: Ask, term: u64, deadline: Duration },
    /// It was lost to another node, or is thought to be. It is not taken again until the group has confirmed
    /// the assignment.
    Doubted { ask: Option<Ask> },
    /// It has come to its end, and is let go of in this very turn.
    Ended,
}

impl Phase {
    /// As `actors/README.md` draws it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Looking(_) => "Looking",
            Self::Raising { .. } => "Raising",
            Self::Waiting { .. } => "Waiting",
            Self::Beating { .. } => "Beating",
            Self::Reading { .. } => "Reading",
            Self::Verifying { .. } => "Verifying",
            Self::Counting { .. } => "Counting",
            Self::Acknowledging { .. } => "Acknowledging",
            Self::Serving { .. } => "Serving",
            Self::Closing { .. } => "Closing",
            Self::HandingOver { .. } => "HandingOver",
            Self::Releasing { .. } => "Releasing",
            Self::Doubted { .. } => "Doubted",
            Self::Ended => "[*]",
        }
    }
}

/// One partition. See the module.
#[derive(Clone, Debug)]
pub(super) struct Taker {
    pub partition: PartitionId,
    pub phase: Phase,
    /// Until when the last owner's release is hoped for.
    pub patience: Duration,
    /// The last look found the context halted.
    is_halted: bool,
}

impl Taker {
    pub fn new(partition: PartitionId, now: Now, patience: Duration) -> Self {
        #[cfg(test)]
        super::edges::note("[*]", "Looking");
        Self { partition, phase: Phase::Looking(Step::due(now.awake)), patience, is_halted: false }
    }

    /// The one place where the phase changes.
    fn go(&mut self, phase: Phase) {
        #[cfg(test)]
        super::edges::note(self.phase.name(), phase.name());
        self.phase = phase;
    }

    /// The partition and its term, if it is owned.
    pub fn serving(&self) -> Option<(PartitionId, u64)> {
        match self.phase {
            Phase::Serving { term, .. } => Some((self.partition, term)),
            _ => None,
        }
    }

    pub const fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// The group has spoken: doubt is over.
    pub fn group_has_spoken(&mut self) {
        if matches!(self.phase, Phase::Doubted { .. }) {
            self.go(Phase::Ended);
        }
    }

    /// What it asks for together with others, if it has not.
    pub const fn wants(&self) -> Option<Wants> {
        match &self.phase {
            Phase::Looking(step) | Phase::Reading { step, .. } if step.ask.is_none() => Some(Wants::Rows),
            Phase::Beating { step, .. } if step.ask.is_none() => Some(Wants::Beat),
            _ => None,
        }
    }

    /// Whether it is time to ask for that.
    pub fn wants_now(&self, what: Wants, now: Now) -> bool {
        self.wants() == Some(what) && self.due().is_some_and(|due| due <= now.awake)
    }

    /// Waits for what was just asked for.
    pub fn join(&mut self, of: Ask, now: Now) {
        match &mut self.phase {
            Phase::Looking(step) | Phase::Reading { step, .. } => step.ask = Some(of),
            Phase::Beating { step, sent, .. } => {
                *sent = now.boot; // before anything is sent: the lease counts from here
                step.ask = Some(of);
            }
            _ => {}
        }
    }

    /// What it waits for, if it does not serve yet.
    pub const fn waits_for(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Looking(_) if self.is_halted => Some("an operator: the context is halted"),
            Phase::Waiting { .. } => Some(THE_LEASE),
            Phase::Verifying { .. } => Some("the partition's history"),
            Phase::Counting { .. } => Some("the counts of its generation"),
            Phase::Looking(_)
            | Phase::Raising { .. }
            | Phase::Beating { .. }
            | Phase::Reading { .. }
            | Phase::Acknowledging { .. } => Some("the database"),
            Phase::Serving { .. }
            | Phase::Closing { .. }
            | Phase::HandingOver { .. }
            | Phase::Releasing { .. }
            | Phase::Doubted { .. }
            | Phase::Ended => None,
        }
    }

    /// When it wants to be woken.
    pub fn due(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Looking(step)
            | Phase::Raising { step, .. }
            | Phase::Beating { step, .. }
            | Phase::Reading { step, .. }
            | Phase::Verifying { step, .. }
            | Phase::Acknowledging { step, .. } => step.ask.is_none().then_some(step.due),
            Phase::Waiting { until: due, .. }
            | Phase::Closing { due, .. }
            | Phase::HandingOver { deadline: due, .. }
            | Phase::Releasing { deadline: due, .. } => Some(*due),
            Phase::Counting { .. } | Phase::Serving { .. } | Phase::Doubted { .. } | Phase::Ended => None,
        }
    }

    /// Begins whatever is due, but for what it asks for together with others.
    pub fn proceed(&mut self, growth: &Growth, desk: &mut Desk, now: Now, actions: &mut Vec<Action>) {
        let partition = self.partition;
        if let Phase::Waiting { until, token } = self.phase
            && until <= now.awake
        {
            self.begin(Step::due(now.awake), token, now);
        }
        if let Phase::Beating { step, token, .. } = self.phase
            && !desk.settings.rules.beats_before_beginning
            && step.is_due(now)
        {
            self.go(Phase::Reading { step, token, sent: now.boot });
        }
        if let Phase::Counting { step, token, sent, row, known } = &self.phase {
            let (step, generation) = (step.next(now), row.generation);
            let (token, sent, known) = (*token, *sent, *known);
            match growth.count_of(generation) {
                Some(count) => self.go(Phase::Acknowledging { step, token, sent, count, generation, known }),
                None => actions.push(Action::HurryCounts),
            }
        }
        match &mut self.phase {
            Phase::Raising { step, row } if step.is_due(now) => {
                let ask = step.begin(&mut desk.asks);
                actions.push(Action::Raise { ask, partition, expected: row.epoch });
            }
            Phase::Verifying { step, row, .. } if step.is_due(now) => {
                let ask = step.begin(&mut desk.asks);
                actions.push(Action::Verify { ask, row: row.clone() });
            }
            Phase::Acknowledging { step, token, count, generation, .. } if step.is_due(now) => {
                let ask = step.begin(&mut desk.asks);
                let (token, generation, count) = (*token, *generation, *count);
                actions.push(Action::Acknowledge { ask, partition, token, generation, count: Some(count) });
            }
            Phase::Closing { term, due } if *due <= now.awake => {
                let (ask, term) = (desk.asks.next(), *term);
                actions.push(Action::Close { partition, term });
                actions.push(Action::HandOver { ask, partition, term });
                self.go(Phase::HandingOver { ask, term, deadline: now.awake + desk.settings.drain });
            }
            Phase::HandingOver { term, deadline, .. } | Phase::Releasing { term, deadline, .. }
                if *deadline <= now.awake =>
            {
                let term = *term;
                self.end_unreleased(term, actions);
            }
            _ => {}
        }
    }

    /// The assignment has gone: the taker ends, but one that has begun to serve releases the partition first.
    pub fn unassigned(&mut self, desk: &mut Desk, now: Now, actions: &mut Vec<Action>) {
        let partition = self.partition;
        match self.phase {
            Phase::Serving { term, token } => {
                let mut due = now.awake;
                if !desk.settings.rules.ends_lease_before_releasing {
                    actions.push(Action::Release { ask: desk.asks.next(), partition, token });
                    due += TOO_LONG;
                }
                self.go(Phase::Closing { term, due });
            }
            // An acknowledgement may be written by now, and the row say that its owner serves. The answer is
            // waited for, and the row released.
            Phase::Acknowledging { .. }
            | Phase::Closing { .. }
            | Phase::HandingOver { .. }
            | Phase::Releasing { .. }
            | Phase::Ended => {}
            Phase::Waiting { token, .. }
            | Phase::Beating { token, .. }
            | Phase::Reading { token, .. }
            | Phase::Verifying { token, .. }
            | Phase::Counting { token, .. } => {
                if !desk.settings.rules.gives_up_silently {
                    actions.push(Action::Release { ask: desk.asks.next(), partition, token });
                }
                self.go(Phase::Ended);
            }
            Phase::Looking(_) | Phase::Raising { .. } | Phase::Doubted { .. } => self.go(Phase::Ended),
        }
    }

    /// The rows were read.
    pub fn rows_read(
        &mut self,
        ask: Ask,
        rows: Result<&[PartitionRow], &StoreError>,
        desk: &Desk,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        match &self.phase {
            Phase::Looking(step) if step.ask == Some(ask) => self.looked(*step, rows, desk, now, actions),
            Phase::Reading { step, token, sent } if step.ask == Some(ask) => {
                self.row_read(*step, *token, *sent, rows, now, actions);
            }
            _ => {}
        }
    }

    fn looked(
        &mut self,
        step: Step,
        rows: Result<&[PartitionRow], &StoreError>,
        desk: &Desk,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let row = match rows {
            Ok(rows) => rows.iter().find(|row| row.partition == self.partition),
            Err(error) => {
                actions.push(Action::Report(Report::Waits(self.partition, error.to_string())));
                self.go(Phase::Looking(step.after_failure(self.partition, now)));
                return;
            }
        };
        let Some(row) = row else {
            actions.push(Action::Report(Report::NoRow(self.partition)));
            self.go(Phase::Looking(step.after_failure(self.partition, now)));
            return;
        };
        self.is_halted = row.halted.is_some();
        if let Some(halt) = &row.halted {
            actions.push(Action::Report(Report::Halted(self.partition, halt.clone())));
            self.go(Phase::Looking(step.at(now.awake + HALTED_PAUSE)));
            return;
        }
        // The last owner may be about to release it: that is quicker than waiting out its lease, but for one
        // that is dead.
        let is_silent = row.has_begun && desk.beats.silence(&row.address) >= desk.lease();
        if !row.released && !is_silent && now.awake < self.patience {
            self.go(Phase::Looking(step.at(now.awake + RELEASE_PAUSE)));
            return;
        }
        let waits_first = !desk.settings.rules.raises_before_waiting && !row.released;
        let due = now.awake + if waits_first { desk.lease() } else { Duration::ZERO };
        self.go(Phase::Raising { step: step.at(due), row: Box::new(row.clone()) });
    }

    /// The epoch was raised, or not.
    pub fn raised(
        &mut self,
        ask: Ask,
        token: Token,
        taken: Result<&Option<Taken>, &StoreError>,
        desk: &mut Desk,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Phase::Raising { step, row } = &self.phase else { return };
        if step.ask != Some(ask) {
            return;
        }
        let rules = desk.settings.rules;
        let phase = match taken {
            Ok(Some(Taken { row: taken, beat })) => {
                if !rules.acknowledges_when_begun {
                    let (ask, generation) = (desk.asks.next(), taken.generation);
                    let partition = self.partition;
                    actions.push(Action::Acknowledge { ask, partition, token, generation, count: None });
                }
                let until = if taken.released || !rules.raises_before_waiting {
                    now.awake
                } else {
                    // Until every lease that an earlier owner may hold is over.
                    let silence = beat.map_or(Duration::ZERO, |beat| {
                        let heard = desk.beats.last(&row.address).filter(|_| !rules.asks_for_last_beat);
                        desk.beats.silence_since(&row.address, heard.unwrap_or(beat), now.awake)
                    });
                    now.awake + desk.lease().saturating_sub(silence)
                };
                Phase::Waiting { until, token }
            }
            Ok(None) => Phase::Doubted { ask: None },
            Err(error) => {
                actions.push(Action::Report(Report::Waits(self.partition, error.to_string())));
                Phase::Looking(step.after_failure(self.partition, now))
            }
        };
        self.go(phase);
    }

    /// Begins to serve, from the beat on.
    fn begin(&mut self, step: Step, token: Token, now: Now) {
        self.go(Phase::Beating { step, token, sent: now.boot });
    }

    /// Begins again after a failure.
    fn held(&mut self, step: Step, token: Token, error: String, now: Now, actions: &mut Vec<Action>) {
        actions.push(Action::Report(Report::Waits(self.partition, error)));
        self.begin(step.after_failure(self.partition, now), token, now);
    }

    /// A beat was written, or not.
    pub fn beaten(&mut self, ask: Ask, error: Option<&StoreError>, now: Now, actions: &mut Vec<Action>) {
        let Phase::Beating { step, token, sent } = self.phase else { return };
        if step.ask != Some(ask) {
            return;
        }
        match error {
            None => self.go(Phase::Reading { step: step.next(now), token, sent }),
            Some(error) => self.held(step, token, error.to_string(), now, actions),
        }
    }

    /// The rows were read after the beat.
    fn row_read(
        &mut self,
        step: Step,
        token: Token,
        sent: Duration,
        rows: Result<&[PartitionRow], &StoreError>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        match rows {
            Ok(rows) => {
                let is_it = |row: &&PartitionRow| row.partition == self.partition && row.token == Some(token);
                let phase = match rows.iter().find(is_it) {
                    Some(row) => {
                        let step = step.next(now);
                        Phase::Verifying { step, token, sent, row: Box::new(row.clone()) }
                    }
                    None => Phase::Doubted { ask: None },
                };
                self.go(phase);
            }
            Err(error) => self.held(step, token, error.to_string(), now, actions),
        }
    }

    /// The history was checked.
    pub fn verified(&mut self, ask: Ask, known: &Result<Option<u64>, Unsound>, now: Now, actions: &mut Vec<Action>) {
        let Phase::Verifying { step, token, sent, row } = &self.phase else { return };
        if step.ask != Some(ask) {
            return;
        }
        let (step, token, sent) = (*step, *token, *sent);
        match known {
            Ok(known) => {
                self.go(Phase::Counting { step, token, sent, row: row.clone(), known: *known });
            }
            Err(Unsound::Halted) => self.go(Phase::Doubted { ask: None }),
            Err(Unsound::Away(error)) => self.held(step, token, error.clone(), now, actions),
        }
    }

    /// The generation was acknowledged, or not.
    pub fn acknowledged(
        &mut self,
        ask: Ask,
        row: Result<&Option<PartitionRow>, &StoreError>,
        desk: &mut Desk,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Phase::Acknowledging { step, token, sent, count, known, .. } = self.phase else { return };
        if step.ask != Some(ask) {
            return;
        }
        match row {
            Ok(Some(row)) => {
                desk.terms += 1;
                let (term, row) = (desk.terms, row.clone());
                let lease = if desk.settings.rules.checks_lease { desk.settings.lease } else { Duration::MAX / 2 };
                let lease_until = sent + lease;
                actions.push(Action::Serve(Box::new(Grant { row, term, count, token, known, lease_until })));
                self.go(Phase::Serving { term, token });
            }
            // Another generation meanwhile, or another owner: the row says which.
            Ok(None) => self.begin(step.next(now), token, now),
            Err(error) => self.held(step, token, error.to_string(), now, actions),
        }
    }

    /// The lease of an ownership was renewed.
    pub fn renewed(&self, of: u64, until: Duration, actions: &mut Vec<Action>) {
        if let Phase::Serving { term, .. } = self.phase
            && term == of
        {
            actions.push(Action::Renew { partition: self.partition, term, until });
        }
    }

    /// An ownership has ended without an order.
    pub fn lost(&mut self, of: u64, cause: Loss, actions: &mut Vec<Action>) {
        if let Phase::Serving { term, .. } = self.phase
            && term == of
        {
            let partition = self.partition;
            actions.push(Action::Close { partition, term });
            actions.push(Action::Drop { partition, term });
            actions.push(Action::Report(Report::Lost(partition, cause)));
            self.go(Phase::Doubted { ask: None });
        }
    }

    /// Asks the group about the partition, if that is in doubt.
    pub fn confirm(&mut self, asked: PartitionId, desk: &mut Desk, actions: &mut Vec<Action>) {
        if let Phase::Doubted { ask: open @ None } = &mut self.phase {
            let ask = desk.asks.next();
            *open = Some(ask);
            actions.push(Action::Confirm { ask, partition: asked });
        }
    }

    /// The group has answered.
    pub fn confirmed(&mut self, of: Ask, is_confirmed: bool) {
        if let Phase::Doubted { ask } = self.phase
            && ask == Some(of)
        {
            self.go(if is_confirmed { Phase::Ended } else { Phase::Doubted { ask: None } });
        }
    }

    /// The lane has finished with the partition, or could not.
    pub fn handed_over(&mut self, of: Ask, token: Option<Token>, desk: &mut Desk, actions: &mut Vec<Action>) {
        let Phase::HandingOver { ask, term, deadline } = self.phase else { return };
        if ask != of {
            return;
        }
        let Some(token) = token else { return self.end_unreleased(term, actions) };
        let ask = desk.asks.next();
        actions.push(Action::Release { ask, partition: self.partition, token });
        self.go(Phase::Releasing { ask, term, deadline });
    }

    /// The row was marked as released, or not.
    pub fn released(&mut self, of: Ask, is_released: bool, actions: &mut Vec<Action>) {
        let Phase::Releasing { ask, term, .. } = self.phase else { return };
        if ask != of {
            return;
        }
        if !is_released {
            return self.end_unreleased(term, actions);
        }
        actions.push(Action::Report(Report::Released(self.partition)));
        self.go(Phase::Ended);
    }

    fn end_unreleased(&mut self, term: u64, actions: &mut Vec<Action>) {
        let partition = self.partition;
        actions.extend([Action::Drop { partition, term }, Action::Report(Report::NotReleased(partition))]);
        self.go(Phase::Ended);
    }
}
