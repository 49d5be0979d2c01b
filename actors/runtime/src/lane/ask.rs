//! What a lane's machine asks of the store, of other contexts and of adapters. Each question runs as a task,
//! and its answer is an input.
//!
//! Invariant: each question has exactly one answer. A commit that was sent is never given up half-way: its
//! task outlives the lane. Deliberately absent: trying again, which is the machine's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    task::Poll,
    time::Instant,
};

use holdfast_core::{
    AggregateId, PartitionId,
    batch::{Batch, Fence},
    epoch::{PartitionRow, Token},
    port::store::{CommitError, Committed, Store, StoreError, Wanted},
};
use holdfast_machine::{
    Ask,
    lane::{Action, Arrival, Found, Input as Happened, Number, Stored},
};

use super::{InFlight, Lane};
use crate::{
    activation::{self, Known},
    growth,
    owned::Tokens,
    prepare::{self, Numbered},
    spans,
    telemetry::{self, size},
    waiting::{self, Due, Strange},
    work::Work,
};

/// What a task has ended with.
pub(super) enum Ended {
    /// A look-up in the store.
    Found {
        ask: Ask,
        wanted: Vec<Wanted>,
        claimants: Vec<Number>,
        unprepared: Vec<Number>,
        known: Result<Known, StoreError>,
    },
    /// Look-ups in another context; the bodies come back.
    Asked { ask: Ask, asked: Vec<Numbered> },
    /// A look at what is due.
    Due { ask: Ask, partitions: Vec<(PartitionId, u64)>, count: u32, found: waiting::Found },
    /// A commit.
    Committed { ask: Ask, result: Result<Committed, CommitError> },
    /// An input that the machine gets unchanged.
    Happened(Happened),
    /// What could not be done by this build was put off.
    PutOff,
}

impl Lane {
    /// Begins to find out what `action` asks.
    pub(super) fn ask(&mut self, action: Action) {
        let store = self.env.store.clone();
        let broken = || StoreError::Broken("its task panicked".to_owned());
        match action {
            Action::Find { ask, wanted, claimants, unprepared } => {
                let failed = Ended::Happened(Happened::Found { ask, found: Err(broken()) });
                self.finding = Some(ask);
                self.stages.looks_up();
                if wanted.is_empty() {
                    let known = Ok(Known::default());
                    return self.ended.push_back(Ended::Found { ask, wanted, claimants, unprepared, known });
                }
                self.tasks.spawn(Some(failed), async move {
                    let known = activation::find(store, wanted.clone()).await;
                    Ended::Found { ask, wanted, claimants, unprepared, known }
                });
            }
            Action::Commit { ask, fences, parts, messages } => {
                self.stages.commits();
                let (entries, places) = self.write(parts);
                let works = messages.iter().filter_map(|number| self.bodies.get(number)).map(|input| &input.work);
                let spans = spans::commit(self.env.context.name(), works);
                let fences = self.with_cursors(fences);
                let traced = !spans.is_empty();
                metrics::histogram!(telemetry::BATCH_RECORDS, "context" => self.env.context.name())
                    .record(size(messages.len()));
                let batch = Arc::new(Batch { fences, entries });
                self.in_flight = InFlight { batch: batch.clone(), entries: places, spans, rows: Vec::new(), traced };
                self.send(ask, batch);
            }
            Action::CommitAgain { ask, fences } => {
                let fences = self.with_cursors(fences);
                if self.in_flight.batch.fences != fences {
                    let entries = self.in_flight.batch.entries.clone();
                    self.in_flight.batch = Arc::new(Batch { fences, entries });
                }
                self.send(ask, self.in_flight.batch.clone());
            }
            Action::Compare { ask } => {
                let failed = Ended::Happened(Happened::Compared { ask, rows: Err(broken()) });
                self.tasks.spawn(Some(failed), async move {
                    Ended::Happened(Happened::Compared { ask, rows: store.partitions().await })
                });
            }
            Action::Retoken { ask, held } => {
                let tokens = |partition| self.owned.get(&partition).map(|owned| owned.tokens.clone());
                let held = held.into_iter().map(|(partition, token)| (partition, token, tokens(partition))).collect();
                let failed = Ended::Happened(Happened::Retokened { ask, rows: None });
                self.tasks.spawn(Some(failed), async move {
                    Ended::Happened(Happened::Retokened { ask, rows: retoken(&*store, held).await })
                });
            }
            Action::Look { ask, partitions, count } => {
                let looking = waiting::look(&self.env, &partitions, count);
                let failed = Ended::Happened(Happened::Due { ask, due: Vec::new() });
                self.tasks
                    .spawn(Some(failed), async move { Ended::Due { ask, partitions, count, found: looking.await } });
            }
            Action::Acknowledge { ask, partition, token, generation, count } => {
                let (context, topic) = (self.env.context.name(), &self.env.emit.events_topic);
                let mark = growth::mark(context, topic, partition, count, self.env.clock.now());
                let failed = Ended::Happened(Happened::Acknowledged { ask, row: Err(broken()) });
                self.tasks.spawn(Some(failed), async move {
                    let row = store.acknowledge(partition, token, generation, mark).await;
                    Ended::Happened(Happened::Acknowledged { ask, row })
                });
            }
            action => unreachable!("{action:?} asks for nothing"),
        }
    }

