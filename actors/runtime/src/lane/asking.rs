//! Look-ups in other contexts that take their time: they go on beside the loop, and only who needs their answers waits.
//!
//! Upholds I6 and I3 together: a message whose look-up is not answered at once leaves the batch, and so does everything that comes after it for the
//! same aggregate, until the answer is there; then all of it goes round again, in its order, before anything of that aggregate that is newer. What was
//! decided before (and is prepared, therefore) is older than whatever is away, so it passes. Nothing is consumed meanwhile, so a node that dies takes
//! nothing along (I7). Deliberately absent: a bound on the time, which is the adapter's; on the bytes, which are in the admission's budget still.

use std::collections::{BTreeMap, HashMap};

use futures::FutureExt as _;
use holdfast_core::{AggregateId, PartitionId};
use tokio::task::{JoinError, JoinSet};

use super::{Lane, abandon, ended};
use crate::{
    activation::Known,
    ids::{IdMap, IdSet},
    owned::Owned,
    prepare::{self, Placed},
    work::{Input, Origin, Work},
};

/// Behind everything that was in the batch.
const LAST: usize = usize::MAX;

/// What is asked of one context, and where in the batch the first message of each aggregate stands that asks.
#[derive(Default)]
struct Question {
    asked: Vec<Placed>,
    first: IdMap<AggregateId, usize>,
}

/// What waits for one answer.
struct Round {
    aggregates: IdSet<AggregateId>,
    /// Behind what was asked for.
    held: Vec<Placed>,
    /// Of these, earlier mail is being decided meanwhile. If that comes to nothing it is read again, so mail that was behind it must be, too.
    behind_mail: IdSet<AggregateId>,
}

/// The look-ups under way, and what waits for them. Those of a lane that ends are given up.
#[derive(Default)]
pub(super) struct Asking {
    number: u64,
    under_way: JoinSet<(u64, Vec<Placed>)>,
    rounds: HashMap<u64, Round>,
    answered: Vec<Result<(u64, Vec<Placed>), JoinError>>,
}

impl Asking {
    pub fn is_empty(&self) -> bool {
        self.rounds.is_empty()
    }

    /// Whether something of this aggregate is away.
    pub fn is_for(&self, aggregate: &AggregateId) -> bool {
        self.rounds.values().any(|round| round.aggregates.contains(aggregate))
    }

    /// Takes out of `batch` what comes after something that is away.
    fn hold(&mut self, batch: &mut Vec<Input>) {
        if self.rounds.is_empty() {
            return;
        }
        for input in std::mem::take(batch) {
            let round = match &input.work {
                Work::Item(item) if !item.prepared => {
                    self.rounds.values_mut().find(|round| round.aggregates.contains(&item.aggregate))
                }
                _ => None,
            };
            match round {
                Some(round) => round.held.push((LAST, input)),
                None => batch.push(input),
            }
        }
    }

    fn begin(&mut self, looking_up: impl Future<Output = Vec<Placed>> + Send + 'static, round: Round) {
        self.number += 1;
        let number = self.number;
        self.under_way.spawn(looking_up.map(move |asked| (number, asked)));
        self.rounds.insert(number, round);
    }

    /// Waits until one is answered; for ever if there is none. Nothing is lost if the wait is given up.
    pub async fn answer(&mut self) {
        match self.under_way.join_next().await {
            Some(answered) => self.answered.push(answered),
            None => std::future::pending().await,
        }
    }

    /// Everything whose answer is there, with what waited for it.
    pub fn take(&mut self) -> Vec<Input> {
        while let Some(answered) = self.under_way.try_join_next() {
            self.answered.push(answered);
        }
        let mut inputs = Vec::new();
        for answered in self.answered.drain(..) {
            let (number, mut all) = match answered {
                Ok(answered) => answered,
                // An adapter's panic is caught where it happens; this one is the runtime's own, and ends the lane as if it had waited.
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => continue, // only the lane's own end gives one up
                },
            };
            if let Some(round) = self.rounds.remove(&number) {
                all.extend(round.held);
                all.retain(|(_, input)| mail_of(input).is_none_or(|aggregate| !round.behind_mail.contains(aggregate)));
            }
            all.sort_by_key(|(place, _)| *place);
            inputs.extend(all.into_iter().map(|(_, input)| input));
        }
        inputs
    }

    /// Lets go of what waits for `partition`, which is lost. What is asked for itself is found void when it comes back.
    pub fn remove(&mut self, partition: PartitionId) {
        for round in self.rounds.values_mut() {
            round.held.extract_if(.., |(_, input)| input.partition == partition).for_each(|(_, input)| abandon(input));
        }
    }
}

