//! A counter with every trait that a domain can have: rejection, condition, timer, look-up, effect, message
//! to another, panic.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::{
    Aggregate, Context, Decision, Effects, Message,
    batch::ViewRow,
    codec::{Adapter, Aftermath, Again, Attempt, EncodedEffect, EncodedEvent, LookupFailed, Outgoing, StateError},
    dedup::Rejection,
    disposition::Refused,
    origin::{Handled, MessageOrigin},
    pool::PoolChange,
};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counter {
    pub sum: i64,
}

#[derive(Debug)]
pub enum Command {
    Add(i64),
    /// Takes from the pool "stock".
    Take(i64),
    /// Adds 1000 after a minute.
    Later,
    Fired,
    /// Needs a look-up.
    Ask(Option<i64>),
    /// Needs a look-up about the counter's own sum: what was asked about, and the answer.
    Recount {
        key: String,
        answer: Option<(i64, i64)>,
    },
    /// Has the bank add so much.
    Charge(i64),
    Charged(i64),
    /// Adds so much to the counter of the same name in upper case.
    Tell(i64),
    /// Adds the cursed sum, after a look-up.
    Curse,
    /// Returns once [`DECISIONS`] is free.
    Wait,
    /// Fails until this many attempts were made, in all tests' counting.
    Panic,
}

/// Held by a test whose handler is not to return.
pub static DECISIONS: Mutex<()> = Mutex::new(());

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// So much was added.
    Added(i64),
    /// The same, taken from the pool.
    Taken(i64),
    /// The bank is to be asked for so much. Adds nothing.
    Charging(i64),
    /// The bank has given so much.
    Charged(i64),
    /// Another counter is sent so much. Adds nothing.
    Told(i64),
}

impl Event {
    /// What it adds; its body.
    const fn adds(self) -> i64 {
        match self {
            Self::Added(n) | Self::Taken(n) | Self::Charged(n) => n,
            Self::Charging(_) | Self::Told(_) => 0,
        }
    }
}

impl Aggregate for Counter {
    const KIND: &'static str = "counter";
    const SCHEMA: u32 = 1;
    type Command = Command;
    type Event = Event;
    type Rejection = String;

    fn decide(&self, command: &Command, _: &Context<'_>) -> Result<Decision<Self>, String> {
        match command {
            Command::Add(0) => Err("nothing to add".into()),
            Command::Add(n) => Ok(Decision::event(Event::Added(*n))),
            Command::Take(n) => Ok(Decision::Conditional {
                wants: vec![PoolChange::hold("stock", *n)],
                granted: Effects::event(Event::Taken(*n)),
                refused: Err("sold out".into()),
            }),
            Command::Later => Ok(Decision::Done(Effects::none().with_timer("later", Duration::from_mins(1)))),
            Command::Fired => Ok(Decision::event(Event::Added(1000))),
            Command::Ask(answer) => Ok(Decision::event(Event::Added(answer.expect("prepared")))),
            Command::Recount { answer, .. } => Ok(match answer {
                Some((sum, answer)) if *sum == self.sum => Decision::event(Event::Added(*answer)),
                _ => Decision::Unprepared("the oracle was not asked about this sum"),
            }),
            Command::Charge(n) => Ok(Decision::event(Event::Charging(*n))),
            Command::Charged(n) => Ok(Decision::event(Event::Charged(*n))),
            Command::Wait => {
                drop(DECISIONS.lock());
                Ok(Decision::Done(Effects::none()))
            }
            Command::Curse => Ok(Decision::event(Event::Added(CURSED))),
            Command::Tell(n) => Ok(Decision::event(Event::Told(*n))),
            Command::Panic => panic!("this command is poison"),
        }
    }

    fn evolve(&mut self, event: &Event) {
        self.sum += event.adds();
    }
}

/// The look-up that `Ask` needs; can be away.
#[derive(Clone, Default)]
pub struct Oracle {
    pub is_away: Arc<AtomicBool>,
    /// Whether what `Ask` needs is known without asking.
    pub is_remembered: Arc<AtomicBool>,
    /// How long an answer takes.
    pub takes_ms: Arc<AtomicU64>,
    pub calls: Arc<AtomicUsize>,
    /// What the bank has given, by counter and effect: it knows a repeat.
    pub bank: Arc<Mutex<BTreeMap<(String, String), i64>>>,
    pub bank_calls: Arc<AtomicUsize>,
    /// How often the bank gives, and nobody hears of it.
    pub answers_lost: Arc<AtomicUsize>,
    /// The sums that the adapter has observed, by counter.
    pub observed: Arc<Mutex<BTreeMap<String, i64>>>,
    /// The steps that panic on something cursed: a "curse", a sum of [`CURSED`], or the key `cursed`.
    pub panics: Arc<Mutex<BTreeSet<&'static str>>>,
}

