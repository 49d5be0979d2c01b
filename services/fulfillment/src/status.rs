//! A shipment's rejections as gRPC statuses: one map, by name.
//!
//! By name, because a rejection may come from a claim that another build wrote. Invariant: every rejection of
//! the domain is in the map; the test below does not compile without it. Deliberately absent: failures, which
//! `holdfast_adapter::status` maps.

use holdfast_adapter::status;
use holdfast_core::dedup::Rejection;
use holdfast_platform::errors::Problem;
use tonic::{Code, Status};

/// `ErrorInfo.reason` of a shipment that does not exist.
pub const SHIPMENT_NOT_FOUND: &str = "SHIPMENT_NOT_FOUND";

const STATUSES: &[(&str, Code)] = &[
    (SHIPMENT_NOT_FOUND, Code::NotFound),
    ("WRONG_STATE", Code::FailedPrecondition),
    ("NOT_PICKABLE", Code::FailedPrecondition),
    ("ADDRESS_MISSING", Code::FailedPrecondition),
    ("TRACKING_NUMBER_MISMATCH", Code::FailedPrecondition),
    // Defects of ours: Prepare asks and books before the decision.
    ("ADDRESS_NOT_ASKED", Code::Internal),
    ("PARCEL_NOT_BOOKED", Code::Internal),
];

/// The status of a rejection.
pub fn rejected(rejection: &Rejection) -> Status {
    status::rejected(rejection, STATUSES, &[])
}

/// The status of a shipment that is asked for and does not exist.
pub fn not_found() -> Status {
    Problem::not_found(SHIPMENT_NOT_FOUND, "there is no such shipment").into_status()
}

#[cfg(test)]
mod tests {
    use holdfast_fulfillment_domain::Rejection as Domain;
    use holdfast_platform::errors::reason;

    use super::*;

    /// What each rejection must become, and its text. A new one does not compile until it is here.
    fn expected(rejection: Domain) -> (Code, &'static str) {
        match rejection {
            Domain::ShipmentNotFound => (Code::NotFound, "there is no such shipment"),
            Domain::WrongState { .. } => {
                (Code::FailedPrecondition, "PackShipment is not possible for a shipment that is PENDING")
            }
            Domain::NotPickable => (
                Code::FailedPrecondition,
                "the shipment can't be picked before it is requested and its stock is confirmed",
            ),
            Domain::AddressMissing => (Code::FailedPrecondition, "the shipment's address is not known any more"),
            Domain::TrackingNumberMismatch => {
                (Code::FailedPrecondition, "the shipment has a parcel with another tracking number")
            }
            Domain::AddressNotAsked | Domain::ParcelNotBooked => (Code::Internal, "internal error"),
        }
    }

    #[test]
    fn every_rejection_of_the_domain_has_its_status_and_its_text() {
        let all = [
            Domain::ShipmentNotFound,
            Domain::WrongState { command: "PackShipment", status: "PENDING" },
            Domain::NotPickable,
            Domain::AddressMissing,
            Domain::TrackingNumberMismatch,
            Domain::AddressNotAsked,
            Domain::ParcelNotBooked,
        ];
        assert_eq!(all.len(), STATUSES.len());
        for rejection in all {
            let status = rejected(&Rejection { code: rejection.code().to_owned(), message: rejection.to_string() });
            let (code, text) = expected(rejection);
            assert_eq!(status.code(), code, "{rejection:?}");
            if code != Code::Internal {
                assert_eq!((status.message(), reason(&status).as_deref()), (text, Some(rejection.code())));
            }
        }
    }

    #[test]
    fn a_rejection_of_another_build_is_still_a_rejection() {
        let status = rejected(&Rejection { code: "TOO_HEAVY".to_owned(), message: "too heavy".to_owned() });
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "too heavy"));
        assert_eq!(reason(&status).as_deref(), Some("REJECTED"));
    }
}
