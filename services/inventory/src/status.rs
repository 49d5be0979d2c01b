//! What a sku says no with, as a gRPC status.
//!
//! Invariant: one exhaustive match, by name; a rejection keeps its first text, as its claim does.
//! Deliberately absent: reservations, which nobody commands by gRPC, and everything that is no rejection (see
//! [`holdfast_adapter::status`]).

use holdfast_core::dedup;
use holdfast_inventory_domain::stock_item::Rejection;
use holdfast_platform::errors::Problem;
use tonic::Status;

/// The status of a command that a sku rejected, now or when it first came.
pub fn rejected(rejection: &dedup::Rejection) -> Status {
    match Rejection::from_code(&rejection.code) {
        Some(known) => problem(known, &rejection.message),
        // Claims outlive builds: one that came before or will come after may have had other names.
        None => Problem::rejected("REJECTED", &rejection.message).fact("code", &rejection.code),
    }
    .into_status()
}

fn problem(rejection: Rejection, text: &str) -> Problem {
    let code = rejection.code();
    match rejection {
        Rejection::QuantityNotPositive => Problem::invalid(code, text).field("command.quantity", text),
        Rejection::DeltaIsZero => Problem::invalid(code, text).field("command.delta", text),
        Rejection::PriceNegative => Problem::invalid(code, text).field("command.price.minor", text),
        Rejection::ReorderPointNegative => Problem::invalid(code, text).field("command.reorder_point", text),
        Rejection::InsufficientStock | Rejection::StockTooLarge => Problem::rejected(code, text),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_platform::errors::reason;
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    fn of(code: &str) -> Status {
        rejected(&dedup::Rejection { code: code.to_owned(), message: "as it was said".to_owned() })
    }

    #[test]
    fn every_rejection_has_its_code_its_reason_and_its_first_text() {
        let expected = [
            (Rejection::QuantityNotPositive, Code::InvalidArgument, Some("command.quantity")),
            (Rejection::DeltaIsZero, Code::InvalidArgument, Some("command.delta")),
            (Rejection::PriceNegative, Code::InvalidArgument, Some("command.price.minor")),
            (Rejection::ReorderPointNegative, Code::InvalidArgument, Some("command.reorder_point")),
            (Rejection::InsufficientStock, Code::FailedPrecondition, None),
            (Rejection::StockTooLarge, Code::FailedPrecondition, None),
        ];
        assert_eq!(expected.map(|(rejection, ..)| rejection), Rejection::ALL);
        for (rejection, code, field) in expected {
            let status = of(rejection.code());
            assert_eq!((status.code(), status.message()), (code, "as it was said"), "{rejection:?}");
            assert_eq!(reason(&status).as_deref(), Some(rejection.code()));
            let violations = status.get_details_bad_request().map(|request| request.field_violations);
            assert_eq!(violations.and_then(|list| list.first().map(|v| v.field.clone())).as_deref(), field);
        }
    }

    #[test]
    fn a_rejection_of_another_build_is_still_a_rejection() {
        let status = of("OUT_OF_FASHION");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(reason(&status).as_deref(), Some("REJECTED"));
        assert_eq!(
            status.get_details_error_info().map(|info| info.metadata["code"].clone()).as_deref(),
            Some("OUT_OF_FASHION")
        );
    }
}
