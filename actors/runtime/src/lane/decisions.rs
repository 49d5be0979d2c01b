//! From a gathered batch to its plans: what the store knows is looked up, what needs no actor is disposed of, the rest is decided by the actors.
//!
//! Nothing is changed here that a commit has yet to confirm: verdicts become plans, and plans take effect when they are settled.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use holdfast_core::{
    AggregateId, KeyHash, PartitionId,
    dedup::{Claim, ClaimKey},
    disposition::WaitReason,
};
use tokio::sync::mpsc;

use holdfast_machine::ownership::Loss;

use super::{DATABASE, Lane, abandon};
use crate::{
    activation::{self, Known},
    backoff::Backoff,
    ids::{IdMap, IdSet},
    partition::{PartitionMessage, Post},
    plan::{Plan, Planned, Planner, Terms},
    prepare,
    router::RouteError,
    telemetry::{self, size},
    work::{Delivery, Failure, Input, Item, Origin, ReadReply, Work, answer_of},
};

impl Lane {
    pub(super) async fn look_up(&mut self, batch: &mut Vec<Input>) -> Known {
        let mut backoff = Backoff::infrastructure();
        let known = loop {
            let growth = self.env.homes.now();
            let is_growing = growth.is_in_transition() && self.env.config.rules.reads_mail_after_wait;
            let is_live = |input: &Input, id: &AggregateId| {
                !(is_growing && input.place().is_some())
                    && self.owned.get(&input.partition).is_some_and(|owned| owned.live.contains(id))
            };
            let wanted = activation::wanted(batch, is_live);
            self.pulse.waits(DATABASE);
            let looking = activation::find(self.env.store.clone(), wanted);
            match self.hearing(batch, looking).await {
                Ok(known) => break known,
                Err(error) => {
                    tracing::warn!(context = self.env.context.name(), %error, "look-up failed; holding");
                    let unavailable = || RouteError::unavailable(error.to_string());
                    for input in batch.extract_if(.., |input| matches!(input.work, Work::Activate { .. })) {
                        if let Work::Activate { reply, .. } = input.work {
                            reply.send(Err(unavailable()));
                        }
                    }
                    for input in batch.iter() {
                        if let Work::Item(item) = &input.work {
                            item.answer(Err(unavailable()));
                        }
                    }
                    self.hearing(batch, tokio::time::sleep(backoff.next())).await;
                }
            }
        };
        self.pulse.step("preparing");
        prepare::observe(&self.env.context, batch, &known);
        self.ask(batch, &known).await;
        known
    }

    pub(super) async fn decide(&mut self, batch: Vec<Input>, known: Known) {
        metrics::histogram!(telemetry::BATCH_RECORDS, "context" => self.env.context.name()).record(size(batch.len()));
        let gathered = batch.len();
        let recent = std::mem::take(&mut self.recent);
        let emit = self.env.emit.clone();
        let mut planner = Planner::new(
            self.env.context.name(),
            &emit,
            self.env.homes.count(),
            self.env.config.retry,
            self.env.clock.now(),
            gathered,
        );
        // Those that everything in this batch is decided under; by the time it is, some may have ended.
        let terms = Terms::of(self.owned.values());
        let groups = self.sort(batch, &known, &recent, &mut planner);
        self.deliver(groups, known, &mut planner, &terms).await;
        let low_after = |partition: PartitionId, topic: &str, done: &BTreeSet<u64>| {
            self.owned.get(&partition).and_then(|owned| owned.marks.get(topic)).map(|mark| mark.low_after(done))
        };
        let Planned { plans, carry } = planner.finish(low_after);
        self.carry.extend(carry);
        let plans = plans.into_iter().filter(|plan| !plan.is_empty());
        self.ready.extend(plans.map(|plan| Plan { terms: terms.clone(), ..plan }));
        if self.ready.is_empty() && self.carry.len() < gathered {
            self.pulse.moved(); // reads, or what others have done already
        }
        let is_fruitless = self.ready.is_empty() && self.carry.len() == gathered && !self.asking.is_empty();
        self.fruitless = if is_fruitless { self.fruitless.saturating_add(1) } else { 0 };
    }

