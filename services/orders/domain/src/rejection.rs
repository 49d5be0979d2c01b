//! Why an order says no. Each reason has its own name, which callers may rely on.

use holdfast_money::Currency;

use crate::{LINES_MAX, Sku, TOKEN_BYTES_MAX};

/// A business rejection: an answer, not an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no order with this id.
    #[error("there is no such order")]
    OrderNotFound,
    /// There is one with this id already.
    #[error("the order exists already")]
    OrderAlreadyExists,
    /// The command does not fit where the order is in its life.
    #[error("{command} is not possible for an order that is {status}")]
    WrongState {
        /// Which command.
        command: &'static str,
        /// Where the order is: `DRAFT`, `PLACED`, `CANCELLED`.
        status: &'static str,
    },
    /// There is nothing to place.
    #[error("the order has no lines")]
    EmptyOrder,
    /// The sku is priced in another currency.
    #[error("sku {sku} is priced in {price}, the order is in {order}")]
    CurrencyMismatch {
        /// Which sku.
        sku: Sku,
        /// Its price's currency.
        price: Currency,
        /// The order's.
        order: Currency,
    },
    /// Fewer than one unit. Adapters refuse this as malformed input before it comes here.
    #[error("the quantity must be at least 1")]
    QuantityNotPositive,
    /// Inventory has no such sku, or no price for it.
    #[error("inventory has no price for sku {sku}")]
    UnknownSku {
        /// Which sku.
        sku: Sku,
    },
    /// There is no line of this sku to remove.
    #[error("the order has no line of sku {sku}")]
    ItemNotInOrder {
        /// Which sku.
        sku: Sku,
    },
    /// One line more than an order may have.
    #[error("an order has at most {LINES_MAX} lines")]
    TooManyLines,
    /// The line or the total would not fit.
    #[error("the order's total would be too large")]
    TotalTooLarge,
    /// Customers knows no such customer.
    #[error("there is no such customer")]
    UnknownCustomer,
    /// The customer is suspended or erased.
    #[error("the customer's account is not active")]
    CustomerNotActive,
    /// The customer has no such address, or none was named.
    #[error("the customer has no such address")]
    UnknownAddress,
    /// The token of the payment method is missing, or none that a payment provider could have issued.
    #[error("the payment method is no token of a payment provider: 1-{TOKEN_BYTES_MAX} characters of visible ASCII")]
    InvalidPaymentMethod,
    /// The price was not looked up before the decision: a defect of the adapter, kept from doing harm.
    #[error("the price of sku {sku} was not asked for")]
    PriceNotAsked {
        /// Which sku.
        sku: Sku,
    },
}

impl Rejection {
    /// Its stable name, in `UPPER_SNAKE_CASE`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::OrderNotFound => "ORDER_NOT_FOUND",
            Self::OrderAlreadyExists => "ORDER_ALREADY_EXISTS",
            Self::WrongState { .. } => "WRONG_STATE",
            Self::EmptyOrder => "EMPTY_ORDER",
            Self::CurrencyMismatch { .. } => "CURRENCY_MISMATCH",
            Self::QuantityNotPositive => "QUANTITY_NOT_POSITIVE",
            Self::UnknownSku { .. } => "UNKNOWN_SKU",
            Self::ItemNotInOrder { .. } => "ITEM_NOT_IN_ORDER",
            Self::TooManyLines => "TOO_MANY_LINES",
            Self::TotalTooLarge => "TOTAL_TOO_LARGE",
            Self::UnknownCustomer => "UNKNOWN_CUSTOMER",
            Self::CustomerNotActive => "CUSTOMER_NOT_ACTIVE",
            Self::UnknownAddress => "UNKNOWN_ADDRESS",
            Self::InvalidPaymentMethod => "INVALID_PAYMENT_METHOD",
            Self::PriceNotAsked { .. } => "PRICE_NOT_ASKED",
        }
    }
}
