//! given (commands) / when (command) / then (events or rejection), for payments.
#![allow(dead_code, reason = "each test binary uses a part")]

use holdfast_core::{Aggregate, Context, Decision, Timestamp};
use holdfast_money::{Currency, FxRate, Money, Ratio};
use holdfast_payments_domain::{Command, Event, News, Outcome, Payment, Quote, Rejection};

pub(crate) const NOW: Timestamp = Timestamp::from_unix_ms(1_795_305_600_000);
pub(crate) const REFERENCE: &str = "pi_1";

pub(crate) fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

pub(crate) fn eur(minor: i64) -> Money {
    Money::new(minor, Currency::EUR)
}

/// One dollar is 0.93 euro.
pub(crate) fn rate() -> FxRate {
    rate_of(Currency::USD, 93, 100)
}

pub(crate) fn rate_of(from: Currency, numerator: i64, denominator: i64) -> FxRate {
    FxRate::new(from, Currency::EUR, Ratio::new(numerator, denominator).expect("a ratio")).expect("a rate")
}

pub(crate) fn reserved(amount: Money) -> Command {
    let quote = Quote::Rate(FxRate::new(amount.currency, Currency::EUR, rate_for(amount.currency)).expect("a rate"));
    Command::OrderReserved { amount, payment_method: Some("pm_1".into()), authorize_first: false, quote }
}

fn rate_for(currency: Currency) -> Ratio {
    let (numerator, denominator) = if currency == Currency::EUR { (1, 1) } else { (93, 100) };
    Ratio::new(numerator, denominator).expect("a ratio")
}

pub(crate) fn authorize(amount: Money) -> Command {
    match reserved(amount) {
        Command::OrderReserved { amount, payment_method, quote, .. } => {
            Command::OrderReserved { amount, payment_method, authorize_first: true, quote }
        }
        other => other,
    }
}

pub(crate) fn captured() -> Command {
    Command::ChargeSucceeded { reference: REFERENCE.into(), outcome: Outcome::Captured { rate: rate() } }
}

pub(crate) fn authorized() -> Command {
    Command::ChargeSucceeded { reference: REFERENCE.into(), outcome: Outcome::Authorized }
}

pub(crate) fn declined() -> Command {
    Command::ChargeDeclined { code: "card_declined".into() }
}

pub(crate) fn refund(id: &str, amount: Money) -> Command {
    Command::RefundPayment { id: id.into(), amount }
}

pub(crate) fn returned(number: u32) -> Command {
    Command::RefundSucceeded { number, reference: "re_1".into() }
}

pub(crate) fn refused(number: u32) -> Command {
    Command::RefundRefused { number, code: "charge_disputed".into() }
}

pub(crate) fn reported(news: News) -> Command {
    Command::ProviderReported { reference: REFERENCE.into(), news }
}

/// What happens on `command`; the events are applied to `payment`.
pub(crate) fn handle(payment: &mut Payment, command: &Command) -> Result<Vec<Event>, Rejection> {
    let context = Context { key: "0192f0c1-7b1e-7cc3-8000-000000000001", version: 0, now: NOW };
    match payment.decide(command, &context)? {
        Decision::Done(effects) => {
            effects.events.iter().for_each(|event| payment.evolve(event));
            Ok(effects.events)
        }
        Decision::Conditional { .. } => panic!("a payment wants no shared quantity"),
        Decision::Unprepared(lacking) => panic!("{lacking}"),
    }
}

/// The payment after these commands, each of which must be accepted.
pub(crate) fn given(commands: &[Command]) -> Payment {
    let mut payment = Payment::default();
    for command in commands {
        handle(&mut payment, command).unwrap_or_else(|rejection| panic!("{command:?}: {rejection}"));
    }
    payment
}

/// What a command leads to.
pub(crate) fn when(payment: &Payment, command: Command) -> Result<Vec<Event>, Rejection> {
    handle(&mut payment.clone(), &command)
}

/// The status after these commands.
pub(crate) fn status(payment: &Payment) -> &'static str {
    payment.details().map_or("NONE", |details| details.status.name())
}