    /// Asks another context what these messages need. Their bodies go along, and come back with the answer.
    pub(super) async fn look_up(&mut self, ask: Ask, messages: Vec<Number>) {
        let bodies = messages.into_iter().filter_map(|number| Some((number, self.bodies.remove(&number)?)));
        let mut asking = Box::pin(prepare::prepare(self.env.context.clone(), bodies.collect()));
        // What an adapter remembers is there at once.
        match std::future::poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await {
            Poll::Ready(asked) => self.ended.push_back(Ended::Asked { ask, asked }),
            Poll::Pending => self.tasks.spawn(None, async move { Ended::Asked { ask, asked: asking.await } }),
        }
    }

    /// Adds how far the relays have come, which costs a commit nothing.
    fn with_cursors(&self, mut fences: Vec<Fence>) -> Vec<Fence> {
        for fence in &mut fences {
            if let Some(owned) = self.owned.get(&fence.partition) {
                let published = owned.published.load(std::sync::atomic::Ordering::Acquire);
                fence.cursor = (published > owned.cursor_stored).then_some(published);
            }
        }
        fences
    }

    fn send(&mut self, ask: Ask, batch: Arc<Batch>) {
        let (store, seconds) = (self.env.store.clone(), self.stages.commit());
        let committing = tokio::spawn(async move {
            let started = Instant::now();
            let result = store.commit(&batch).await;
            seconds.record(started.elapsed());
            result
        });
        self.tasks.spawn(None, async move {
            // One that panicked may have happened.
            let result = committing.await.unwrap_or_else(|error| Err(CommitError::Unknown(error.to_string())));
            Ended::Committed { ask, result }
        });
    }

    pub(super) fn not_committed(&self, error: &CommitError) {
        let context = self.env.context.name();
        let reason = match error {
            CommitError::Slow(_) => "slow",
            CommitError::Unavailable(_) => "unavailable",
            CommitError::Conflict => "conflict",
            CommitError::Unknown(_) => "unknown",
            CommitError::Data { .. } => return, // it shows as what becomes of the message
        };
        metrics::counter!(telemetry::COMMIT_FAILURES_TOTAL, "context" => context, "reason" => reason).increment(1);
        tracing::warn!(context, reason, %error, "commit failed");
    }

    /// Takes in what a task has ended with.
    pub(super) fn take_in(&mut self, ended: Ended) -> Option<Happened> {
        Some(match ended {
            Ended::Happened(happened) => happened,
            Ended::PutOff => {
                self.is_putting_off = false;
                return None;
            }
            Ended::Found { ask, known: Err(error), .. } => Happened::Found { ask, found: Err(error) },
            // A look-up that was given up says nothing of the batch that is looked up now.
            Ended::Found { ask, .. } if self.finding != Some(ask) => return None,
            Ended::Found { ask, wanted, claimants, unprepared, known: Ok(known) } => {
                self.pulse.step("preparing");
                Happened::Found { ask, found: Ok(self.found(&wanted, &claimants, &unprepared, known)) }
            }
            Ended::Asked { ask, asked } => {
                let mut failures = Vec::new();
                for (number, input) in asked {
                    if let Work::Item(item) = &input.work
                        && let Some(failure) = item.failure.get()
                    {
                        failures.push((number, failure.clone()));
                    }
                    self.bodies.insert(number, input);
                }
                Happened::Asked { ask, failures }
            }
            Ended::Due { ask, partitions, count, found } => {
                self.pulse.step("decoding");
                let machine = &self.machine;
                let is_here = |partition, id: &AggregateId| machine.has_mail(partition, id);
                let Due { inputs, strange } = waiting::sort(&self.env, &partitions, count, found, is_here);
                let due: Vec<Arrival> = inputs.into_iter().map(|input| self.arrive(input)).collect();
                self.put_off(strange);
                Happened::Due { ask, due }
            }
            Ended::Committed { ask, result } => {
                if !matches!(result, Err(CommitError::Unavailable(_) | CommitError::Slow(_))) {
                    self.in_flight.spans.clear();
                }
                let result = result.map(|committed| self.committed(committed));
                Happened::Committed { ask, result }
            }
        })
    }

