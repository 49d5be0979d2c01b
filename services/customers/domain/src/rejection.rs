//! Why a customer says no. Each reason has its own name, which callers may rely on.

use crate::ADDRESSES_MAX;

/// A business rejection: an answer, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no customer with this id.
    #[error("there is no such customer")]
    CustomerNotFound,
    /// There is one with this id already.
    #[error("the customer exists already")]
    CustomerAlreadyExists,
    /// Nothing is kept for this customer any more.
    #[error("the customer was erased")]
    CustomerErased,
    /// The command does not fit where the account is in its life.
    #[error("{command} is not possible for a customer that is {status}")]
    WrongState {
        /// Which command.
        command: &'static str,
        /// Where the account is: `ACTIVE`, `SUSPENDED`.
        status: &'static str,
    },
    /// The customer has no address of this id.
    #[error("the customer has no such address")]
    AddressNotFound,
    /// The customer has an address of this id already.
    #[error("the customer has an address with this id already")]
    AddressAlreadyExists,
    /// One address more than a customer may have.
    #[error("a customer has at most {ADDRESSES_MAX} addresses")]
    TooManyAddresses,
}

impl Rejection {
    /// Its stable name, in `UPPER_SNAKE_CASE`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::CustomerNotFound => "CUSTOMER_NOT_FOUND",
            Self::CustomerAlreadyExists => "CUSTOMER_ALREADY_EXISTS",
            Self::CustomerErased => "CUSTOMER_ERASED",
            Self::WrongState { .. } => "WRONG_STATE",
            Self::AddressNotFound => "ADDRESS_NOT_FOUND",
            Self::AddressAlreadyExists => "ADDRESS_ALREADY_EXISTS",
            Self::TooManyAddresses => "TOO_MANY_ADDRESSES",
        }
    }
}
