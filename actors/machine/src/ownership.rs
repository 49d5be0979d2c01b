//! Which partitions a node owns: take-over, lease, loss and release.
//!
//! The group says which partitions are the node's to take; only the row in the store makes the node their
//! owner (I4). Each assigned partition has a [`taker`] that goes from its first look at the row to the row's
//! release; this file holds what takers share: the group's assignment, the counts, the reading of rows, the
//! renewal of leases, the confirmations. After each input whatever is assigned and has no taker gets one, so
//! the order in which assignments, losses and answers come in does not matter. Invariants: the epoch is
//! raised before the last owner's lease is waited out, and the lease ends before anything of a release
//! follows (I5); a partition lost to a fence is taken again only once the group has confirmed the assignment,
//! or two nodes would take it from each other without end. Deliberately absent: supervisors, readers and the
//! router, which the shell begins and ends on the machine's actions.

mod beats;
#[cfg(test)]
mod edges;
mod interface;
#[cfg(test)]
mod model;
mod taker;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_core::{
    PartitionId,
    epoch::{Beat, PartitionRow},
    growth::Growth,
    port::store::StoreError,
};
use uuid::Uuid;

use self::{
    beats::Beats,
    taker::{Taker, Wants},
};
pub use self::{
    interface::{Action, Grant, Input, Loss, Report, Unsound},
    taker::THE_LEASE,
};
use crate::{Ask, Asks, Now, Rules};

/// What an ownership machine is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where other nodes can call this one.
    pub address: String,
    /// Drawn at random for this run of the node.
    pub run: Uuid,
    /// The topic whose partitions the group assigns.
    pub commands_topic: Arc<str>,
    /// How long after a renewal this node may answer strong reads.
    pub lease: Duration,
    /// What a taker adds to the lease that it waits out, for clocks that drift.
    pub drift: Duration,
    /// How often leases are renewed.
    pub renew_every: Duration,
    /// How long a taker hopes for the last owner's release before it takes the partition without.
    pub release_grace: Duration,
    /// How long a release may take.
    pub drain: Duration,
    /// Which rules are kept.
    pub rules: Rules,
}

/// How far the renewal of leases is.
#[derive(Clone, Debug)]
enum Renewal {
    /// The next one is due then.
    Idle { due: Duration },
    /// A beat is written. The leases will count from `sent`.
    Beating { ask: Ask, sent: Duration, due: Duration },
    /// The rows are looked at.
    Looking { ask: Ask, sent: Duration, due: Duration, owned: Vec<(PartitionId, u64)> },
}

/// The machine. See the module.
#[derive(Clone, Debug)]
pub struct Machine {
    group: BTreeSet<PartitionId>,
    growth: Arc<Growth>,
    takers: BTreeMap<PartitionId, Taker>,
    /// The reading of rows that takers share, if one is under way, and the beat. A taker that comes while one
    /// is waits for the next, since what it asks for has to begin after it came. So one that hangs delays all
    /// takers of the node, for the store's own patience at most.
    reading: Option<Ask>,
    beating: Option<Ask>,
    renewal: Renewal,
    is_stopping: bool,
    has_left: bool,
    desk: Desk,
}

/// What takers share and write to.
#[derive(Clone, Debug)]
struct Desk {
    settings: Arc<Settings>,
    asks: Asks,
    terms: u64,
    beats: Beats,
    beats_written: u64,
    /// Asks from this one on were made after the store had answered a beat of this run.
    known_from: Option<Ask>,
}

impl Desk {
    fn beat(&mut self, actions: &mut Vec<Action>) -> Ask {
        let ask = self.asks.next();
        let beat = Beat { run: self.settings.run, count: self.beats_written };
        self.beats_written += 1;
        actions.push(Action::Beat { ask, beat });
        ask
    }

    /// How long after its renewal an owner may still answer, by this node's clock.
    fn lease(&self) -> Duration {
        self.settings.lease + self.settings.drift
    }
}

impl Machine {
    /// A machine that owns nothing.
    pub fn new(settings: Settings, growth: Arc<Growth>) -> Self {
        let desk = Desk {
            settings: Arc::new(settings),
            asks: Asks::default(),
            terms: 0,
            beats: Beats::default(),
            beats_written: 0,
            known_from: None,
        };
        Self {
            group: BTreeSet::new(),
            growth,
            takers: BTreeMap::new(),
            reading: None,
            beating: None,
            renewal: Renewal::Idle { due: Duration::ZERO },
            is_stopping: false,
            has_left: false,
            desk,
        }
    }