    fn put_off(&mut self, strange: Strange) {
        // One after the other: what is put off later is found again.
        if !strange.is_empty() && !std::mem::replace(&mut self.is_putting_off, true) {
            let putting_off = waiting::put_off(&self.env, strange);
            self.tasks.spawn(Some(Ended::PutOff), async move {
                putting_off.await;
                Ended::PutOff
            });
        }
    }

    /// Keeps what a commit wrote into the outbox, and says of each part of its plan whether it was granted.
    fn committed(&mut self, mut committed: Committed) -> Committed {
        self.in_flight.rows = std::mem::take(&mut committed.outbox);
        for fence in &self.in_flight.batch.fences {
            if committed.heads.contains_key(&fence.partition)
                && let (Some(owned), Some(cursor)) = (self.owned.get_mut(&fence.partition), fence.cursor)
            {
                owned.cursor_stored = cursor;
            }
        }
        let is_granted =
            |entry: &Option<usize>| entry.is_none_or(|entry| committed.granted.get(entry).copied().unwrap_or(false));
        committed.granted = self.in_flight.entries.iter().map(is_granted).collect();
        committed
    }

    /// Keeps the stored states of a batch, and says what the machine needs to know: of states and claims, and
    /// which messages need another context.
    fn found(&mut self, wanted: &[Wanted], claimants: &[Number], unprepared: &[Number], known: Known) -> Found {
        let Known { cold, claims } = known;
        self.states.clear();
        let items = || {
            unprepared.iter().filter_map(|number| match &self.bodies.get(number)?.work {
                Work::Item(item) => Some(&**item),
                _ => None,
            })
        };
        prepare::observe(&self.env.context, items(), &cold);
        // An aggregate may be asked for twice: at home, and where a record of it strayed.
        let aggregates = wanted.iter().map(|wanted| cold.get(&wanted.id).map(stored).unwrap_or_default()).collect();
        let readable = cold.into_iter().filter_map(|(id, row)| Some((id, row.state.ok()?)));
        self.states.extend(readable);
        let claim = |number: &Number| {
            let Work::Item(item) = &self.bodies.get(number)?.work else { return None };
            Some((*number, claims.get(&item.fingerprint()?.key)?.clone()))
        };
        let claims = if claims.is_empty() { Vec::new() } else { claimants.iter().filter_map(claim).collect() };
        let needs = unprepared.iter().filter_map(|number| {
            let Work::Item(item) = &mut self.bodies.get_mut(number)?.work else { return None };
            let need = prepare::need(&self.env.context, item)?;
            Some((*number, need))
        });
        let needs = needs.collect();
        Found { aggregates, claims, needs }
    }
}

/// What the machine needs to know of a row.
fn stored(row: &activation::Row) -> Stored {
    let activation::Row { state, waiting, claims } = row;
    Stored { unusable: state.as_ref().err().cloned(), waiting: *waiting, claims: claims.clone() }
}

/// Draws new tokens for partitions and reads their rows. A partition that is not in the answer is lost; all
/// are if there is none.
async fn retoken(store: &dyn Store, held: Vec<(PartitionId, Token, Option<Tokens>)>) -> Option<Vec<PartitionRow>> {
    let mut fresh: BTreeMap<PartitionId, Token> = BTreeMap::new();
    let mut changes = Vec::new();
    for (partition, token, tokens) in held {
        let Some(tokens) = tokens else { continue };
        let drawn = Token::draw();
        tokens.add(drawn); // before the store knows it, so that a renewal in between finds it
        fresh.insert(partition, drawn);
        changes.push((partition, token, drawn));
    }
    // One try only: if this answer is lost too, the node counts as fenced.
    let held: BTreeSet<PartitionId> = match store.retoken(&changes).await {
        Ok(held) => held.into_keys().collect(),
        Err(error) => {
            tracing::error!(%error, "the outcome of a commit could not be found out; its partitions are given up");
            return None;
        }
    };
    match store.partitions().await {
        Ok(mut rows) => {
            rows.retain(|row| held.contains(&row.partition) && row.token == fresh.get(&row.partition).copied());
            Some(rows)
        }
        Err(error) => {
            tracing::error!(%error, "partition rows could not be read after a lost commit; the partitions are given up");
            None
        }
    }
}
