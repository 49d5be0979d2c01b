//! A payment's rejections as gRPC statuses: one map, by name.
//!
//! By name, because a rejection may come from a claim that another build wrote. Invariant: every rejection of
//! the domain is in the map; the test below does not compile without it. Deliberately absent: failures, which
//! `holdfast_adapter::status` maps.

use holdfast_adapter::status;
use holdfast_core::dedup::Rejection;
use holdfast_platform::errors::Problem;
use tonic::{Code, Status};

/// `ErrorInfo.reason` of a payment that does not exist.
pub const PAYMENT_NOT_FOUND: &str = "PAYMENT_NOT_FOUND";

const STATUSES: &[(&str, Code)] = &[
    (PAYMENT_NOT_FOUND, Code::NotFound),
    ("WRONG_STATE", Code::FailedPrecondition),
    ("CURRENCY_MISMATCH", Code::FailedPrecondition),
    ("REFUND_EXCEEDS_CAPTURED", Code::FailedPrecondition),
    ("REFUND_ID_REUSED", Code::AlreadyExists),
    ("TOO_MANY_REFUNDS", Code::FailedPrecondition),
    // The codec refuses it before the domain can; whichever says so, it is malformed input.
    ("AMOUNT_NOT_POSITIVE", Code::InvalidArgument),
    ("PAYMENT_CONTRADICTED", Code::FailedPrecondition),
    // Answers to what the provider says, which nobody asks by gRPC.
    ("SETTLEMENT_TOO_LARGE", Code::FailedPrecondition),
    ("NO_RATE", Code::FailedPrecondition),
    // A defect of ours: Prepare asks before the decision.
    ("RATE_NOT_ASKED", Code::Internal),
];

/// What of the request is at fault.
const FIELDS: &[(&str, &str)] =
    &[("AMOUNT_NOT_POSITIVE", "command.amount.minor"), ("REFUND_ID_REUSED", "command.refund_id")];

/// The status of a rejection.
pub fn rejected(rejection: &Rejection) -> Status {
    status::rejected(rejection, STATUSES, FIELDS)
}

/// The status of a payment that is asked for and does not exist.
pub fn not_found() -> Status {
    Problem::not_found(
        PAYMENT_NOT_FOUND,
        "no order with this id was reserved or cancelled, as far as payments has heard",
    )
    .into_status()
}

#[cfg(test)]
mod tests {
    use holdfast_money::Currency;
    use holdfast_payments_domain::Rejection as Domain;
    use holdfast_platform::errors::reason;

    use super::*;

    /// What each rejection must become. A new one does not compile until it is here.
    fn expected(rejection: &Domain) -> Code {
        match rejection {
            Domain::PaymentNotFound => Code::NotFound,
            Domain::WrongState { .. }
            | Domain::CurrencyMismatch { .. }
            | Domain::RefundExceedsCaptured
            | Domain::TooManyRefunds
            | Domain::PaymentContradicted
            | Domain::SettlementTooLarge
            | Domain::NoRate { .. } => Code::FailedPrecondition,
            Domain::RefundIdReused => Code::AlreadyExists,
            Domain::AmountNotPositive => Code::InvalidArgument,
            Domain::RateNotAsked => Code::Internal,
        }
    }

    #[test]
    fn every_rejection_of_the_domain_has_its_status() {
        let all = [
            Domain::PaymentNotFound,
            Domain::WrongState { status: "DECLINED" },
            Domain::AmountNotPositive,
            Domain::CurrencyMismatch { payment: Currency::EUR, other: Currency::USD },
            Domain::RefundExceedsCaptured,
            Domain::RefundIdReused,
            Domain::TooManyRefunds,
            Domain::PaymentContradicted,
            Domain::SettlementTooLarge,
            Domain::NoRate { currency: Currency::EUR },
            Domain::RateNotAsked,
        ];
        for rejection in all {
            let status = rejected(&Rejection { code: rejection.code().to_owned(), message: rejection.to_string() });
            assert_eq!(status.code(), expected(&rejection), "{rejection:?}");
            if status.code() != Code::Internal {
                assert_eq!(reason(&status).as_deref(), Some(rejection.code()));
                assert_eq!(status.message(), rejection.to_string());
            }
        }
    }

    #[test]
    fn a_rejection_of_another_build_is_still_a_rejection() {
        let status = rejected(&Rejection { code: "OUT_OF_FASHION".to_owned(), message: "as it was said".to_owned() });
        assert_eq!((status.code(), reason(&status).as_deref()), (Code::FailedPrecondition, Some("REJECTED")));
    }
}
