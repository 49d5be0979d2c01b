//! Origins: where a message of each type may come from.
//!
//! A context declares the origins of each type that it handles ([`Handled`]). Invariant: a message that
//! arrives any other way is refused, whatever its headers claim, so that who may write one topic can't say
//! what only another may. Deliberately absent: authentication. That a record lies in a topic is Kafka's word
//! (its ACLs), that it was sent by the context itself is the seal's ([`crate::seal`]).

use std::fmt;

use crate::disposition::{DeadLetterReason, Refused};

/// The `ce_source` of calls, under which their claims are found.
pub const CALL_SOURCE: &str = "grpc";

/// What the `ce_source` of every webhook ends with.
pub const WEBHOOK_SUFFIX: &str = "/webhook";

/// The first part of the `ce_source` of everything that Holdfast publishes.
const OWN_PREFIX: &str = "holdfast/";

/// One way in which messages of a type may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageOrigin {
    /// A record of the context's commands topic, from any producer that may write it.
    Commands,
    /// A record of the context's commands topic that the context's own outbox wrote, as its seal shows.
    Sent,
    /// A call.
    Call,
    /// A webhook of this source, whose adapter has checked the signature.
    Webhook(&'static str),
    /// A record of another context's events topic.
    Events {
        /// The topic.
        topic: &'static str,
        /// The `ce_source`s that are believed there. One that ends in `/` stands for all that begin with it.
        sources: &'static [&'static str],
    },
    /// The context's own timer of this name.
    Timer(&'static str),
    /// The end of the context's own effect of this name, up to a `:` in it.
    Effect(&'static str),
}

/// How a message came, as the runtime has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// As an unsealed record of the context's commands topic.
    Commands,
    /// As a record of the context's commands topic with the context's seal.
    Sent,
    /// As a call.
    Call,
    /// As a webhook of this source.
    Webhook(&'a str),
    /// As a record of another context's topic.
    Events {
        /// The topic.
        topic: &'a str,
        /// The record's `ce_source`.
        source: &'a str,
    },
    /// As the timer of this name.
    Timer(&'a str),
    /// As the end of the effect of this name.
    Effect(&'a str),
}

/// A message type that a kind of aggregate handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handled {
    /// The full message name, as in `ce_type`; for a timer, its name.
    pub r#type: &'static str,
    /// Where it may come from.
    pub origins: &'static [MessageOrigin],
}

impl MessageOrigin {
    /// Whether a message that came by `arrival` has this origin.
    pub fn admits(&self, arrival: &Arrival<'_>) -> bool {
        match (self, arrival) {
            (Self::Commands, Arrival::Commands) | (Self::Sent, Arrival::Sent) | (Self::Call, Arrival::Call) => true,
            (Self::Webhook(of), Arrival::Webhook(source)) => of == source,
            (Self::Events { topic: of, sources }, Arrival::Events { topic, source }) => {
                of == topic && sources.iter().any(|known| is_source(known, source))
            }
            (Self::Timer(of), Arrival::Timer(name)) => of == name,
            (Self::Effect(of), Arrival::Effect(name)) => name.split_once(':').map_or(*name, |(begin, _)| begin) == *of,
            _ => false,
        }
    }
}

fn is_source(known: &str, source: &str) -> bool {
    if known.ends_with('/') { source.starts_with(known) } else { known == source }
}

impl Handled {
    /// A type with its origins.
    pub const fn new(r#type: &'static str, origins: &'static [MessageOrigin]) -> Self {
        Self { r#type, origins }
    }

    /// Whether a message of this type may come by `arrival`.
    pub fn admits(&self, arrival: &Arrival<'_>) -> bool {
        self.origins.iter().any(|origin| origin.admits(arrival))
    }

    /// Refuses a message of this type that came by `arrival`, unless it may.
    pub fn check(&self, arrival: &Arrival<'_>) -> Result<(), Refused> {
        if self.admits(arrival) {
            return Ok(());
        }
        let origins: Vec<String> = self.origins.iter().map(ToString::to_string).collect();
        let error = format!("this ce_type may not come from {arrival}; it is taken from {}", origins.join(" or "));
        Err(Refused { reason: DeadLetterReason::UnknownType, error, field: None })
    }
}

/// Refuses a `ce_source` that only the runtime gives, which an unsealed record of a commands topic can't
/// have: its claims would be another's.
pub fn producers_source(source: &str) -> Result<(), Refused> {
    let is_own = source.starts_with(OWN_PREFIX) || source == OWN_PREFIX.trim_end_matches('/');
    if !is_own && !matches!(source, CALL_SOURCE | "timer" | "effect") && !source.ends_with(WEBHOOK_SUFFIX) {
        return Ok(());
    }
    let error = "this ce_source is given by the runtime alone (grpc, timer, effect, holdfast/..., .../webhook), and the record does not \
                 carry the seal of this context; send it under a name of your own";
    Err(Refused { reason: DeadLetterReason::UnknownType, error: error.to_owned(), field: None })
}

impl fmt::Display for MessageOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commands => f.write_str("the commands topic"),
            Self::Sent => f.write_str("this context itself"),
            Self::Call => f.write_str("calls"),
            Self::Webhook(source) => write!(f, "the webhook {source}"),
            Self::Events { topic, sources } => write!(f, "{topic} with the source {}", sources.join(", ")),
            Self::Timer(name) => write!(f, "the timer {name}"),
            Self::Effect(name) => write!(f, "the end of the effect {name}"),
        }
    }
}

