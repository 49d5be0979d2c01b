//! Where the records of one partition wait, while counts grow, for whatever may have been sent before them.
//!
//! Invariant (I3, see [`holdfast_core::growth`]): a record passes once every partition in which an older one
//! of the same producer and key can lie has committed past the end that it had *after* this record was there,
//! and once the keys at home here are served. So the end of the record's own partition is read first, and
//! then the others': what lies below the former was sent before the latter were read. A gate that is open
//! stays open: what makes a partition wait is older than the partition. Deliberately absent: the records, of
//! which one at a time waits, outside of every budget.

#[cfg(test)]
mod model;

use std::{sync::Arc, time::Duration};

use holdfast_core::{PartitionId, growth::Growth, port::log::LogError};

use crate::{Ask, Asks, Now, Rules, step::Step};

/// How long a measurement is drawn out, where the rule about its order is left out.
const TOO_LONG: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The record at this offset was read.
    Read(u64),
    /// The counts were read.
    Counted {
        /// All that is known of them.
        growth: Arc<Growth>,
        /// Whether the keys at home in the gate's partition are served.
        is_serving: bool,
    },
    /// End offsets were read, in the order in which they were asked for.
    Measured {
        /// Which question.
        ask: Ask,
        /// The ends.
        ends: Result<Vec<u64>, LogError>,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Read the end offsets of these partitions of the topic.
    Measure {
        /// For [`Input::Measured`].
        ask: Ask,
        /// Which partitions.
        partitions: Vec<PartitionId>,
    },
    /// Read the counts soon: a record waits for them.
    HurryCounts,
    /// Let the record that was read last go on.
    Pass,
    /// Tell people that end offsets could not be read, and that the record waits.
    Report(LogError),
}

/// What the record waits for.
#[derive(Clone, Debug)]
enum Phase {
    /// The partition's place in the counts: one that was never heard of has come with a transition that was
    /// never heard of.
    Counting,
    /// End offsets: of its own partition, and of those where older records may lie.
    Measuring { step: Step, ancestors: Vec<PartitionId>, own: Option<u64>, others: Option<Vec<u64>> },
    /// That all that lies below these ends is committed.
    Waiting { own: u64, ends: Vec<(PartitionId, u64)> },
    /// That the keys at home here are served.
    Serving,
}

/// The machine. See the module.
#[derive(Clone, Debug)]
pub struct Machine {
    topic: Arc<str>,
    partition: PartitionId,
    rules: Rules,
    asks: Asks,
    growth: Arc<Growth>,
    is_serving: bool,
    /// Records below this offset have waited.
    open_below: u64,
    /// The record that waits, and for what.
    waiting: Option<(u64, Phase)>,
}

impl Machine {
    /// A gate before the partition's first record.
    pub fn new(topic: Arc<str>, partition: PartitionId, rules: Rules) -> Self {
        Self {
            topic,
            partition,
            rules,
            asks: Asks::default(),
            growth: Arc::default(),
            is_serving: false,
            open_below: 0,
            waiting: None,
        }
    }

    /// Whether the record at `offset` has waited for those before it.
    pub const fn is_open(&self, offset: u64) -> bool {
        offset < self.open_below
    }

    /// What the record waits for that was read last.
    pub const fn state(&self) -> &'static str {
        match &self.waiting {
            None => "Passed",
            Some((_, Phase::Counting)) => "Counting",
            Some((_, Phase::Measuring { .. })) => "Measuring",
            Some((_, Phase::Waiting { .. })) => "Waiting",
            Some((_, Phase::Serving)) => "Serving",
        }
    }

    /// When the machine wants an [`Input::Tick`], by the clock that is awake; `None` if it waits for answers
    /// or counts alone.
    pub const fn due(&self) -> Option<Duration> {
        match &self.waiting {
            Some((_, Phase::Measuring { step, .. })) if step.ask.is_none() => Some(step.due),
            _ => None,
        }
    }

    /// Takes in what happened, and adds what is to be done about it to `actions`, in order.
    pub fn handle(&mut self, input: Input, now: Now, actions: &mut Vec<Action>) {
        match input {
            Input::Read(offset) => {
                let phase = if self.is_open(offset) { Phase::Serving } else { Phase::Counting };
                self.waiting = Some((offset, phase));
            }
            Input::Counted { growth, is_serving } => (self.growth, self.is_serving) = (growth, is_serving),
            Input::Measured { ask, ends } => self.measured(ask, ends, now, actions),
            Input::Tick => {}
        }
        self.proceed(now, actions);
    }

    fn measured(&mut self, of: Ask, ends: Result<Vec<u64>, LogError>, now: Now, actions: &mut Vec<Action>) {
        let Some((_, Phase::Measuring { step, own, others, .. })) = &mut self.waiting else { return };
        if step.ask != Some(of) {
            return;
        }
        match ends {
            Ok(ends) => {
                *step = step.next(now);
                if asks_own(self.rules, *own, others.as_ref()) {
                    *own = Some(ends.first().copied().unwrap_or(0));
                } else {
                    *others = Some(ends);
                    if own.is_none() {
                        step.due += TOO_LONG;
                    }
                }
            }
            Err(error) => {
                *step = step.after_failure(self.partition, now);
                // All ends are read again: more records may have been sent in between.
                (*own, *others) = (None, None);
                actions.push(Action::Report(error));
            }
        }
    }

    fn proceed(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Some((offset, mut phase)) = self.waiting.take() else { return };
        if let Phase::Counting = phase
            && self.growth.topic_count(&self.topic) > self.partition.0
        {
            let ancestors = self.ancestors();
            if ancestors.is_empty() {
                self.open_below = u64::MAX;
                phase = Phase::Serving;
            } else {
                phase = Phase::Measuring { step: Step::due(now.awake), ancestors, own: None, others: None };
            }
        }
        if let Phase::Measuring { ancestors, own: Some(own), others: Some(ends), .. } = phase {
            phase = Phase::Waiting { own, ends: ancestors.into_iter().zip(ends).collect() };
        }
        if let Phase::Waiting { own, ends } = &phase
            && self.growth.is_past(&self.topic, ends)
        {
            self.open_below = (*own).max(offset + 1);
            phase = Phase::Serving;
        }
        match &mut phase {
            Phase::Serving if self.is_serving => return actions.push(Action::Pass),
            Phase::Measuring { step, ancestors, own, others } if step.is_due(now) => {
                let is_own = asks_own(self.rules, *own, others.as_ref());
                let partitions = if is_own { vec![self.partition] } else { ancestors.clone() };
                let ask = step.begin(&mut self.asks);
                actions.push(Action::Measure { ask, partitions });
            }
            Phase::Measuring { .. } => {}
            Phase::Counting | Phase::Waiting { .. } | Phase::Serving => actions.push(Action::HurryCounts),
        }
        self.waiting = Some((offset, phase));
    }

    fn ancestors(&self) -> Vec<PartitionId> {
        let all = self.growth.ancestors(&self.topic, self.partition);
        if !self.rules.waits_for_ancestors {
            return Vec::new();
        }
        if !self.rules.waits_for_all_ancestors {
            // The parent is the highest: counts are multiples.
            return all.into_iter().next_back().into_iter().collect();
        }
        all
    }
}

/// Whether the end of the record's own partition is asked for next: first, unless that rule is left out.
const fn asks_own(rules: Rules, own: Option<u64>, others: Option<&Vec<u64>>) -> bool {
    own.is_none() && (others.is_some() || rules.measures_ends_after_fetch)
}
