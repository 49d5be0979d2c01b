//! What there is to know about a payment, and what it makes of each command.
//!
//! Invariants: what is given back or on its way back is never more than what was captured; a payment's
//! refunds in the books' currency add up to what was settled, once it is given back in full; of what comes
//! twice or late, nothing changes what is further already; a report of money under another reference, of
//! another amount or beyond what was asked stops the payment. Reports of attempts that failed or were called
//! off under another reference stop nothing: a key that ended leaves such an attempt behind, and no money
//! moves with it.

use std::sync::Arc;

use holdfast_core::Timestamp;
use holdfast_money::{Error, FxRate, Money};

use crate::{Cause, Contradiction, Event, News, Quote, REFUNDS_MAX, REPORT, Refund, Rejection, State, Then, code};

/// What there is to know about a payment that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// What the order costs; `None` if it was cancelled before a payment was asked for.
    pub amount: Option<Money>,
    /// Where it is in its life.
    pub status: Status,
    /// The provider's reference, once it is known.
    pub reference: Option<Arc<str>>,
    /// What the books have, once the money moved.
    pub settlement: Option<Settlement>,
    /// Whether the order was cancelled.
    pub cancelled: bool,
    /// By number.
    pub refunds: Vec<Refund>,
    /// What the provider said otherwise than it was asked; the payment is stopped since then.
    pub contradiction: Option<Contradiction>,
    /// When its first event happened, by the owning node's clock.
    pub created_at: Timestamp,
    /// When its last event happened, by the owning node's clock.
    pub updated_at: Timestamp,
}

/// A captured amount in the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The rate when the money moved.
    pub rate: FxRate,
    /// The amount in the books' currency.
    pub settled: Money,
}

/// Where a payment is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The provider is being asked.
    Requested,
    /// The provider holds the amount.
    Authorized,
    /// The money moved.
    Captured,
    /// Some of it was given back.
    PartiallyRefunded,
    /// All of it was given back.
    Refunded,
    /// No money moved.
    Declined {
        /// Why.
        code: Arc<str>,
    },
    /// No money moved, since the order was cancelled.
    Voided,
}

impl Status {
    /// Its name on the wire and in rejections.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Requested => "REQUESTED",
            Self::Authorized => "AUTHORIZED",
            Self::Captured => "CAPTURED",
            Self::PartiallyRefunded => "PARTIALLY_REFUNDED",
            Self::Refunded => "REFUNDED",
            Self::Declined { .. } => "DECLINED",
            Self::Voided => "VOIDED",
        }
    }
}

impl Details {
    /// How much was captured and given back, or is on its way back.
    fn returning(&self, amount: Money) -> Result<Money, Rejection> {
        let returning = self.refunds.iter().filter(|refund| refund.is_pending() || refund.is_done());
        Money::sum(amount.currency, returning.map(|refund| refund.amount)).map_err(no_sum)
    }

    /// How much was given back.
    pub fn refunded(&self) -> Option<Money> {
        let done = self.refunds.iter().filter(|refund| refund.is_done()).map(|refund| refund.amount);
        self.amount.and_then(|amount| Money::sum(amount.currency, done).ok())
    }

    /// How much of the settled amount was given back.
    pub fn settled_refunded(&self) -> Option<Money> {
        let done = self.refunds.iter().filter_map(|refund| match refund.state {
            State::Done { settled, .. } => Some(settled),
            _ => None,
        });
        self.settlement.and_then(|settlement| Money::sum(settlement.settled.currency, done).ok())
    }

    pub(crate) fn cancel(&self, at: Timestamp) -> Result<Vec<Event>, Rejection> {
        if self.cancelled || matches!(self.status, Status::Declined { .. } | Status::Voided) {
            return Ok(Vec::new());
        }
        let authorization = self.reference.clone().filter(|_| self.status == Status::Authorized);
        let mut events = vec![Event::PaymentCancellationNoted { at, voids: authorization }];
        if self.is_captured() {
            events.extend(self.give_back_rest(at, self.refunds.len(), Cause::OrderCancelled)?);
        }
        Ok(events)
    }