    /// Disposes of everything that needs no actor, and groups the rest by aggregate, in order of first appearance.
    fn sort(
        &mut self,
        batch: Vec<Input>,
        known: &Known,
        recent: &IdMap<ClaimKey, Claim>,
        planner: &mut Planner<'_>,
    ) -> Vec<Group> {
        let now = self.env.clock.boot();
        let mut groups: Vec<Group> = Vec::new();
        let mut places: IdMap<AggregateId, usize> = IdMap::default();
        let mut claimed: IdSet<ClaimKey> = IdSet::default();
        for input in batch {
            let Some(owned) = self.owned.get_mut(&input.partition).filter(|owned| owned.takes(input.term)) else {
                abandon(input);
                continue;
            };
            // All of them, in order: what is not at home here may not pass what is, or it would wait for it in vain.
            if !owned.is_serving() && input.place().is_some() {
                owned.held.push(input);
                continue;
            }
            let (aggregate, item) = match &input.work {
                Work::Ignored { .. } => {
                    planner.plain.consume(&input);
                    planner.plain.work.push(input);
                    continue;
                }
                Work::Refused(_) | Work::Unfiled(_) => {
                    planner.refuse(input);
                    continue;
                }
                Work::Activate { aggregate, .. } => (aggregate.clone(), None),
                Work::Item(item) => (item.aggregate.clone(), Some(item.clone())),
            };
            if self.mailed.contains(&aggregate) {
                planner.carry(input, &aggregate); // the next batch looks it up again
                continue;
            }
            if let Some(failure @ Failure::Refused(_)) = known.unusable(&aggregate) {
                fail(planner, input, item.as_ref(), failure); // wherever its home is: no table takes it
                continue;
            }
            let hash = item.as_ref().map_or_else(|| KeyHash::of(aggregate.key.as_bytes()), |item| item.hash);
            if !owned.is_home(hash) {
                strayed(planner, input);
                continue;
            }
            if !owned.is_serving() {
                abandon(input); // mail and timers are in their tables still
                continue;
            }
            let Some(item) = item else {
                if let Some(failure) = known.unusable(&aggregate) {
                    fail(planner, input, None, failure);
                    continue;
                }
                owned.live.touch(&aggregate, now, || known.stored_waiting(&aggregate));
                group(&mut groups, &mut places, input.partition, &aggregate).add_reader(input);
                continue;
            };
            if let Origin::Timer { name, .. } = &item.origin
                && self.firings.get(&(aggregate.clone(), name.clone())) == Some(&true)
            {
                continue; // the timer as it is set now is in its table, and comes when it is due
            }
            let is_ignored =
                !self.env.config.rules.applies_mail_before_records && matches!(item.origin, Origin::Log { .. });
            if known.waiting(&item, &owned.live) > 0 && !is_ignored {
                planner.block_waiting(&aggregate, WaitReason::Retrying);
            }
            let Some(input) = planner.unless_blocked(input, &item) else { continue };
            if let Some(failure) = known.unusable(&aggregate) {
                planner.fail(input, &item, failure);
                continue;
            }
            if let Some(key) = item.claim_key() {
                let is_blind = !self.env.config.rules.claims_count_within_batch;
                let recently = recent.get(&key).filter(|_| !is_blind).map(Ok);
                if let Some(claim) = recently.or_else(|| known.claims.get(&key).map(Result::as_ref)) {
                    match claim.map_err(Clone::clone).and_then(|claim| answer_of(claim, item.body())) {
                        Ok(answer) => planner.repeat(input, &item, Some(answer)),
                        Err(failure) => planner.fail(input, &item, &failure),
                    }
                    continue;
                }
                if !claimed.insert(key) && !is_blind {
                    planner.carry(input, &aggregate); // its twin is in this batch: the next one knows the answer
                    continue;
                }
            }
            if let Some(failure) = item.failure.get() {
                if places.contains_key(&aggregate) {
                    planner.carry(input, &aggregate); // what is before it may not be done in this batch, and must not queue behind it
                } else {
                    planner.fail(input, &item, failure);
                }
                continue;
            }
            // It was about to queue behind mail, which is gone by now: the next batch looks up what it needs.
            if !item.prepared && self.env.context.looks_up(&item).map_or(true, |asks| asks.is_some()) {
                planner.carry(input, &aggregate);
                continue;
            }
            owned.live.touch(&aggregate, now, || known.stored_waiting(&aggregate));
            group(&mut groups, &mut places, input.partition, &aggregate).inputs.push(input);
        }
        groups
    }