/// The sum from which on [`Oracle::panics`] happen.
pub const CURSED: i64 = 666;

impl Oracle {
    /// Panics if `step` is to, and what it works on is cursed.
    fn curse(&self, step: &'static str, is_cursed: bool) {
        let panics = is_cursed && self.panics.lock().unwrap_or_else(PoisonError::into_inner).contains(step);
        assert!(!panics, "a secret in {step}");
    }
}

/// The other context of the tests.
const OTHER: &[MessageOrigin] =
    &[MessageOrigin::Events { topic: "other.events", sources: &["other", "holdfast/other/"] }];

#[derive(Clone, Default)]
pub struct CounterAdapter {
    pub oracle: Oracle,
}

fn number(bytes: &[u8]) -> Result<i64, Refused> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refused::undecodable("not text"))?;
    text.parse().map_err(|_| Refused::undecodable("not a number"))
}

#[async_trait]
impl Adapter for CounterAdapter {
    type Aggregate = Counter;

    fn handles(&self) -> Vec<Handled> {
        const ANY: &[MessageOrigin] = &[MessageOrigin::Commands, MessageOrigin::Call];
        let mut handled = ["take", "later", "ask", "recount", "charge", "tell", "panic", "curse", "wait"]
            .map(|name| Handled::new(name, ANY))
            .to_vec();
        handled.extend([
            Handled::new("add", &[MessageOrigin::Commands, MessageOrigin::Sent, MessageOrigin::Call]),
            Handled::new("other.added", OTHER),
            Handled::new("private", &[MessageOrigin::Call]),
            Handled::new("reported", &[MessageOrigin::Webhook("bank/webhook")]),
            Handled::new("told", &[MessageOrigin::Sent]),
            Handled::new("fired", &[MessageOrigin::Timer("later")]),
            Handled::new("charged", &[MessageOrigin::Effect("charge")]),
        ]);
        handled
    }

    fn check_key(&self, key: &str) -> Result<(), Refused> {
        if key == "no counter" { Err(Refused::invalid("key", "no counter has this key")) } else { Ok(()) }
    }

    fn decode(&self, message: &Message) -> Result<Command, Refused> {
        self.oracle.curse("decode", &*message.r#type == "curse");
        match &*message.r#type {
            "add" | "other.added" | "private" | "reported" | "told" | "fired" | "charged" => {
                let n = number(&message.payload)?;
                if n < 0 { Err(Refused::invalid("n", "n is negative")) } else { Ok(Command::Add(n)) }
            }
            "take" => Ok(Command::Take(number(&message.payload)?)),
            "later" => Ok(Command::Later),
            "ask" => Ok(Command::Ask(None)),
            "recount" => Ok(Command::Recount { key: message.key.to_string(), answer: None }),
            "charge" => Ok(Command::Charge(number(&message.payload)?)),
            "tell" => Ok(Command::Tell(number(&message.payload)?)),
            "curse" => Ok(Command::Curse),
            "wait" => Ok(Command::Wait),
            "panic" => Ok(Command::Panic),
            _ => Err(Refused::unknown_type()),
        }
    }

    fn timer(&self, name: &str) -> Option<Command> {
        self.oracle.curse("timer", true);
        (name == "later").then_some(Command::Fired)
    }

    fn encode_event(&self, event: &Event, _: &Context<'_>) -> EncodedEvent {
        self.oracle.curse("encode_event", *event == Event::Added(CURSED));
        let r#type = match event {
            Event::Added(_) => "added",
            Event::Taken(_) => "taken",
            Event::Charging(_) => "charging",
            Event::Charged(_) => "charged",
            Event::Told(_) => "told",
        };
        EncodedEvent { r#type, payload: event.adds().to_string().into() }
    }

