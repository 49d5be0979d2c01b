//! The shell of a lane's machine: what is read, called, decided and committed becomes its inputs, and its
//! actions become IO.
//!
//! The rules are the machine's (`holdfast_machine::lane`). Here is one loop: it waits for whatever happens
//! first, hands in what is at hand, and does what the machine says, in order. What takes its time runs as a
//! task whose end is the next input. Bodies of messages, and what actors decided, are kept here, by number,
//! until the machine is done with them. Deliberately absent: any decision.

mod act;
mod arrive;
mod ask;
mod write;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
};

use holdfast_core::{
    AggregateId, PartitionId,
    batch::{Batch, OutboxRow},
    epoch::Token,
    port::store::StateRow,
    ring::Ring,
};
use holdfast_machine::{
    Ask, Now,
    lane::{self as machine, Action, Doing, Machine, Number, Settings},
    ownership::Loss,
};
use ractor::ActorRef;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::Span;

use self::ask::Ended;
use crate::{
    chores::Chores,
    clock::Alarm,
    delivery::{Delivery, Gathered, Verdicts},
    environment::Environment,
    ids::IdMap,
    owned::Owned,
    partition::PartitionMessage,
    progress::Pulse,
    relay::{Home, RelayMessage},
    stages::Stages,
    telemetry::{self, size},
    work::{Input, Outcome, Snapshot, Step},
};

/// What a lane waits for, as [`crate::progress`] shows it.
const DATABASE: &str = "the database";
/// What is waited for while it is asked; and for no longer than the commit in flight.
const LOOK_UPS: &str = "other contexts, or the database";

/// What is taken in before the machine may begin something, at least.
const EVENTS_AT_ONCE: usize = 512;

/// An ownership that has ended without an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub partition: PartitionId,
    pub term: u64,
    pub cause: Loss,
}

/// Orders from the ownership loop.
pub(crate) enum Control {
    /// Serve this partition from now on.
    Own(Box<Owned>),
    /// The partition is lost: drop everything of it.
    Drop { partition: PartitionId, term: u64 },
    /// Finish what is in flight for it and let it go; answers with the token and outbox head it ends with.
    Release { partition: PartitionId, term: u64, done: oneshot::Sender<(Token, u64)> },
}

/// What an actor decided, until the machine says what came of it.
struct Decided {
    delivery: Arc<Delivery>,
    steps: Vec<Step>,
    /// Until it is written.
    outcome: Option<Box<Outcome>>,
    /// Its entry in the batch in flight.
    entry: Option<usize>,
    granted: Option<Arc<Snapshot>>,
    refused: Option<Arc<Snapshot>>,
}

/// The state of an aggregate after its delivery; `None` if it is as it was.
type Settled = (AggregateId, Option<Arc<Snapshot>>);

/// The commit in flight.
#[derive(Default)]
struct InFlight {
    batch: Arc<Batch>,
    /// For each part of the plan its entry in the batch, if it has one.
    entries: Vec<Option<usize>>,
    /// They end with the commit.
    spans: Vec<Span>,
    /// What it wrote into the outbox.
    rows: Vec<OutboxRow>,
    traced: bool,
}

