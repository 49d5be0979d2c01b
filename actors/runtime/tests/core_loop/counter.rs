//! A counter with every trait that a domain can have: rejection, condition, timer, look-up, effect, message to another, panic.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::{
    Aggregate, Context, Decision, Effects, Message,
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
    /// Has the bank add so much.
    Charge(i64),
    Charged(i64),
    /// Adds so much to the counter of the same name in upper case.
    Tell(i64),
    /// Fails until this many attempts were made, in all tests' counting.
    Panic,
}

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
    /// Another is told of so much. Adds nothing.
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
            Command::Charge(n) => Ok(Decision::event(Event::Charging(*n))),
            Command::Charged(n) => Ok(Decision::event(Event::Charged(*n))),
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
    /// How long an answer takes.
    pub takes_ms: Arc<AtomicU64>,
    pub calls: Arc<AtomicUsize>,
    /// What the bank has given, by counter and effect: it knows a repeat.
    pub bank: Arc<Mutex<BTreeMap<(String, String), i64>>>,
    pub bank_calls: Arc<AtomicUsize>,
    /// How often the bank gives, and nobody hears of it.
    pub answers_lost: Arc<AtomicUsize>,
    /// How often decoding an "add" panics from now on: a bug in a codec.
    pub decode_panics: Arc<AtomicUsize>,
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
        let mut handled =
            ["take", "later", "ask", "charge", "tell", "panic"].map(|name| Handled::new(name, ANY)).to_vec();
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
        if &*message.r#type == "add" && self.oracle.decode_panics.load(Ordering::SeqCst) > 0 {
            self.oracle.decode_panics.fetch_sub(1, Ordering::SeqCst);
            panic!("decoding panics, as the test asked");
        }
        match &*message.r#type {
            "add" | "other.added" | "private" | "reported" | "told" | "fired" | "charged" => {
                let n = number(&message.payload)?;
                if n < 0 { Err(Refused::invalid("n", "n is negative")) } else { Ok(Command::Add(n)) }
            }
            "take" => Ok(Command::Take(number(&message.payload)?)),
            "later" => Ok(Command::Later),
            "ask" => Ok(Command::Ask(None)),
            "charge" => Ok(Command::Charge(number(&message.payload)?)),
            "tell" => Ok(Command::Tell(number(&message.payload)?)),
            "panic" => Ok(Command::Panic),
            _ => Err(Refused::unknown_type()),
        }
    }

    fn timer(&self, name: &str) -> Option<Command> {
        (name == "later").then_some(Command::Fired)
    }

    fn encode_event(&self, event: &Event, _: &Context<'_>) -> EncodedEvent {
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
        state.sum.to_string().into()
    }

    fn decode_state(&self, schema: u32, bytes: &[u8]) -> Result<Counter, StateError> {
        let error = |refused: Refused| StateError { schema, reason: refused.error };
        Ok(Counter { sum: number(bytes).map_err(error)? })
    }

    fn encode_reply(&self, state: &Counter, _: &Context<'_>) -> Bytes {
        state.sum.to_string().into()
    }

    fn rejection(&self, rejection: &String) -> Rejection {
        Rejection { code: rejection.to_uppercase().replace(' ', "_"), message: rejection.clone() }
    }

    fn view(&self, state: &Counter, context: &Context<'_>) -> Option<serde_json::Value> {
        Some(serde_json::json!({ "key": context.key, "sum": state.sum }))
    }

    fn looks_up(&self, command: &Command) -> bool {
        matches!(command, Command::Ask(_))
    }

    async fn prepare(&self, commands: &mut [&mut Command]) -> Vec<Result<(), LookupFailed>> {
        let asks: Vec<_> = commands
            .iter_mut()
            .map(|command| match command {
                Command::Ask(answer) => Some(answer),
                _ => None,
            })
            .collect();
        if asks.iter().any(Option::is_some) {
            self.oracle.calls.fetch_add(1, Ordering::SeqCst);
            match self.oracle.takes_ms.load(Ordering::SeqCst) {
                0 => {}
                ms => tokio::time::sleep(Duration::from_millis(ms)).await,
            }
        }
        asks.into_iter()
            .map(|ask| match ask {
                Some(_) if self.oracle.is_away.load(Ordering::SeqCst) => Err(LookupFailed("the oracle is away".into())),
                Some(answer) => {
                    *answer = Some(42);
                    Ok(())
                }
                None => Ok(()),
            })
            .collect()
    }
}