    fn commands_after(&self, event: &Event, context: &Context<'_>) -> Vec<Outgoing> {
        let Event::Told(n) = event else { return Vec::new() };
        vec![Outgoing { key: context.key.to_uppercase(), r#type: "add", payload: n.to_string().into() }]
    }

    fn effects_after(&self, event: &Event, context: &Context<'_>) -> Vec<EncodedEffect> {
        let Event::Charging(n) = event else { return Vec::new() };
        vec![EncodedEffect { name: format!("charge:{}", context.version), request: Some(n.to_string().into()) }]
    }

    fn has_effects(&self) -> bool {
        true
    }

    async fn perform(&self, attempt: &Attempt) -> Result<Command, Again> {
        self.oracle.bank_calls.fetch_add(1, Ordering::SeqCst);
        self.oracle.curse("perform", true);
        if self.oracle.is_away.load(Ordering::SeqCst) {
            return Err(Again { reason: "the bank is away".into(), after: None });
        }
        let n = number(&attempt.request).map_err(|refused| Again { reason: refused.error, after: None })?;
        let id = (attempt.key.to_string(), attempt.name.clone());
        let given = *self.oracle.bank.lock().expect("nobody panics with it").entry(id).or_insert(n);
        let is_lost = |left: usize| left.checked_sub(1);
        if self.oracle.answers_lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_lost).is_ok() {
            std::future::pending::<()>().await;
        }
        Ok(Command::Charged(given))
    }

    fn decode_event(&self, message: &Message) -> Result<Event, Refused> {
        match &*message.r#type {
            "added" => Ok(Event::Added(number(&message.payload)?)),
            "taken" => Ok(Event::Taken(number(&message.payload)?)),
            "charged" => Ok(Event::Charged(number(&message.payload)?)),
            "charging" => Ok(Event::Charging(10)),
            "told" => Ok(Event::Told(100)),
            _ => Err(Refused::unknown_type()),
        }
    }

    fn aftermath(&self, event: &Event, _: &Context<'_>) -> Aftermath {
        let pools = if let Event::Taken(n) = event { vec![PoolChange::hold("stock", *n)] } else { Vec::new() };
        Aftermath { pools, timers: Vec::new() }
    }

    fn encode_state(&self, state: &Counter) -> Bytes {
        self.oracle.curse("encode_state", state.sum >= CURSED);
        state.sum.to_string().into()
    }

    fn decode_state(&self, schema: u32, bytes: &[u8]) -> Result<Counter, StateError> {
        let error = |refused: Refused| StateError { schema, reason: refused.error };
        self.oracle.curse("decode_state", number(bytes).is_ok_and(|sum| sum >= CURSED));
        Ok(Counter { sum: number(bytes).map_err(error)? })
    }

    fn encode_reply(&self, state: &Counter, _: &Context<'_>) -> Bytes {
        self.oracle.curse("encode_reply", state.sum >= CURSED);
        state.sum.to_string().into()
    }

    fn rejection(&self, rejection: &String) -> Rejection {
        Rejection { code: rejection.to_uppercase().replace(' ', "_"), message: rejection.clone() }
    }

    fn view(&self, state: &Counter, context: &Context<'_>) -> Option<ViewRow> {
        self.oracle.curse("view", state.sum >= CURSED);
        Some(ViewRow::of(&serde_json::json!({ "key": context.key, "sum": state.sum })))
    }

    fn looks_up(&self, command: &Command) -> Option<&'static str> {
        self.oracle.curse("looks_up", matches!(command, Command::Curse));
        match command {
            Command::Ask(None) | Command::Curse => Some("oracle"),
            Command::Recount { answer: None, .. } => Some("abacus"),
            _ => None,
        }
    }

    fn observe(&self, key: &str, state: &Counter) {
        self.oracle.observed.lock().expect("nobody panics with it").insert(key.to_owned(), state.sum);
    }

    fn recall(&self, command: &mut Command) {
        if let (Command::Ask(answer @ None), true) = (command, self.oracle.is_remembered.load(Ordering::SeqCst)) {
            *answer = Some(42);
        }
    }

    async fn prepare(&self, commands: &mut [&mut Command]) -> Vec<Result<(), LookupFailed>> {
        self.oracle.curse("prepare", commands.iter().any(|command| matches!(command, Command::Curse)));
        if commands.iter().any(|command| !matches!(command, Command::Curse)) {
            self.oracle.calls.fetch_add(1, Ordering::SeqCst);
            match self.oracle.takes_ms.load(Ordering::SeqCst) {
                0 => {}
                ms => tokio::time::sleep(Duration::from_millis(ms)).await,
            }
        }
        let answer = |command: &mut Command| match command {
            Command::Curse => Ok(()),
            _ if self.oracle.is_away.load(Ordering::SeqCst) => Err(LookupFailed("the oracle is away".into())),
            Command::Ask(answer) => {
                *answer = Some(42);
                Ok(())
            }
            Command::Recount { key, answer } => {
                let observed = self.oracle.observed.lock().expect("nobody panics with it");
                *answer = observed.get(key).map(|sum| (*sum, 100));
                Ok(())
            }
            _ => panic!("it needs no look-up"),
        };
        commands.iter_mut().map(|command| answer(command)).collect()
    }
}