    pub(crate) fn refund(&self, at: Timestamp, id: &Arc<str>, wanted: Money) -> Result<Vec<Event>, Rejection> {
        let known =
            self.refunds.iter().find(|refund| matches!(&refund.cause, Cause::Requested { id: known } if known == id));
        match known {
            Some(known) if known.amount == wanted => return Ok(Vec::new()),
            Some(_) => return Err(Rejection::RefundIdReused),
            None => {}
        }
        if self.contradiction.is_some() {
            return Err(Rejection::PaymentContradicted);
        }
        let (true, Some(amount), Some(reference)) = (self.is_captured(), self.amount, self.reference.clone()) else {
            return Err(Rejection::WrongState { status: self.status.name() });
        };
        if wanted.currency != amount.currency {
            return Err(Rejection::CurrencyMismatch { payment: amount.currency, other: wanted.currency });
        }
        if wanted.minor <= 0 {
            return Err(Rejection::AmountNotPositive);
        }
        let left = amount.minus(self.returning(amount)?).map_err(no_sum)?;
        if wanted.minor > left.minor {
            return Err(Rejection::RefundExceedsCaptured);
        }
        if self.refunds.len() >= REFUNDS_MAX {
            return Err(Rejection::TooManyRefunds);
        }
        let number = number_after(self.refunds.len());
        let cause = Cause::Requested { id: id.clone() };
        Ok(vec![Event::RefundRequested { at, number, amount: wanted, cause, reference }])
    }

    /// Stops the payment: every call that is under way ends.
    pub(crate) fn stop(&self, at: Timestamp, contradiction: Contradiction) -> Vec<Event> {
        let refunds = self.refunds.iter().filter(|refund| refund.is_pending()).map(|refund| refund.number).collect();
        vec![Event::PaymentContradicted { at, contradiction, refunds }]
    }

    /// The payment's reference, if it is another one than this.
    fn other_than(&self, reference: &Arc<str>) -> Option<&Arc<str>> {
        self.reference.as_ref().filter(|known| *known != reference)
    }

    /// The provider holds the amount, by its answer to the call `source` or by its report; `said` is how
    /// much, if it was said.
    pub(crate) fn authorized(
        &self,
        at: Timestamp,
        source: &str,
        reference: &Arc<str>,
        said: Option<Money>,
    ) -> Vec<Event> {
        if let Some(known) = self.other_than(reference) {
            return self.stop(at, Contradiction::charge(known, reference).in_answer_to(source));
        }
        if let Some(said) = said.filter(|said| self.amount != Some(*said)) {
            return self.stop(at, Contradiction::amount(self.amount, said).in_answer_to(source));
        }
        let (Status::Requested, Some(amount)) = (&self.status, self.amount) else { return Vec::new() };
        let then = if self.cancelled { Then::Void } else { Then::Capture };
        vec![Event::PaymentAuthorized { at, reference: reference.clone(), amount, then }]
    }

    /// The money moved, by the provider's answer to the call `source` or by its report.
    pub(crate) fn captured(
        &self,
        at: Timestamp,
        source: &str,
        reference: &Arc<str>,
        rate: FxRate,
    ) -> Result<Vec<Event>, Rejection> {
        let Some(amount) = self.amount else { return Ok(Vec::new()) };
        if let Some(known) = self.other_than(reference) {
            return Ok(self.stop(at, Contradiction::charge(known, reference).in_answer_to(source)));
        }
        let back = match &self.status {
            Status::Captured | Status::PartiallyRefunded | Status::Refunded => return Ok(Vec::new()),
            Status::Requested | Status::Authorized => self.cancelled.then_some(Cause::OrderCancelled),
            // The order goes by the event that said that no money moved: money that moved all the same goes
            // back.
            Status::Declined { .. } | Status::Voided => Some(Cause::LateCapture),
        };
        let settled = settle(amount, rate)?;
        let mut events = vec![Event::PaymentCaptured { at, reference: reference.clone(), amount, rate, settled }];
        if let Some(cause) = back {
            events.push(Event::RefundRequested { at, number: 1, amount, cause, reference: reference.clone() });
        }
        Ok(events)
    }

    pub(crate) fn captured_by_report(
        &self,
        at: Timestamp,
        reference: &Arc<str>,
        amount: Money,
        quote: Quote,
    ) -> Result<Vec<Event>, Rejection> {
        if self.amount != Some(amount) {
            return Ok(self.stop(at, Contradiction::amount(self.amount, amount)));
        }
        match quote {
            Quote::Rate(rate) => self.captured(at, REPORT, reference, rate),
            Quote::NoRate => Err(Rejection::NoRate { currency: amount.currency }),
            Quote::NotAsked => Err(Rejection::RateNotAsked),
        }
    }