    /// Has each group decided by its actor. Meanwhile orders are carried out: a handler that doesn't return keeps its
    /// own partition's work, and that only until the partition leaves (I6).
    async fn deliver(&mut self, groups: Vec<Group>, mut known: Known, planner: &mut Planner<'_>, terms: &Terms) {
        let (sender, mut verdicts) = mpsc::unbounded_channel();
        let mut posts: BTreeMap<PartitionId, Vec<Post>> = BTreeMap::new();
        let mut deliveries = Vec::with_capacity(groups.len());
        for (index, group) in groups.into_iter().enumerate() {
            let kind = self.env.context.kind(group.aggregate.kind).expect("an aggregate id is made from a kind");
            let items: Vec<Arc<Item>> = group
                .inputs
                .iter()
                .filter_map(|input| match &input.work {
                    Work::Item(item) => Some(item.clone()),
                    _ => None,
                })
                .collect();
            let hash = KeyHash::of(group.aggregate.key.as_bytes());
            let count = self.owned.get(&group.partition).map_or(1, |owned| owned.count);
            let delivery = Arc::new(Delivery::new(group.aggregate, hash, group.partition, count, items));
            posts.entry(group.partition).or_default().push(Post {
                index,
                delivery: delivery.clone(),
                kind: kind.clone(),
                activation: known.cold.remove(&delivery.aggregate).and_then(|(state, _)| state.ok()),
                readers: group.readers,
            });
            deliveries.push(Some((group.partition, delivery, group.inputs)));
        }
        for (partition, deliveries) in posts {
            let Some(owned) = self.owned.get(&partition) else { continue };
            // A supervisor that is gone answers nothing; its verdicts are missed below.
            let _ = owned.supervisor.send_message(PartitionMessage::Deliver { deliveries, verdicts: sender.clone() });
        }
        drop(sender);
        let mut open = deliveries.len();
        while open > 0 {
            let verdict = tokio::select! {
                biased;
                Some(control) = self.control.recv() => {
                    // Nothing is gathered beside the batch, and that is in `deliveries`.
                    self.control(control, &mut Vec::new());
                    let has_ended = |delivery: &mut (PartitionId, _, _)| !self.stands(terms, delivery.0);
                    for (_, _, inputs) in deliveries.iter_mut().filter_map(|delivery| delivery.take_if(has_ended)) {
                        inputs.into_iter().for_each(abandon);
                        open -= 1;
                    }
                    continue;
                }
                verdict = verdicts.recv() => verdict,
            };
            let Some(verdict) = verdict else { break };
            let Some((partition, delivery, inputs)) = deliveries.get_mut(verdict.delivery).and_then(Option::take)
            else {
                continue;
            };
            open -= 1;
            if verdict.unreadable
                && let Some(owned) = self.owned.get_mut(&partition)
            {
                owned.live.remove(&delivery.aggregate);
            }
            planner.verdict(partition, &delivery, inputs, verdict);
        }
        // A partition supervisor died: its partition is given up, its work is undone and comes again to whoever owns it next.
        for (partition, _, inputs) in deliveries.into_iter().flatten() {
            inputs.into_iter().for_each(abandon);
            if self.stands(terms, partition) {
                self.lose(partition, Loss::SupervisorDied);
            }
        }
    }

    /// Whether the partition is still held under its term of `terms`.
    fn stands(&self, terms: &Terms, partition: PartitionId) -> bool {
        self.owned.get(&partition).is_some_and(|owned| terms.include(owned))
    }
}

/// What asks for an aggregate whose stored state can't be used.
fn fail(planner: &mut Planner<'_>, input: Input, item: Option<&Arc<Item>>, failure: &Failure) {
    match (input.work, item) {
        (Work::Activate { reply, .. }, _) => {
            reply.send(Err(failure.to_caller()));
        }
        (work, Some(item)) => planner.fail(Input { work, ..input }, item, failure),
        _ => {}
    }
}

/// What came here and is at home elsewhere: a record goes there through the mailbox, a caller is told; mail and timers are in their tables
/// still, for the home's owner to find.
fn strayed(planner: &mut Planner<'_>, input: Input) {
    match &input.work {
        Work::Item(item) if matches!(item.origin, Origin::Log { .. }) => planner.transfer(input),
        _ => abandon(input),
    }
}

/// The messages of one batch for one aggregate.
struct Group {
    partition: PartitionId,
    aggregate: AggregateId,
    inputs: Vec<Input>,
    readers: Vec<ReadReply>,
}

impl Group {
    fn add_reader(&mut self, input: Input) {
        if let Work::Activate { reply, .. } = input.work {
            self.readers.push(reply);
        }
    }
}

fn group<'g>(
    groups: &'g mut Vec<Group>,
    places: &mut IdMap<AggregateId, usize>,
    partition: PartitionId,
    aggregate: &AggregateId,
) -> &'g mut Group {
    let at = *places.entry(aggregate.clone()).or_insert_with(|| {
        groups.push(Group { partition, aggregate: aggregate.clone(), inputs: Vec::new(), readers: Vec::new() });
        groups.len() - 1
    });
    &mut groups[at]
}
