//! A counter with every trait that a domain can have: rejection, condition, timer, look-up, panic.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::{
    Aggregate, Context, Decision, Effects, Message,
    codec::{Adapter, Aftermath, EncodedEvent, LookupFailed, StateError},
    dedup::Rejection,
    disposition::Refused,
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
    /// Fails until this many attempts were made, in all tests' counting.
    Panic,
}

/// So much was added; taken from the pool, if so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    n: i64,
    is_taken: bool,
}

impl Event {
    pub const fn added(n: i64) -> Self {
        Self { n, is_taken: false }
    }

    pub const fn taken(n: i64) -> Self {
        Self { n, is_taken: true }
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
            Command::Add(n) => Ok(Decision::event(Event::added(*n))),
            Command::Take(n) => Ok(Decision::Conditional {
                wants: vec![PoolChange::hold("stock", *n)],
                granted: Effects::event(Event::taken(*n)),
                refused: Err("sold out".into()),
            }),
            Command::Later => Ok(Decision::Done(Effects::none().with_timer("later", Duration::from_mins(1)))),
            Command::Fired => Ok(Decision::event(Event::added(1000))),
            Command::Ask(answer) => Ok(Decision::event(Event::added(answer.expect("prepared")))),
            Command::Panic => panic!("this command is poison"),
        }
    }

    fn evolve(&mut self, event: &Event) {
        self.sum += event.n;
    }
}

/// The look-up that `Ask` needs; can be away.
#[derive(Clone, Default)]
pub struct Oracle {
    pub is_away: Arc<AtomicBool>,
    pub calls: Arc<AtomicUsize>,
    /// How often decoding an "add" panics from now on: a bug in a codec.
    pub decode_panics: Arc<AtomicUsize>,
}

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

    fn handles(&self) -> Vec<&'static str> {
        vec!["add", "take", "later", "ask", "panic", "other.added"]
    }

    fn decode(&self, message: &Message) -> Result<Command, Refused> {
        if &*message.r#type == "add" && self.oracle.decode_panics.load(Ordering::SeqCst) > 0 {
            self.oracle.decode_panics.fetch_sub(1, Ordering::SeqCst);
            panic!("decoding panics, as the test asked");
        }
        match &*message.r#type {
            "add" | "other.added" => {
                let n = number(&message.payload)?;
                if n < 0 { Err(Refused::invalid("n", "n is negative")) } else { Ok(Command::Add(n)) }
            }
            "take" => Ok(Command::Take(number(&message.payload)?)),
            "later" => Ok(Command::Later),
            "ask" => Ok(Command::Ask(None)),
            "panic" => Ok(Command::Panic),
            _ => Err(Refused::unknown_type()),
        }
    }

    fn timer(&self, name: &str) -> Option<Command> {
        (name == "later").then_some(Command::Fired)
    }

    fn encode_event(&self, event: &Event, _: &Context<'_>) -> EncodedEvent {
        EncodedEvent { r#type: if event.is_taken { "taken" } else { "added" }, payload: event.n.to_string().into() }
    }

    fn decode_event(&self, message: &Message) -> Result<Event, Refused> {
        match &*message.r#type {
            "added" => Ok(Event::added(number(&message.payload)?)),
            "taken" => Ok(Event::taken(number(&message.payload)?)),
            _ => Err(Refused::unknown_type()),
        }
    }

    fn aftermath(&self, event: &Event, _: &Context<'_>) -> Aftermath {
        let pools = if event.is_taken { vec![PoolChange::hold("stock", event.n)] } else { Vec::new() };
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