    /// Takes in what happened, and adds what is to be done about it to `actions`, in order.
    pub fn handle(&mut self, input: Input, now: Now, actions: &mut Vec<Action>) {
        match input {
            Input::Assigned(group) => {
                // The group has spoken since whatever was lost.
                self.takers.values_mut().for_each(Taker::group_has_spoken);
                self.group = group;
            }
            Input::Counted(growth) => self.growth = growth,
            Input::RowsRead { ask, rows } => self.rows_read(ask, rows.as_deref(), now, actions),
            Input::Beaten { ask, said } => self.beaten(ask, said, now, actions),
            Input::Looked { ask, ours } => self.looked(ask, ours, now, actions),
            Input::Lost { partition, term, cause } => self.lost(partition, term, cause, actions),
            Input::Stop => self.is_stopping = true,
            Input::Tick => {}
            Input::Raised { ask, token, taken } => {
                self.each(|taker, desk| taker.raised(ask, token, taken.as_ref(), desk, now, actions));
            }
            Input::Verified { ask, known } => self.each(|taker, _| taker.verified(ask, &known, now, actions)),
            Input::Acknowledged { ask, row } => {
                self.each(|taker, desk| taker.acknowledged(ask, row.as_ref(), desk, now, actions));
            }
            Input::HandedOver { ask, token } => self.each(|taker, desk| taker.handed_over(ask, token, desk, actions)),
            Input::Confirmed { ask, is_confirmed } => self.each(|taker, _| taker.confirmed(ask, is_confirmed)),
            Input::Released { ask, is_released } => self.each(|taker, _| taker.released(ask, is_released, actions)),
        }
        self.reconcile(now, actions);
        self.begin_what_takers_share(now, actions);
    }

    /// When the machine wants a [`Input::Tick`], by the clock that is awake; `None` if it waits for answers
    /// alone.
    pub fn due(&self) -> Option<Duration> {
        let renewal = match self.renewal {
            Renewal::Idle { due } if !self.is_stopping => Some(due),
            _ => None,
        };
        let is_busy = |wants| match wants {
            Wants::Rows => self.reading.is_some(),
            Wants::Beat => self.beating.is_some(),
        };
        let of_takers = self.takers.values().filter(|taker| !taker.wants().is_some_and(is_busy)).filter_map(Taker::due);
        of_takers.chain(renewal).min()
    }

    /// Whether everything is released and the group is left.
    pub const fn has_left(&self) -> bool {
        self.has_left
    }

    /// How many partitions are owned.
    pub fn owned(&self) -> usize {
        self.takers.values().filter(|taker| taker.serving().is_some()).count()
    }

    /// What each taker that does not serve yet waits for.
    pub fn waits(&self) -> impl Iterator<Item = (PartitionId, &'static str)> {
        self.takers.values().filter_map(|taker| Some((taker.partition, taker.waits_for()?)))
    }

    /// The phase of each taker, as `actors/README.md` draws it.
    pub fn phases(&self) -> impl Iterator<Item = (PartitionId, &'static str)> {
        self.takers.values().map(|taker| (taker.partition, taker.phase.name()))
    }

    fn each(&mut self, mut hear: impl FnMut(&mut Taker, &mut Desk)) {
        for taker in self.takers.values_mut() {
            hear(taker, &mut self.desk);
        }
    }

    /// A partition beyond the commands topic's count has records all the same, if another input topic is
    /// larger; the group knows nothing of it. It belongs to the owner of the partition that its number comes
    /// to among the commands topic's.
    fn assigned(&self) -> BTreeSet<PartitionId> {
        if self.is_stopping {
            return BTreeSet::new();
        }
        let shared = self.growth.rows.iter().map(|row| row.partition).filter(|partition| {
            let shared_with = self.in_group(*partition);
            shared_with != *partition && self.group.contains(&shared_with)
        });
        self.group.iter().copied().chain(shared).collect()
    }

    /// The partition of the group's topic by whose assignment this one is assigned.
    fn in_group(&self, partition: PartitionId) -> PartitionId {
        let count = self.growth.topic_count(&self.desk.settings.commands_topic);
        if count > 0 && partition.0 >= count { PartitionId(partition.0 % count) } else { partition }
    }

    /// Ends the takers of what is assigned no more, lets the others proceed, and gives a taker to what is
    /// assigned and has none.
    fn reconcile(&mut self, now: Now, actions: &mut Vec<Action>) {
        let assigned = self.assigned();
        for (_, taker) in self.takers.iter_mut().filter(|(partition, _)| !assigned.contains(partition)) {
            taker.unassigned(&mut self.desk, now, actions);
        }
        for taker in self.takers.values_mut() {
            taker.proceed(&self.growth, &mut self.desk, now, actions);
        }
        self.takers.retain(|_, taker| !taker.has_ended());
        for partition in assigned {
            let patience = now.awake + self.desk.settings.release_grace;
            self.takers.entry(partition).or_insert_with(|| Taker::new(partition, now, patience));
        }
        if self.is_stopping && self.takers.is_empty() && !std::mem::replace(&mut self.has_left, true) {
            actions.push(Action::Leave);
        }
    }

    fn begin_what_takers_share(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.reading.is_none() && self.is_wanted(Wants::Rows, now) {
            let ask = self.desk.asks.next();
            self.reading = Some(ask);
            actions.push(Action::ReadRows { ask });
            self.join(Wants::Rows, ask, now);
        }
        if self.beating.is_none() && self.is_wanted(Wants::Beat, now) {
            let ask = self.desk.beat(actions);
            self.beating = Some(ask);
            self.join(Wants::Beat, ask, now);
        }
        if let Renewal::Idle { due } = self.renewal
            && due <= now.awake
            && !self.is_stopping
        {
            self.renew(now, actions);
            self.confirm(actions);
        }
    }

