//! The Payment aggregate, keyed by order id: how it begins, and which decision is whose.
//!
//! Invariants: a payment is asked for at most once; a cancellation that comes first forestalls it; one that
//! comes while the outcome is not known is remembered, and the outcome is then undone. News of orders and of
//! the provider never err for coming twice or late. A provider that contradicts what was asked stops the
//! payment: no later command begins a call, and of later news only its order's cancellation is noted.

use std::sync::Arc;

use holdfast_core::{Aggregate, Context, Decision, Timestamp};
use holdfast_money::{FxRate, Money};

use crate::{
    CAPTURE, CHARGE, Command, Contradiction, Details, Event, Outcome, Quote, Rejection, Status, code,
    details::{evolve, settle},
};

/// The provider's reference of a payment that the provider was never asked for, because the order costs
/// nothing.
pub const NOTHING_TO_PAY: &str = "none";

/// One order's payment, or the place where it will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payment(Option<Details>);

impl Payment {
    /// A payment as it was stored. Trusted: nothing is checked.
    pub const fn rehydrate(details: Details) -> Self {
        Self(Some(details))
    }

    /// What there is to know; `None` if neither a payment was asked for nor its order cancelled.
    pub const fn details(&self) -> Option<&Details> {
        self.0.as_ref()
    }
}

impl Aggregate for Payment {
    const KIND: &'static str = "payment";
    const SCHEMA: u32 = 1;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(&self, command: &Command, context: &Context<'_>) -> Result<Decision<Self>, Rejection> {
        let at = context.now;
        let events = match (&self.0, command) {
            (None, Command::OrderReserved { amount, payment_method, authorize_first, quote }) => {
                begin(at, *amount, payment_method.as_ref(), *authorize_first, *quote)?
            }
            (None, Command::OrderCancelled) => vec![Event::PaymentVoided { at }],
            (None, Command::RefundPayment { .. }) => return Err(Rejection::PaymentNotFound),
            (None, _) | (Some(_), Command::OrderReserved { .. }) => Vec::new(),
            (Some(details), command) => details.decide(command, at)?,
        };
        Ok(Decision::events(events))
    }

    fn evolve(&mut self, event: &Event) {
        match (&mut self.0, event) {
            (Some(details), event) => evolve(details, event),
            (None, Event::PaymentRequested { at, amount, .. }) => {
                self.0 = Some(new(*at, Some(*amount), Status::Requested));
            }
            (None, Event::PaymentVoided { at }) => {
                self.0 = Some(Details { cancelled: true, ..new(*at, None, Status::Voided) });
            }
            (None, _) => {}
        }
    }
}

impl Details {
    fn decide(&self, command: &Command, at: Timestamp) -> Result<Vec<Event>, Rejection> {
        if self.contradiction.is_some() {
            return self.decide_stopped(command, at);
        }
        match command {
            // The first command only; see `Payment::decide`.
            Command::OrderReserved { .. } => Ok(Vec::new()),
            Command::OrderCancelled => self.cancel(at),
            Command::RefundPayment { id, amount } => self.refund(at, id, *amount),
            Command::ChargeSucceeded { reference, outcome: Outcome::Authorized } => {
                Ok(self.authorized(at, CHARGE, reference, None))
            }
            Command::ChargeSucceeded { reference, outcome: Outcome::Captured { rate } } => {
                self.captured(at, CHARGE, reference, *rate)
            }
            Command::ChargeDeclined { code } => Ok(self.declined(at, code)),
            Command::CaptureSucceeded { amount, rate } => match &self.reference {
                Some(reference) if self.amount == Some(*amount) => self.captured(at, CAPTURE, reference, *rate),
                Some(_) => Ok(self.stop(at, Contradiction::amount(self.amount, *amount).in_answer_to(CAPTURE))),
                None => Ok(Vec::new()),
            },
            Command::AuthorizationEnded => Ok(self.called_off(at, None)),
            Command::RefundSucceeded { number, reference } => self.refund_succeeded(at, *number, reference),
            Command::RefundRefused { number, code } => Ok(self.refund_refused(at, *number, code)),
            Command::ProviderContradicted { contradiction } => Ok(self.stop(at, contradiction.clone())),
            Command::ProviderReported { reference, news } => news.decide(self, reference, at),
        }
    }

    /// What a payment that is stopped makes of a command: it notes that its order was cancelled, and begins
    /// nothing.
    fn decide_stopped(&self, command: &Command, at: Timestamp) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::OrderCancelled if !self.cancelled => Ok(vec![Event::PaymentCancellationNoted { at, voids: None }]),
            Command::RefundPayment { id, amount } => self.refund(at, id, *amount),
            _ => Ok(Vec::new()),
        }
    }
}

/// Asks for a payment, or ends it at once where there is nothing to ask.
fn begin(
    at: Timestamp,
    amount: Money,
    payment_method: Option<&Arc<str>>,
    authorize_first: bool,
    quote: Quote,
) -> Result<Vec<Event>, Rejection> {
    let requested = Event::PaymentRequested { at, amount, payment_method: payment_method.cloned(), authorize_first };
    let declined = |code: &str| Event::PaymentDeclined { at, code: code.into() };
    let next = match quote {
        Quote::NotAsked => return Err(Rejection::RateNotAsked),
        Quote::NoRate => Some(declined(code::NO_RATE)),
        Quote::Rate(rate) => match settle(amount, rate) {
            Err(_) => Some(declined(code::AMOUNT_TOO_LARGE)),
            Ok(settled) if amount.is_zero() => Some(free(at, amount, rate, settled)),
            Ok(_) if payment_method.is_none() => Some(declined(code::NO_PAYMENT_METHOD)),
            Ok(_) => None,
        },
    };
    Ok([requested].into_iter().chain(next).collect())
}

/// What costs nothing is paid for.
fn free(at: Timestamp, amount: Money, rate: FxRate, settled: Money) -> Event {
    Event::PaymentCaptured { at, reference: NOTHING_TO_PAY.into(), amount, rate, settled }
}

const fn new(at: Timestamp, amount: Option<Money>, status: Status) -> Details {
    Details {
        amount,
        status,
        reference: None,
        settlement: None,
        cancelled: false,
        refunds: Vec::new(),
        contradiction: None,
        created_at: at,
        updated_at: at,
    }
}