pub(crate) struct Lane {
    env: Environment,
    inputs: mpsc::Receiver<Input>,
    control: mpsc::UnboundedReceiver<Control>,
    reports: mpsc::UnboundedSender<Lost>,
    relay: mpsc::UnboundedSender<RelayMessage>,
    pulse: Pulse,
    stages: Stages,
    machine: Machine,
    started: Instant,
    alarm: Alarm,
    /// As of the last wake.
    now: Now,
    owned: BTreeMap<PartitionId, Owned>,
    /// Everything that has arrived and is not done.
    bodies: IdMap<Number, Input>,
    number: u64,
    /// Stored states of the batch that is looked up.
    states: IdMap<AggregateId, Option<StateRow>>,
    /// The look-up that the batch waits for.
    finding: Option<Ask>,
    decided: IdMap<u64, Decided>,
    /// Those of the batch that actors decide.
    verdicts: Option<Arc<Verdicts>>,
    in_flight: InFlight,
    /// What has ended at once.
    ended: VecDeque<Ended>,
    /// The ends of deliveries that the actors have not been sent yet, all of a partition at once.
    settled: BTreeMap<PartitionId, Vec<Settled>>,
    tasks: Chores<Ended, Option<Ended>>,
    is_putting_off: bool,
    /// Messages by outcome that the meter has not counted yet.
    counts: BTreeMap<&'static str, u64>,
    /// Live actors as the gauge shows them, and the progress that the board heard of last.
    live_shown: usize,
    moved_shown: u64,
    /// For [`Rules::drops_actors_when_fenced`] left out; empty otherwise.
    kept: HashMap<PartitionId, ActorRef<PartitionMessage>>,
}

/// What happened.
enum Event {
    Control(Control),
    Counted,
    Ended(Ended),
    /// Actors have decided.
    Decided,
    Arrived(Input),
    Due,
}

impl Lane {
    pub fn new(
        env: Environment,
        inputs: mpsc::Receiver<Input>,
        control: mpsc::UnboundedReceiver<Control>,
        reports: mpsc::UnboundedSender<Lost>,
        relay: mpsc::UnboundedSender<RelayMessage>,
        pulse: Pulse,
    ) -> Self {
        let config = &env.config;
        let settings = Settings {
            batch_items_max: config.batch_items_max,
            retry: config.retry,
            poll_every: config.poll_every,
            passivate_after: config.passivate_after,
            live_max: config.live_max / config.lanes.max(1),
            ring_max: Ring::CLAIMS_MAX,
            rules: config.rules,
        };
        let machine = Machine::new(settings, env.homes.now());
        let stages = Stages::new(env.context.name());
        Self {
            env,
            inputs,
            control,
            reports,
            relay,
            pulse,
            stages,
            machine,
            started: Instant::now(),
            alarm: Alarm::default(),
            now: Now::default(),
            owned: BTreeMap::new(),
            bodies: IdMap::default(),
            number: 0,
            states: IdMap::default(),
            finding: None,
            decided: IdMap::default(),
            verdicts: None,
            in_flight: InFlight::default(),
            ended: VecDeque::new(),
            settled: BTreeMap::new(),
            tasks: Chores::new(),
            is_putting_off: false,
            counts: BTreeMap::new(),
            live_shown: 0,
            moved_shown: 0,
            kept: HashMap::new(),
        }
    }

    /// Runs until the node drops its ends of the channels.
    pub async fn run(mut self) {
        let mut actions = Vec::new();
        while let Some(event) = self.next().await {
            self.now = Now { boot: self.env.clock.boot(), awake: self.started.elapsed() };
            self.happened(event, &mut actions).await;
            // Bounded, or inputs that never cease would keep the machine from beginning anything.
            for _ in 0..self.env.config.batch_items_max.max(EVENTS_AT_ONCE) {
                let Some(event) = self.at_hand() else { break };
                self.happened(event, &mut actions).await;
            }
            self.handle(machine::Input::Turn, &mut actions).await;
            self.show();
        }
        self.owned.clear();
        self.tell_live(0);
    }

    /// Waits for what happens next. `None` once the node is gone.
    async fn next(&mut self) -> Option<Event> {
        if let Some(ended) = self.ended.pop_front() {
            return Some(Event::Ended(ended));
        }
        let due = self.machine.due().map(|due| self.started + due);
        tokio::select! {
            biased;
            control = self.control.recv() => control.map(Event::Control),
            () = self.env.homes.changed() => Some(Event::Counted),
            Some(ended) = self.tasks.next(), if !self.tasks.is_empty() => Some(Event::Ended(self::ended(ended))),
            () = ready(self.verdicts.as_deref()) => Some(Event::Decided),
            input = self.inputs.recv(), if self.machine.takes_more() => input.map(Event::Arrived),
            () = self.alarm.until(due) => Some(Event::Due),
        }
    }