/// What is waited for while it is asked; and for no longer than the commit in flight.
const LOOK_UPS: &str = "other contexts, or the database";

impl Lane {
    /// Has everything looked up that `batch` needs of other contexts. Each context is asked by itself, so that a slow one keeps only its own messages
    /// waiting. Takes no longer than the commits that are in flight anyway: what is not answered by then leaves the batch, with what comes
    /// after it for the same aggregates.
    pub(super) async fn ask(&mut self, batch: &mut Vec<Input>, known: &Known) {
        self.asking.hold(batch);
        let (owned, is_ignored) = (&self.owned, !self.env.config.rules.applies_mail_before_records);
        let places = prepare::needing(&self.env.context, batch, |input, item| {
            if known.unusable(&item.aggregate).is_some() {
                return false; // it fails without
            }
            let is_repeat = item.claim_key().is_some_and(|key| known.claims.contains_key(&key));
            let queues = |owned: &Owned| item.queues_behind_mail() && known.waiting(item, &owned.live) > 0;
            !is_repeat && (is_ignored || !owned.get(&input.partition).is_some_and(queues))
        });
        if places.is_empty() {
            return;
        }
        let mut questions: BTreeMap<&'static str, Question> = BTreeMap::new();
        let mut asks: IdMap<AggregateId, &'static str> = IdMap::default();
        let (mut others, mut places): (Vec<Placed>, _) = (Vec::new(), places.into_iter().peekable());
        for (place, input) in std::mem::take(batch).into_iter().enumerate() {
            let needs = places.next_if(|(needing, _)| *needing == place).map(|(_, context)| context);
            match (&input.work, needs) {
                // One context at a time for each aggregate, or its messages could come back in another order. The rest is carried.
                (Work::Item(item), Some(context))
                    if *asks.entry(item.aggregate.clone()).or_insert(context) == context =>
                {
                    let question = questions.entry(context).or_default();
                    question.first.entry(item.aggregate.clone()).or_insert(place);
                    question.asked.push((place, input));
                }
                _ => others.push((place, input)),
            }
        }
        for question in questions.into_values() {
            self.ask_one(question, &mut others).await;
        }
        batch.extend(others.into_iter().map(|(_, input)| input));
    }

    /// Asks one context; what is answered in time joins `others` in its place.
    async fn ask_one(&mut self, Question { asked, first }: Question, others: &mut Vec<Placed>) {
        let mut looking_up = Box::pin(prepare::prepare(self.env.context.clone(), asked));
        self.pulse.waits(LOOK_UPS);
        let answered = loop {
            tokio::select! {
                biased;
                // What is away of a lost partition is found void when it is sorted.
                Some(control) = self.control.recv() => self.control(control, &mut Vec::new()),
                asked = &mut looking_up => break Some(asked),
                end = ended(&mut self.in_flight) => self.settle(end),
                () = std::future::ready(()), if self.in_flight.is_none() => break None,
            }
        };
        if let Some(asked) = answered {
            others.extend(asked);
            others.sort_unstable_by_key(|(place, _)| *place);
        } else {
            let is_behind = |(place, input): &mut Placed| match &input.work {
                Work::Item(item) => first.get(&item.aggregate).is_some_and(|first| first < place),
                _ => false,
            };
            let held = others.extract_if(.., is_behind).collect();
            let mail = others.iter().filter_map(|(_, input)| mail_of(input));
            let behind_mail = mail.filter(|aggregate| first.contains_key(*aggregate)).cloned().collect();
            self.asking.begin(looking_up, Round { aggregates: first.into_keys().collect(), held, behind_mail });
        }
    }
}

/// The aggregate that this is mail of, if it is any.
pub(super) fn mail_of(input: &Input) -> Option<&AggregateId> {
    match &input.work {
        Work::Item(item) if matches!(item.origin, Origin::Mail { .. }) => Some(&item.aggregate),
        _ => None,
    }
}
