//! An order's rejections as gRPC statuses: one map, by name.
//!
//! By name, because a rejection may come from a claim that another build wrote. Invariant: every rejection of
//! the domain is in the map; the test below does not compile without it. Deliberately absent: failures, which
//! `holdfast_adapter::status` maps.

use holdfast_adapter::status;
use holdfast_core::dedup::Rejection;
use holdfast_platform::errors::Problem;
use tonic::{Code, Status};

/// `ErrorInfo.reason` of an order that does not exist.
pub const ORDER_NOT_FOUND: &str = "ORDER_NOT_FOUND";

const STATUSES: &[(&str, Code)] = &[
    (ORDER_NOT_FOUND, Code::NotFound),
    ("ORDER_ALREADY_EXISTS", Code::AlreadyExists),
    ("WRONG_STATE", Code::FailedPrecondition),
    ("EMPTY_ORDER", Code::FailedPrecondition),
    ("CURRENCY_MISMATCH", Code::FailedPrecondition),
    ("UNKNOWN_SKU", Code::FailedPrecondition),
    ("ITEM_NOT_IN_ORDER", Code::FailedPrecondition),
    ("TOO_MANY_LINES", Code::FailedPrecondition),
    ("TOTAL_TOO_LARGE", Code::FailedPrecondition),
    ("UNKNOWN_CUSTOMER", Code::FailedPrecondition),
    ("CUSTOMER_NOT_ACTIVE", Code::FailedPrecondition),
    ("UNKNOWN_ADDRESS", Code::FailedPrecondition),
    ("INVALID_PAYMENT_METHOD", Code::FailedPrecondition),
    // The codec refuses it before the domain can; whichever says so, it is malformed input.
    ("QUANTITY_NOT_POSITIVE", Code::InvalidArgument),
    // A defect of ours: Prepare asks before the decision.
    ("PRICE_NOT_ASKED", Code::Internal),
];

/// What of the request is at fault.
const FIELDS: &[(&str, &str)] = &[("QUANTITY_NOT_POSITIVE", "command.quantity")];

/// The status of a rejection.
pub fn rejected(rejection: &Rejection) -> Status {
    status::rejected(rejection, STATUSES, FIELDS)
}

/// The status of an order that is asked for and does not exist.
pub fn not_found() -> Status {
    Problem::not_found(ORDER_NOT_FOUND, "there is no such order").into_status()
}

#[cfg(test)]
mod tests {
    use holdfast_money::Currency;
    use holdfast_orders_domain::{Rejection as Domain, Sku};
    use holdfast_platform::errors::reason;

    use super::*;

    /// What each rejection must become. A new one does not compile until it is here.
    fn expected(rejection: &Domain) -> Code {
        match rejection {
            Domain::OrderNotFound => Code::NotFound,
            Domain::OrderAlreadyExists => Code::AlreadyExists,
            Domain::WrongState { .. }
            | Domain::EmptyOrder
            | Domain::CurrencyMismatch { .. }
            | Domain::UnknownSku { .. }
            | Domain::ItemNotInOrder { .. }
            | Domain::TooManyLines
            | Domain::TotalTooLarge
            | Domain::UnknownCustomer
            | Domain::CustomerNotActive
            | Domain::UnknownAddress
            | Domain::InvalidPaymentMethod => Code::FailedPrecondition,
            Domain::QuantityNotPositive => Code::InvalidArgument,
            Domain::PriceNotAsked { .. } => Code::Internal,
        }
    }

    #[test]
    fn every_rejection_of_the_domain_has_its_status() {
        let sku = Sku::new("A").unwrap();
        let all = [
            Domain::OrderNotFound,
            Domain::OrderAlreadyExists,
            Domain::WrongState { command: "AddItem", status: "PLACED" },
            Domain::EmptyOrder,
            Domain::CurrencyMismatch { sku: sku.clone(), price: Currency::EUR, order: Currency::EUR },
            Domain::QuantityNotPositive,
            Domain::UnknownSku { sku: sku.clone() },
            Domain::ItemNotInOrder { sku: sku.clone() },
            Domain::TooManyLines,
            Domain::TotalTooLarge,
            Domain::UnknownCustomer,
            Domain::CustomerNotActive,
            Domain::UnknownAddress,
            Domain::InvalidPaymentMethod,
            Domain::PriceNotAsked { sku },
        ];
        assert_eq!(all.len(), STATUSES.len(), "a rejection is missing here or in the map");
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
    fn a_rejection_of_a_later_build_is_still_a_rejection() {
        let status = rejected(&Rejection { code: "ON_HOLD".to_owned(), message: "the order is on hold".to_owned() });
        assert_eq!(status.code(), Code::FailedPrecondition);
    }
}