    /// The next event that is there without waiting. The ownership loop sends an ownership before any input
    /// comes in under it, so controls are taken before inputs.
    fn at_hand(&mut self) -> Option<Event> {
        if let Some(ended) = self.ended.pop_front() {
            return Some(Event::Ended(ended));
        }
        if let Ok(control) = self.control.try_recv() {
            return Some(Event::Control(control));
        }
        if self.verdicts.as_ref().is_some_and(|verdicts| verdicts.is_ready()) {
            return Some(Event::Decided);
        }
        if self.machine.takes_more()
            && let Ok(input) = self.inputs.try_recv()
        {
            return Some(Event::Arrived(input));
        }
        None
    }

    async fn happened(&mut self, event: Event, actions: &mut Vec<Action>) {
        let input = match event {
            Event::Control(control) => return self.control(control, actions).await,
            Event::Counted => Some(machine::Input::Counted(self.env.homes.now())),
            Event::Ended(ended) => self.take_in(ended),
            Event::Decided => {
                let Some(waited) = &self.verdicts else { return };
                let (Gathered { verdicts, missed }, is_complete) = waited.take();
                self.verdicts.take_if(|_| is_complete);
                for (delivery, verdict) in verdicts {
                    let input = self.verdict(delivery, verdict);
                    self.handle(input, actions).await;
                }
                for (partition, term) in missed {
                    self.handle(machine::Input::SupervisorDied { partition, term }, actions).await;
                }
                None
            }
            Event::Arrived(input) => {
                // An ownership that began while the lane was busy was sent before this input came in.
                while let Ok(control) = self.control.try_recv() {
                    self.control(control, actions).await;
                }
                // So were the counts by which a record's gate let it pass, and its aggregate's mail is asked
                // for by them.
                if let Some(growth) = self.env.homes.news() {
                    self.handle(machine::Input::Counted(growth), actions).await;
                }
                let arrival = self.arrive(input);
                Some(machine::Input::Arrived(arrival))
            }
            Event::Due => None,
        };
        if let Some(input) = input {
            self.handle(input, actions).await;
        }
    }

    async fn handle(&mut self, input: machine::Input, actions: &mut Vec<Action>) {
        self.machine.handle(input, self.now, actions);
        for action in actions.drain(..) {
            if !matches!(action, Action::Advance { .. } | Action::Undo { .. }) {
                self.tell_settled();
            }
            match action {
                Action::Ask { ask, messages } => self.look_up(ask, messages).await,
                action => self.perform(action),
            }
        }
        self.tell_settled();
    }

