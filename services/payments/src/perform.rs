//! Makes the calls to the provider, one attempt at a time, until their outcome is known.
//!
//! Invariant: money moves once, whatever fails. Every attempt sends the same parameters under the same key,
//! which makes repeats one call. Two things end a key: the provider has *stored* a failure for it and will
//! repeat that for ever, or forgets keys ([`KEY_LIFE`]). Only then is another key used, made from the first
//! one, and only after the provider, asked by what the call carries, has proven that nothing happened. A
//! failure that is not stored ends no key: the call may still come to be executed. Attempts share nothing but
//! what is in the effect, so the keys before the one that counts are walked again each time; what is stored
//! for them does no harm. A charge whose outcome is not known is asked for for ever, and never guessed. An
//! answer about another order, charge, refund or amount than was asked is no outcome: it ends the attempt as
//! a contradiction (`asked`), whatever else it says. Deliberately absent: waiting between attempts, which is
//! the owner's, by [`Again`].

mod asked;

use std::time::Duration;

use holdfast_core::{Timestamp, codec::Again};
use holdfast_money::{Currency, FxRate};
use holdfast_payments_domain::{Call, Command, Contradiction, Outcome};

use self::asked::Asked;
use crate::{
    codec::decode_call,
    provider::{Charge, Failure, NewCharge, NewRefund, Progress, Provider, Refund, Refunded},
    rates::{self, RateSource},
};

/// For so long after the first attempt a key is relied on. Providers forget keys after a day.
pub const KEY_LIFE: Duration = Duration::from_hours(23);

/// For so long after that nothing is sent: a call under the old key may still be under way, and could not be
/// found yet.
pub const QUIET: Duration = Duration::from_mins(15);

/// Keys of one period at most. More stored failures in a row than that wait for the next.
const KEYS_MAX: u32 = 8;

/// Before the first attempt, when looking for what it did: clocks differ.
const SKEW: Duration = Duration::from_mins(10);

/// The pause before the next attempt where an operator has to look at the cause first.
const STUCK_AFTER: Duration = Duration::from_mins(1);

/// Why the outcome is not known yet: a reason in `UPPER_SNAKE_CASE`, and when to ask again, if that is known
/// better than by backing off.
fn because(reason: &'static str) -> Again {
    Again { reason: reason.to_owned(), after: None }
}

fn stuck(reason: &'static str) -> Again {
    Again { reason: reason.to_owned(), after: Some(STUCK_AFTER) }
}

/// Makes one attempt; what it led to, as the command for the payment.
pub async fn perform(
    provider: &dyn Provider,
    rates: &dyn RateSource,
    attempt: &holdfast_core::codec::Attempt,
) -> Result<Command, Again> {
    let Ok((order_id, call)) = decode_call(&attempt.request) else {
        tracing::error!(effect = attempt.name, "an effect's request can't be read");
        return Err(stuck("PAYLOAD_UNREADABLE"));
    };
    let first = format!("{}:{}", attempt.key, attempt.name);
    let age_ms = i64::try_from(attempt.age.as_millis()).unwrap_or(i64::MAX);
    let first_at_ms = attempt.now.unix_ms().saturating_sub(age_ms);
    let keys = Keys::at(&first, age_ms);
    let attempt = Attempt { provider, rates, name: &attempt.name, order_id: &order_id, keys, first_at_ms };
    match call {
        Call::Charge { amount, payment_method, authorize_first } => {
            let order_id = &order_id;
            attempt.charge(&NewCharge { order_id, amount, payment_method: &payment_method, authorize_first }).await
        }
        Call::Capture { reference } => attempt.authorization(&reference, Wish::Capture).await,
        Call::Void { reference } => attempt.authorization(&reference, Wish::Void).await,
        Call::Refund { reference, number, amount } => {
            attempt.refund(&NewRefund { order_id: &order_id, reference: &reference, number, amount }).await
        }
    }
}

/// The keys that may be used now.
#[derive(Clone, Copy, Debug)]
struct Keys<'a> {
    first: &'a str,
    /// How many lives of a key have passed.
    period: i64,
    /// Whether nothing may be sent now.
    quiet: bool,
}

impl<'a> Keys<'a> {
    fn at(first: &'a str, age_ms: i64) -> Self {
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let period = age_ms / ms(KEY_LIFE);
        let quiet = period > 0 && age_ms % ms(KEY_LIFE) < ms(QUIET);
        Self { first, period, quiet }
    }

    /// The `number`th key of this period, from 1.
    fn key(self, number: u32) -> String {
        match (self.period, number) {
            (0, 1) => self.first.to_owned(),
            (period, number) => format!("{}-{period}-{number}", self.first),
        }
    }
}

/// What is to become of an authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Capture,
    Void,
}

/// What to do after a failure.
enum Next {
    /// Find out what happened; if nothing did, this key has ended.
    AskThenNewKey,
    /// Find out what happened; if nothing did, the key is still good.
    AskThenAgain(Again),
    /// Nothing was found out.
    Again(Again),
    /// It is final.
    Refused(String, Option<Box<Charge>>),
}

