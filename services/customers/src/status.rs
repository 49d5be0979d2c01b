//! A customer's rejections as gRPC statuses: one map, by name.
//!
//! By name, because a rejection may come from a claim that another build wrote. Invariant: every rejection of
//! the domain is in the map; the test below does not compile without it. Deliberately absent: failures, which
//! `holdfast_adapter::status` maps.

use holdfast_adapter::status;
use holdfast_core::dedup::Rejection;
use holdfast_platform::errors::Problem;
use tonic::{Code, Status};

/// `ErrorInfo.reason` of a customer that does not exist.
pub const CUSTOMER_NOT_FOUND: &str = "CUSTOMER_NOT_FOUND";

const STATUSES: &[(&str, Code)] = &[
    (CUSTOMER_NOT_FOUND, Code::NotFound),
    ("CUSTOMER_ALREADY_EXISTS", Code::AlreadyExists),
    ("CUSTOMER_ERASED", Code::FailedPrecondition),
    ("WRONG_STATE", Code::FailedPrecondition),
    ("ADDRESS_NOT_FOUND", Code::NotFound),
    ("ADDRESS_ALREADY_EXISTS", Code::AlreadyExists),
    ("TOO_MANY_ADDRESSES", Code::FailedPrecondition),
];

/// The status of a rejection.
pub fn rejected(rejection: &Rejection) -> Status {
    status::rejected(rejection, STATUSES, &[])
}

/// The status of a customer that is asked for and does not exist.
pub fn not_found() -> Status {
    Problem::not_found(CUSTOMER_NOT_FOUND, "there is no such customer").into_status()
}

#[cfg(test)]
mod tests {
    use holdfast_customers_domain::Rejection as Domain;
    use holdfast_platform::errors::reason;

    use super::*;

    /// What each rejection must become, and its text. A new one does not compile until it is here.
    fn expected(rejection: Domain) -> (Code, &'static str) {
        match rejection {
            Domain::CustomerNotFound => (Code::NotFound, "there is no such customer"),
            Domain::CustomerAlreadyExists => (Code::AlreadyExists, "the customer exists already"),
            Domain::CustomerErased => (Code::FailedPrecondition, "the customer was erased"),
            Domain::WrongState { .. } => {
                (Code::FailedPrecondition, "SuspendCustomer is not possible for a customer that is SUSPENDED")
            }
            Domain::AddressNotFound => (Code::NotFound, "the customer has no such address"),
            Domain::AddressAlreadyExists => (Code::AlreadyExists, "the customer has an address with this id already"),
            Domain::TooManyAddresses => (Code::FailedPrecondition, "a customer has at most 50 addresses"),
        }
    }

    #[test]
    fn every_rejection_of_the_domain_has_its_status_and_its_text() {
        let all = [
            Domain::CustomerNotFound,
            Domain::CustomerAlreadyExists,
            Domain::CustomerErased,
            Domain::WrongState { command: "SuspendCustomer", status: "SUSPENDED" },
            Domain::AddressNotFound,
            Domain::AddressAlreadyExists,
            Domain::TooManyAddresses,
        ];
        assert_eq!(all.len(), STATUSES.len());
        for rejection in all {
            let message = rejection.to_string();
            let status = rejected(&Rejection { code: rejection.code().to_owned(), message });
            assert_eq!((status.code(), status.message()), expected(rejection), "{rejection:?}");
            assert_eq!(reason(&status).as_deref(), Some(rejection.code()));
        }
    }

    #[test]
    fn a_rejection_of_another_build_is_still_a_rejection() {
        let status = rejected(&Rejection { code: "TOO_YOUNG".to_owned(), message: "not yet".to_owned() });
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "not yet"));
        assert_eq!(reason(&status).as_deref(), Some("REJECTED"));
    }
}