/// Without the source, which is the sender's text.
impl fmt::Display for Arrival<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commands => f.write_str("an unsealed record of the commands topic"),
            Self::Sent => f.write_str("this context itself"),
            Self::Call => f.write_str("a call"),
            Self::Webhook(_) => f.write_str("this webhook"),
            Self::Events { topic, .. } => write!(f, "{topic} under this ce_source"),
            Self::Timer(_) => f.write_str("a timer"),
            Self::Effect(_) => f.write_str("an effect"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINS: [MessageOrigin; 7] = [
        MessageOrigin::Commands,
        MessageOrigin::Sent,
        MessageOrigin::Call,
        MessageOrigin::Webhook("stripe/webhook"),
        MessageOrigin::Events { topic: "payments.events", sources: &["holdfast/payments/", "bank"] },
        MessageOrigin::Timer("expiry"),
        MessageOrigin::Effect("refund"),
    ];

    #[test]
    fn each_origin_admits_its_own_arrival_alone() {
        let arrivals = [
            Arrival::Commands,
            Arrival::Sent,
            Arrival::Call,
            Arrival::Webhook("stripe/webhook"),
            Arrival::Events { topic: "payments.events", source: "holdfast/payments/payment" },
            Arrival::Timer("expiry"),
            Arrival::Effect("refund:2"),
        ];
        for (at, origin) in ORIGINS.iter().enumerate() {
            for (of, arrival) in arrivals.iter().enumerate() {
                assert_eq!(origin.admits(arrival), at == of, "{origin:?} {arrival:?}");
            }
        }
    }

    #[test]
    fn an_arrival_under_another_name_is_not_admitted() {
        for arrival in [
            Arrival::Webhook("paypal/webhook"),
            Arrival::Events { topic: "orders.events", source: "holdfast/payments/payment" },
            Arrival::Events { topic: "payments.events", source: "holdfast/paymentsx" },
            Arrival::Events { topic: "payments.events", source: "banks" },
            Arrival::Timer("expiry:1"),
            Arrival::Effect("refunds"),
        ] {
            assert!(!ORIGINS.iter().any(|origin| origin.admits(&arrival)), "{arrival:?}");
        }
        assert!(ORIGINS[4].admits(&Arrival::Events { topic: "payments.events", source: "bank" }));
    }

    #[test]
    fn a_refusal_says_where_from_and_where_else() {
        const PAID: Handled = Handled::new(
            "PaymentCaptured",
            &[MessageOrigin::Events { topic: "payments.events", sources: &["holdfast/payments/"] }],
        );
        let refused = PAID.check(&Arrival::Commands).unwrap_err();
        assert_eq!(refused.reason, DeadLetterReason::UnknownType);
        assert_eq!(
            refused.error,
            "this ce_type may not come from an unsealed record of the commands topic; it is taken from payments.events with the source \
             holdfast/payments/"
        );
    }

    #[test]
    fn sources_of_the_runtime_are_no_producers() {
        for source in ["grpc", "timer", "effect", "holdfast", "holdfast/orders/order", "holdfast/", "stripe/webhook"] {
            assert_eq!(producers_source(source).map_err(|refused| refused.reason), Err(DeadLetterReason::UnknownType));
        }
        for source in ["load", "shop", "grpc2", "holdfasten", "webhook"] {
            assert_eq!(producers_source(source), Ok(()), "{source}");
        }
    }
}