    fn is_wanted(&self, what: Wants, now: Now) -> bool {
        self.takers.values().any(|taker| taker.wants_now(what, now))
    }

    /// All takers that want the same now wait for one answer.
    fn join(&mut self, what: Wants, ask: Ask, now: Now) {
        for taker in self.takers.values_mut().filter(|taker| taker.wants_now(what, now)) {
            taker.join(ask, now);
        }
    }

    fn rows_read(&mut self, ask: Ask, rows: Result<&[PartitionRow], &StoreError>, now: Now, actions: &mut Vec<Action>) {
        if self.reading == Some(ask) {
            self.reading = None;
        }
        self.each(|taker, desk| taker.rows_read(ask, rows, desk, now, actions));
    }

    /// Renews the leases of all that is owned, with one beat and one look at the rows. Also with nothing to
    /// renew: others are to be heard.
    fn renew(&mut self, now: Now, actions: &mut Vec<Action>) {
        let due = now.awake + self.desk.settings.renew_every;
        // Before anything is sent: the leases count from here.
        let sent = now.boot;
        if self.desk.settings.rules.beats_before_looking {
            self.renewal = Renewal::Beating { ask: self.desk.beat(actions), sent, due };
        } else {
            self.renewal = self.look(sent, due, actions);
            self.desk.beat(actions);
        }
    }

    fn look(&mut self, sent: Duration, due: Duration, actions: &mut Vec<Action>) -> Renewal {
        let owned: Vec<_> = self.takers.values().filter_map(Taker::serving).collect();
        if owned.is_empty() {
            return Renewal::Idle { due };
        }
        let ask = self.desk.asks.next();
        actions.push(Action::Look { ask, owned: owned.clone() });
        Renewal::Looking { ask, sent, due, owned }
    }

    fn beaten(
        &mut self,
        ask: Ask,
        said: Result<BTreeMap<String, Beat>, StoreError>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let error = match said {
            Ok(said) => {
                let Desk { settings, asks, beats, known_from, .. } = &mut self.desk;
                let of_another = said.get(&settings.address).is_some_and(|beat| beat.run != settings.run);
                if of_another && known_from.is_some_and(|from| ask >= from) {
                    actions.push(Action::Report(Report::AddressShared));
                }
                known_from.get_or_insert_with(|| asks.next());
                beats.hear(said, now.awake);
                None
            }
            Err(error) => Some(error),
        };
        if self.beating == Some(ask) {
            self.beating = None;
        }
        self.each(|taker, _| taker.beaten(ask, error.as_ref(), now, actions));
        if let Renewal::Beating { ask: waited, sent, due } = self.renewal
            && waited == ask
        {
            self.renewal = match error {
                None => self.look(sent, due, actions),
                Some(error) => {
                    actions.push(Action::Report(Report::NotRenewed(error)));
                    Renewal::Idle { due }
                }
            };
        }
    }

    fn looked(
        &mut self,
        ask: Ask,
        ours: Result<Vec<(PartitionId, bool)>, StoreError>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Renewal::Looking { ask: waited, sent, due, owned } = &mut self.renewal else { return };
        if *waited != ask {
            return;
        }
        let (sent, due, owned) = (*sent, *due, std::mem::take(owned));
        self.renewal = Renewal::Idle { due };
        let rules = self.desk.settings.rules;
        let ours: BTreeMap<PartitionId, bool> = match ours {
            Ok(ours) => ours.into_iter().collect(),
            Err(error) => return actions.push(Action::Report(Report::NotRenewed(error))),
        };
        let until = self.desk.settings.lease + if rules.lease_counts_from_sending { sent } else { now.boot };
        for (partition, term) in owned {
            match ours.get(&partition) {
                Some(true) => {
                    if let Some(taker) = self.takers.get_mut(&partition) {
                        taker.renewed(term, until, actions);
                    }
                }
                Some(false) => self.lost(partition, term, Loss::Fenced, actions),
                None => {}
            }
        }
    }

    fn lost(&mut self, partition: PartitionId, term: u64, cause: Loss, actions: &mut Vec<Action>) {
        if let Some(taker) = self.takers.get_mut(&partition) {
            taker.lost(term, cause, actions);
        }
    }

    /// Asks the group about what is in doubt, once at a time for each.
    fn confirm(&mut self, actions: &mut Vec<Action>) {
        let in_group: Vec<(PartitionId, PartitionId)> =
            self.takers.keys().map(|partition| (*partition, self.in_group(*partition))).collect();
        for (partition, asked) in in_group {
            if let Some(taker) = self.takers.get_mut(&partition) {
                taker.confirm(asked, &mut self.desk, actions);
            }
        }
    }
}
