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
    codec::{Adapter, EncodedEvent, LookupFailed, StateError},
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

impl Aggregate for Counter {
    const KIND: &'static str = "counter";
    const SCHEMA: u32 = 1;
    type Command = Command;
    type Event = i64;
    type Rejection = String;

    fn decide(&self, command: &Command, _: &Context<'_>) -> Result<Decision<Self>, String> {
        match command {
            Command::Add(0) => Err("nothing to add".into()),
            Command::Add(n) => Ok(Decision::event(*n)),
            Command::Take(n) => Ok(Decision::Conditional {
                wants: vec![PoolChange::hold("stock", *n)],
                granted: Effects::event(*n),
                refused: Err("sold out".into()),
            }),
            Command::Later => Ok(Decision::Done(Effects::none().with_timer("later", Duration::from_mins(1)))),
            Command::Fired => Ok(Decision::event(1000)),
            Command::Ask(answer) => Ok(Decision::event(answer.expect("prepared"))),
            Command::Panic => panic!("this command is poison"),
        }
    }

    fn evolve(&mut self, event: &i64) {
        self.sum += event;
    }
}

/// The look-up that `Ask` needs; can be away.
#[derive(Clone, Default)]
pub struct Oracle {
    pub is_away: Arc<AtomicBool>,
    pub calls: Arc<AtomicUsize>,
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

    fn encode_event(&self, event: &i64, _: &Context<'_>) -> EncodedEvent {
        EncodedEvent { r#type: "added", payload: event.to_string().into() }
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