    pub(crate) fn declined(&self, at: Timestamp, code: &Arc<str>) -> Vec<Event> {
        match self.status {
            Status::Requested => vec![Event::PaymentDeclined { at, code: code.clone() }],
            _ => Vec::new(),
        }
    }

    /// The authorization, or the whole payment, was called off; `reference` is whose, if that was said.
    pub(crate) fn called_off(&self, at: Timestamp, reference: Option<&Arc<str>>) -> Vec<Event> {
        let another = reference.is_some() && self.reference.is_some() && self.reference.as_ref() != reference;
        match self.status {
            Status::Requested | Status::Authorized if another => Vec::new(),
            Status::Requested | Status::Authorized if self.cancelled => vec![Event::PaymentVoided { at }],
            Status::Requested | Status::Authorized => {
                vec![Event::PaymentDeclined { at, code: code::CALLED_OFF.into() }]
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn refund_succeeded(
        &self,
        at: Timestamp,
        number: u32,
        reference: &Arc<str>,
    ) -> Result<Vec<Event>, Rejection> {
        let done: Vec<_> =
            self.refunds.iter().filter(|refund| refund.number == number && refund.is_pending()).collect();
        self.give_back(at, &done, Some(reference))
    }

    /// The provider says how much of a charge was given back in all. If that is all that is on its way, all
    /// of it has arrived; less tells nothing of a single refund, whose own call finds out; more was never
    /// asked for.
    pub(crate) fn refunds_reported(
        &self,
        at: Timestamp,
        reference: &Arc<str>,
        total: Money,
    ) -> Result<Vec<Event>, Rejection> {
        if let Some(known) = self.other_than(reference) {
            return Ok(self.stop(at, Contradiction::charge(known, reference)));
        }
        let returning = self.amount.map(|amount| self.returning(amount)).transpose()?;
        match returning {
            Some(asked) if asked == total => {}
            Some(asked) if asked.currency == total.currency && total.minor < asked.minor => return Ok(Vec::new()),
            asked => return Ok(self.stop(at, Contradiction::amount(asked, total))),
        }
        let pending: Vec<_> = self.refunds.iter().filter(|refund| refund.is_pending()).collect();
        self.give_back(at, &pending, None)
    }

    pub(crate) fn refund_refused(&self, at: Timestamp, number: u32, code: &Arc<str>) -> Vec<Event> {
        let Some(refund) = self.refunds.iter().find(|refund| refund.number == number && refund.is_pending()) else {
            return Vec::new();
        };
        let mut events = vec![Event::RefundFailed { at, number, amount: refund.amount, code: code.clone() }];
        // What an operator's refund was to give back is owed all the same. One that the cancellation itself
        // asked for is not asked for again: a provider that refuses it will refuse the next.
        if let (true, Cause::Requested { .. }, Some(reference)) = (self.cancelled, &refund.cause, &self.reference) {
            events.push(Event::RefundRequested {
                at,
                number: number_after(self.refunds.len()),
                amount: refund.amount,
                cause: Cause::OrderCancelled,
                reference: reference.clone(),
            });
        }
        events
    }

    const fn is_captured(&self) -> bool {
        matches!(self.status, Status::Captured | Status::PartiallyRefunded | Status::Refunded)
    }

    /// Asks for all that is left to be given back, if something is.
    fn give_back_rest(&self, at: Timestamp, so_far: usize, cause: Cause) -> Result<Option<Event>, Rejection> {
        let (Some(amount), Some(reference)) = (self.amount, self.reference.clone()) else { return Ok(None) };
        let left = amount.minus(self.returning(amount)?).map_err(no_sum)?;
        let number = number_after(so_far);
        Ok((left.minor > 0).then_some(Event::RefundRequested { at, number, amount: left, cause, reference }))
    }

    /// These refunds arrived. Each is worth in the books what the sum of all that were given back is worth
    /// more than before it, so that nothing is lost to rounding.
    fn give_back(
        &self,
        at: Timestamp,
        refunds: &[&Refund],
        reference: Option<&Arc<str>>,
    ) -> Result<Vec<Event>, Rejection> {
        let (Some(amount), Some(Settlement { settled, .. })) = (self.amount, self.settlement) else {
            return Ok(Vec::new());
        };
        let (Some(mut total), Some(mut settled_total)) = (self.refunded(), self.settled_refunded()) else {
            return Err(Rejection::SettlementTooLarge);
        };
        let mut events = Vec::with_capacity(refunds.len());
        for refund in refunds {
            total = total.plus(refund.amount).map_err(no_sum)?;
            let share = share(settled, total, amount)?;
            let settled = share.minus(settled_total).map_err(no_sum)?;
            settled_total = share;
            let (number, amount, reference) = (refund.number, refund.amount, reference.cloned());
            events.push(Event::PaymentRefunded { at, number, amount, refunded_total: total, settled, reference });
        }
        Ok(events)
    }
}

/// The amount in the books' currency.
pub(crate) fn settle(amount: Money, rate: FxRate) -> Result<Money, Rejection> {
    rate.convert(amount).map_err(|error| match error {
        Error::CurrencyMismatch { left, .. } => Rejection::CurrencyMismatch { payment: amount.currency, other: left },
        _ => Rejection::SettlementTooLarge,
    })
}

/// What `part` of `whole` is worth of `settled`; of the whole, all of it.
fn share(settled: Money, part: Money, whole: Money) -> Result<Money, Rejection> {
    let rest = whole.minus(part).map_err(no_sum)?;
    let weights = [part, rest].map(|money| u64::try_from(money.minor).unwrap_or(0));
    let parts = settled.allocate(&weights).map_err(no_sum)?;
    parts.first().copied().ok_or(Rejection::RefundExceedsCaptured)
}

/// Sums here are of refunds, which together are never more than the captured amount, in its currency.
fn no_sum(_: Error) -> Rejection {
    Rejection::RefundExceedsCaptured
}

fn number_after(so_far: usize) -> u32 {
    u32::try_from(so_far).unwrap_or(u32::MAX).saturating_add(1)
}

/// Applies an event to a payment that exists.
pub(crate) fn evolve(details: &mut Details, event: &Event) {
    details.updated_at = event.at();
    match event {
        // The first event only; see `Payment::evolve`.
        Event::PaymentRequested { .. } => {}
        Event::PaymentAuthorized { reference, .. } => {
            details.status = Status::Authorized;
            details.reference = Some(reference.clone());
        }
        Event::PaymentCaptured { reference, rate, settled, .. } => {
            details.status = Status::Captured;
            details.reference = Some(reference.clone());
            details.settlement = Some(Settlement { rate: *rate, settled: *settled });
        }
        Event::PaymentDeclined { code, .. } => details.status = Status::Declined { code: code.clone() },
        Event::PaymentCancellationNoted { .. } => details.cancelled = true,
        Event::PaymentVoided { .. } => details.status = Status::Voided,
        Event::RefundRequested { number, amount, cause, .. } => {
            let (number, amount, cause) = (*number, *amount, cause.clone());
            details.refunds.push(Refund { number, amount, cause, state: State::Pending });
        }
        Event::PaymentRefunded { number, refunded_total, settled, reference, .. } => {
            details.end_refund(*number, State::Done { settled: *settled, reference: reference.clone() });
            let all = details.amount == Some(*refunded_total);
            details.status = if all { Status::Refunded } else { Status::PartiallyRefunded };
        }
        Event::RefundFailed { number, code, .. } => {
            details.end_refund(*number, State::Failed { code: code.clone() });
        }
        Event::PaymentContradicted { contradiction, .. } => details.contradiction = Some(contradiction.clone()),
    }
}

impl Details {
    fn end_refund(&mut self, number: u32, state: State) {
        if let Some(refund) = self.refunds.iter_mut().find(|refund| refund.number == number) {
            refund.state = state;
        }
    }
}

impl News {
    /// The decision on what the provider reported.
    pub(crate) fn decide(
        &self,
        details: &Details,
        reference: &Arc<str>,
        at: Timestamp,
    ) -> Result<Vec<Event>, Rejection> {
        match self {
            Self::Authorized { amount } => Ok(details.authorized(at, REPORT, reference, *amount)),
            Self::Captured { amount, quote } => details.captured_by_report(at, reference, *amount, *quote),
            Self::Failed { code } => Ok(details.declined(at, code)),
            Self::Canceled => Ok(details.called_off(at, Some(reference))),
            Self::Refunded { total } => details.refunds_reported(at, reference, *total),
        }
    }
}