    async fn control(&mut self, control: Control, actions: &mut Vec<Action>) {
        match control {
            Control::Own(mut owned) => {
                let own = owned.own.clone();
                let partition = own.partition;
                self.handle(machine::Input::Own(own), actions).await; // stops what is left of an earlier ownership
                if let Some(supervisor) = self.kept.remove(&partition) {
                    owned.supervisor = supervisor;
                }
                self.owned.insert(partition, *owned);
            }
            Control::Drop { partition, term } => {
                self.handle(machine::Input::Drop { partition, term }, actions).await;
            }
            Control::Release { partition, term, done } => {
                if let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.own.term == term) {
                    owned.done = Some(done);
                    self.handle(machine::Input::Release { partition, term }, actions).await;
                }
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Decide { deliveries } => self.deliver(deliveries),
            Action::Advance { delivery, branch } => self.advance(delivery, branch),
            Action::Conclude { delivery, branch, term } => self.conclude(delivery, branch, term),
            Action::Undo { delivery } => {
                if let Some(decided) = self.decided.remove(&delivery) {
                    self.settle(&decided.delivery, None);
                }
            }
            Action::Publish => {
                let (rows, traced) = (std::mem::take(&mut self.in_flight.rows), self.in_flight.traced);
                self.in_flight = InFlight::default();
                if !rows.is_empty() {
                    let _ = self.relay.send(RelayMessage::Rows { rows: rows.into(), traced });
                }
            }
            Action::Note { topic, partition, next } => self.env.log.store_offset(&topic, partition, next),
            Action::Answer { message, reply } => self.answer(message, reply),
            Action::Done { message } => _ = self.bodies.remove(&message),
            Action::Passivate { partition, aggregates } => {
                if let Some(owned) = self.owned.get(&partition) {
                    let _ = owned.supervisor.send_message(PartitionMessage::Passivate { ids: aggregates });
                }
            }
            Action::Serve { partition, is_serving } => {
                if let Some(owned) = self.owned.get(&partition) {
                    owned.serving.store(is_serving, Ordering::Release);
                }
            }
            Action::Home { partition, count, serves } => {
                if let Some(term) = self.owned.get(&partition).map(|owned| owned.own.term) {
                    let home = Home { count, serves };
                    let _ = self.relay.send(RelayMessage::Home { partition, term, home });
                }
            }
            Action::Reload { partition, token, head } => {
                if let Some(term) = self.owned.get(&partition).map(|owned| owned.own.term) {
                    let _ = self.relay.send(RelayMessage::Reload { partition, term, token, head });
                }
            }
            Action::Remember { partition, batch } => {
                if let Some(owned) = self.owned.get(&partition) {
                    owned.remembered.store(batch, Ordering::Release);
                }
            }
            Action::Stop { partition, .. } => {
                if let Some(verdicts) = &self.verdicts {
                    verdicts.forget(partition);
                }
                let Some(owned) = self.owned.remove(&partition) else { return };
                if self.env.config.rules.drops_actors_when_fenced {
                    owned.supervisor.stop(None);
                } else {
                    self.kept.insert(partition, owned.supervisor.clone());
                }
            }
            Action::Released { partition, token, head } => {
                if let Some(done) = self.owned.get_mut(&partition).and_then(|owned| owned.done.take()) {
                    let _ = done.send((token, head));
                }
            }
            Action::HurryCounts => self.env.homes.hurry(),
            Action::Report(report) => self.report(report),
            Action::Find { .. }
            | Action::Ask { .. }
            | Action::Commit { .. }
            | Action::CommitAgain { .. }
            | Action::Compare { .. }
            | Action::Retoken { .. }
            | Action::Look { .. }
            | Action::Acknowledge { .. } => self.ask(action),
        }
    }

    /// Shows what the lane does.
    fn show(&mut self) {
        if std::mem::replace(&mut self.moved_shown, self.machine.moved()) != self.machine.moved() {
            self.pulse.moved();
        }
        match self.machine.doing() {
            Doing::Idle => self.pulse.idle(),
            Doing::Store => self.pulse.waits(DATABASE),
            Doing::LookUps => self.pulse.waits(LOOK_UPS),
            Doing::Deciding => self.pulse.step("deciding"),
        }
        self.tell_live(self.machine.live());
        self.tell_counts();
    }

    /// How many actors are in memory. The gauge is moved by the difference, because all lanes of the context
    /// share it.
    fn tell_live(&mut self, live: usize) {
        let before = std::mem::replace(&mut self.live_shown, live);
        if live != before {
            metrics::gauge!(telemetry::LIVE_ACTORS, "context" => self.env.context.name())
                .increment(size(live) - size(before));
        }
    }
}

/// What a task ended with. One that panicked ends as one that failed; where it took bodies with it, the lane
/// ends with it.
fn ended(ended: Result<Ended, Option<Ended>>) -> Ended {
    ended.unwrap_or_else(|note| note.expect("a look-up's adapter is guarded; only the runtime itself can panic there"))
}

/// Waits for verdicts; for ever if nothing is being decided.
async fn ready(verdicts: Option<&Verdicts>) {
    match verdicts {
        Some(verdicts) => verdicts.ready().await,
        None => std::future::pending().await,
    }
}