impl From<Failure> for Next {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused { code, charge } => Self::Refused(code, charge),
            Failure::Busy { reason, after } => Self::Again(Again { reason: reason.to_owned(), after }),
            Failure::Unknown { reason } => Self::Again(because(reason)),
            Failure::Failed { stored: true } => Self::AskThenNewKey,
            Failure::Failed { stored: false } => Self::AskThenAgain(because("PROVIDER_FAILED")),
            Failure::KeyReused => {
                tracing::error!("an idempotency key was used with other parameters");
                Self::AskThenAgain(stuck("IDEMPOTENCY_KEY_REUSED"))
            }
            Failure::Misconfigured { status } => {
                tracing::error!(status, "the provider refuses our requests");
                Self::Again(stuck("PROVIDER_MISCONFIGURED"))
            }
        }
    }
}

struct Attempt<'a> {
    provider: &'a dyn Provider,
    rates: &'a dyn RateSource,
    name: &'a str,
    order_id: &'a str,
    keys: Keys<'a>,
    first_at_ms: i64,
}

impl Attempt<'_> {
    async fn charge(&self, charge: &NewCharge<'_>) -> Result<Command, Again> {
        if let Err(code) = self.provider.accepts(charge.amount) {
            return Ok(Command::ChargeDeclined { code: code.into() });
        }
        // Before the call: a charge without a rate could not be entered in the books.
        let rate = self.rate(charge.amount.currency).await?;
        if self.keys.period > 0 {
            if let Some(outcome) = self.found_charge(charge, rate).await? {
                return Ok(outcome);
            }
            self.not_quiet()?;
        }
        for number in 1..=KEYS_MAX {
            let failure = match self.provider.charge(charge, &self.keys.key(number)).await {
                Ok(answer) => return self.charged(charge, &answer, rate)?.ok_or(because("PENDING")),
                Err(failure) => failure,
            };
            match failure.into() {
                Next::Refused(code, refused) => {
                    let checked = refused.map_or(Ok(()), |refused| self.asked(charge).holds_for_charge(&refused));
                    return Ok(checked.map_or_else(contradicted, |()| Command::ChargeDeclined { code: short(&code) }));
                }
                Next::Again(again) => return Err(again),
                Next::AskThenNewKey => {
                    if let Some(outcome) = self.found_charge(charge, rate).await? {
                        return Ok(outcome);
                    }
                }
                Next::AskThenAgain(again) => return self.found_charge(charge, rate).await?.ok_or(again),
            }
        }
        Err(stuck("TOO_MANY_STORED_FAILURES"))
    }

    /// What became of the order's charge, by the provider's own account; `None` if there is none.
    async fn found_charge(&self, asked: &NewCharge<'_>, rate: FxRate) -> Result<Option<Command>, Again> {
        let skew_ms = i64::try_from(SKEW.as_millis()).unwrap_or(i64::MAX);
        let since = Timestamp::from_unix_ms(self.first_at_ms.saturating_sub(skew_ms));
        match self.provider.find(self.order_id, since).await.map_err(not_found_out)? {
            Some(found) => self.charged(asked, &found, rate),
            None => Ok(None),
        }
    }

    async fn authorization(&self, reference: &str, wish: Wish) -> Result<Command, Again> {
        if self.keys.period > 0 {
            if let Some(outcome) = self.looked_up(reference).await? {
                return Ok(outcome);
            }
            self.not_quiet()?;
        }
        for number in 1..=KEYS_MAX {
            let key = self.keys.key(number);
            let answer = match wish {
                Wish::Capture => self.provider.capture(reference, &key).await,
                Wish::Void => self.provider.void(reference, &key).await,
            };
            let again = match answer.map_err(Next::from) {
                Ok(answer) => match self.asked_of(reference).holds_for_charge(&answer) {
                    Ok(()) => Some(because("PENDING")),
                    Err(contradiction) => return Ok(contradicted(contradiction)),
                },
                // It is no longer an authorization, or something else stands in the way: its state tells.
                Err(Next::Refused(code, _)) => {
                    tracing::debug!(code, "an authorization could not be changed");
                    Some(stuck("PROVIDER_REFUSED"))
                }
                Err(Next::Again(again)) => return Err(again),
                Err(Next::AskThenAgain(again)) => Some(again),
                Err(Next::AskThenNewKey) => None,
            };
            match (self.looked_up(reference).await?, again) {
                (Some(outcome), _) => return Ok(outcome),
                (None, Some(again)) => return Err(again),
                (None, None) => {}
            }
        }
        Err(stuck("TOO_MANY_STORED_FAILURES"))
    }

    /// What became of an authorization, by the provider's own account; `None` if it stands.
    async fn looked_up(&self, reference: &str) -> Result<Option<Command>, Again> {
        let charge = self.provider.look(reference).await.map_err(not_found_out)?;
        if let Err(contradiction) = self.asked_of(reference).holds_for_charge(&charge) {
            return Ok(Some(contradicted(contradiction)));
        }
        Ok(match charge.progress {
            Progress::Captured => {
                let (amount, rate) = (charge.amount, self.rate(charge.amount.currency).await?);
                Some(Command::CaptureSucceeded { amount, rate })
            }
            Progress::CalledOff | Progress::Declined { .. } | Progress::NotTried => Some(Command::AuthorizationEnded),
            Progress::Authorized | Progress::Pending => None,
        })
    }

    async fn refund(&self, refund: &NewRefund<'_>) -> Result<Command, Again> {
        let number = refund.number;
        if let Err(code) = self.provider.accepts(refund.amount) {
            return Ok(Command::RefundRefused { number, code: code.into() });
        }
        if self.keys.period > 0 {
            if let Some(outcome) = self.found_refund(refund).await? {
                return Ok(outcome);
            }
            self.not_quiet()?;
        }
        for key in 1..=KEYS_MAX {
            let failure = match self.provider.refund(refund, &self.keys.key(key)).await {
                Ok(answer) => return Ok(self.given_back(refund, answer)),
                Err(failure) => failure,
            };
            match failure.into() {
                Next::Refused(code, _) => return Ok(Command::RefundRefused { number, code: short(&code) }),
                Next::Again(again) => return Err(again),
                Next::AskThenNewKey => {
                    if let Some(outcome) = self.found_refund(refund).await? {
                        return Ok(outcome);
                    }
                }
                Next::AskThenAgain(again) => return self.found_refund(refund).await?.ok_or(again),
            }
        }
        Err(stuck("TOO_MANY_STORED_FAILURES"))
    }

    async fn found_refund(&self, refund: &NewRefund<'_>) -> Result<Option<Command>, Again> {
        let found = self.provider.find_refund(refund.reference, refund.number).await.map_err(not_found_out)?;
        Ok(found.map(|found| self.given_back(refund, found)))
    }

    async fn rate(&self, from: Currency) -> Result<FxRate, Again> {
        match rates::rate(self.rates, from).await {
            Ok(Some(rate)) => Ok(rate),
            Ok(None) => {
                tracing::error!(%from, "a rate is missing");
                Err(stuck("NO_RATE"))
            }
            Err(error) => {
                tracing::warn!(%error, "a rate could not be asked for");
                Err(because("RATE_UNAVAILABLE"))
            }
        }
    }

    fn not_quiet(&self) -> Result<(), Again> {
        if self.keys.quiet { Err(stuck("KEY_EXPIRING")) } else { Ok(()) }
    }

    fn asked(&self, charge: &NewCharge<'_>) -> Asked<'_> {
        Asked { source: self.name, order_id: self.order_id, charge: None, amount: Some(charge.amount) }
    }

    /// What was asked of a charge that is known. Its amount is no part of the call: the payment compares what
    /// moved.
    fn asked_of<'a>(&'a self, reference: &'a str) -> Asked<'a> {
        Asked { source: self.name, order_id: self.order_id, charge: Some(reference), amount: None }
    }

    /// The command for a charge as the provider has it; `None` for one that was never tried.
    fn charged(&self, asked: &NewCharge<'_>, charge: &Charge, rate: FxRate) -> Result<Option<Command>, Again> {
        if let Err(contradiction) = self.asked(asked).holds_for_charge(charge) {
            return Ok(Some(contradicted(contradiction)));
        }
        let reference = charge.reference.as_str().into();
        Ok(Some(match &charge.progress {
            Progress::Captured => Command::ChargeSucceeded { reference, outcome: Outcome::Captured { rate } },
            Progress::Authorized => Command::ChargeSucceeded { reference, outcome: Outcome::Authorized },
            Progress::Declined { code } => Command::ChargeDeclined { code: short(code) },
            Progress::CalledOff => Command::ChargeDeclined { code: holdfast_payments_domain::code::CALLED_OFF.into() },
            Progress::Pending => return Err(because("PENDING")),
            Progress::NotTried => return Ok(None),
        }))
    }

    fn given_back(&self, asked: &NewRefund<'_>, refund: Refund) -> Command {
        let of = Asked { amount: Some(asked.amount), ..self.asked_of(asked.reference) };
        if let Err(contradiction) = of.holds_for_refund(asked.number, &refund) {
            return contradicted(contradiction);
        }
        let number = asked.number;
        match refund.progress {
            Refunded::Taken => Command::RefundSucceeded { number, reference: refund.reference.into() },
            Refunded::Failed { code } => Command::RefundRefused { number, code: short(&code) },
        }
    }
}

fn contradicted(contradiction: Contradiction) -> Command {
    let Contradiction { source, subject, .. } = &contradiction;
    tracing::error!(effect = &**source, ?subject, "the provider contradicted what was asked; the payment is stopped");
    Command::ProviderContradicted { contradiction }
}

/// A question that found no answer proves nothing.
fn not_found_out(failure: Failure) -> Again {
    match failure.into() {
        Next::Again(again) | Next::AskThenAgain(again) => again,
        Next::AskThenNewKey => because("PROVIDER_FAILED"),
        Next::Refused(..) => stuck("PROVIDER_REFUSED"),
    }
}

/// A provider's code, as long as ours may be.
fn short(code: &str) -> std::sync::Arc<str> {
    let end = code.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= 64).last().unwrap_or(0);
    if end == 0 { "unknown".into() } else { code[..end].into() }
}
