//! The Payment aggregate's adapter: bytes in, bytes out.
//!
//! Invariant: a command that gets past [`PaymentAdapter::decode`] keeps every promise of `commands.proto`.
//! Deliberately absent: the meaning of orders' events ([`crate::subscriptions`]), and the calls to the
//! provider themselves ([`crate::perform`]).

mod commands;
mod effects;
mod events;
mod parts;
mod recover;
mod reply;
mod state;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_adapter::check;
use holdfast_core::{
    Context, Message,
    batch::ViewRow,
    codec::{Adapter, Again, Attempt, EncodedEffect, EncodedEvent, LookupFailed, StateError},
    dedup,
    disposition::Refused,
    origin::Handled,
};
use holdfast_money::Currency;
use holdfast_payments_domain::{Command, Event, News, Payment, Quote, Rejection};

pub use commands::{PROVIDER_REPORTED, REFUND_PAYMENT, WEBHOOK_SOURCE};
pub(crate) use commands::{encode_report, order_id};
pub use effects::{decode_call, effects_after};
pub use state::decode as decode_state;

use crate::{perform, projection, provider::Provider, rates::RateSource, settings::Settings, subscriptions};

/// The adapter of [`Payment`].
pub struct PaymentAdapter {
    settings: Settings,
    rates: Arc<dyn RateSource>,
    provider: Arc<dyn Provider>,
}

impl PaymentAdapter {
    /// With rates and money from there.
    pub fn new(settings: Settings, rates: Arc<dyn RateSource>, provider: Arc<dyn Provider>) -> Self {
        Self { settings, rates, provider }
    }
}

#[async_trait]
impl Adapter for PaymentAdapter {
    type Aggregate = Payment;

    fn handles(&self) -> Vec<Handled> {
        [commands::HANDLED, subscriptions::HANDLED].concat()
    }

    fn check_key(&self, key: &str) -> Result<(), Refused> {
        check::canonical_uuid("order_id", key).map(drop)
    }

    fn decode(&self, message: &Message) -> Result<Command, Refused> {
        match commands::decode(message).or_else(|| subscriptions::decode(message, self.settings)) {
            Some(decoded) => decoded,
            None => Err(Refused::unknown_type()),
        }
    }

    fn encode_event(&self, event: &Event, context: &Context<'_>) -> EncodedEvent {
        events::encode(event, context.key)
    }

    fn decode_event(&self, message: &Message) -> Result<Event, Refused> {
        recover::decode(message)
    }

    fn effects_after(&self, event: &Event, context: &Context<'_>) -> Vec<EncodedEffect> {
        effects_after(event, context.key)
    }

    fn has_effects(&self) -> bool {
        true
    }

    async fn perform(&self, attempt: &Attempt) -> Result<Command, Again> {
        perform::perform(&*self.provider, &*self.rates, attempt).await
    }

    fn encode_state(&self, state: &Payment) -> Bytes {
        state::encode(state)
    }

    fn decode_state(&self, schema: u32, bytes: &[u8]) -> Result<Payment, StateError> {
        state::decode(schema, bytes)
    }

    fn encode_reply(&self, state: &Payment, context: &Context<'_>) -> Bytes {
        reply::encode(state, context)
    }

    fn rejection(&self, rejection: &Rejection) -> dedup::Rejection {
        dedup::Rejection { code: rejection.code().to_owned(), message: rejection.to_string() }
    }

    fn view(&self, state: &Payment, context: &Context<'_>) -> Option<ViewRow> {
        projection::row(state, context.key)
    }

    fn looks_up(&self, command: &Command) -> Option<&'static str> {
        let needs_rate = matches!(
            command,
            Command::OrderReserved { .. } | Command::ProviderReported { news: News::Captured { .. }, .. }
        );
        needs_rate.then_some("rates")
    }

    /// Asks each currency's rate once for the whole batch.
    async fn prepare(&self, commands: &mut [&mut Command]) -> Vec<Result<(), LookupFailed>> {
        let mut known = Vec::<(Currency, Result<Quote, LookupFailed>)>::new();
        let mut results = Vec::with_capacity(commands.len());
        for command in commands {
            let Some((currency, quote)) = wanted(command) else {
                results.push(Ok(()));
                continue;
            };
            if !known.iter().any(|(asked, _)| *asked == currency) {
                known.push((currency, crate::rates::quote(&*self.rates, currency).await));
            }
            let answer = known.iter().find(|(asked, _)| *asked == currency).map(|(_, answer)| answer.clone());
            results.push(match answer {
                Some(Ok(answer)) => {
                    *quote = answer;
                    Ok(())
                }
                Some(Err(failed)) => Err(failed),
                None => Ok(()),
            });
        }
        results
    }
}

/// The currency whose rate a command needs, and where it goes.
fn wanted(command: &mut Command) -> Option<(Currency, &mut Quote)> {
    match command {
        Command::OrderReserved { amount, quote, .. }
        | Command::ProviderReported { news: News::Captured { amount, quote }, .. } => Some((amount.currency, quote)),
        _ => None,
    }
}
