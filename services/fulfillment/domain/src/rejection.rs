//! Why a shipment says no. Each reason has its own name, which callers may rely on.

/// A business rejection: an answer, not an error. News is never rejected, unless an adapter is defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no shipment for this order.
    #[error("there is no such shipment")]
    ShipmentNotFound,
    /// The command does not fit where the shipment is in its life.
    #[error("{command} is not possible for a shipment that is {status}")]
    WrongState {
        /// Which command.
        command: &'static str,
        /// Where the shipment is: `PENDING`, `PICKING`, and so on.
        status: &'static str,
    },
    /// Its request or its stock's confirmation has not come yet.
    #[error("the shipment can't be picked before it is requested and its stock is confirmed")]
    NotPickable,
    /// Where it goes was lost with a database.
    #[error("the shipment's address is not known any more")]
    AddressMissing,
    /// News of another parcel than the one that was handed over.
    #[error("the shipment has a parcel with another tracking number")]
    TrackingNumberMismatch,
    /// The address was not looked up before the decision: a defect of the adapter, kept from doing harm.
    #[error("the address was not asked for")]
    AddressNotAsked,
    /// The parcel was not booked before the decision: a defect of the adapter, kept from doing harm.
    #[error("the parcel was not booked")]
    ParcelNotBooked,
}

impl Rejection {
    /// Its stable name, in `UPPER_SNAKE_CASE`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ShipmentNotFound => "SHIPMENT_NOT_FOUND",
            Self::WrongState { .. } => "WRONG_STATE",
            Self::NotPickable => "NOT_PICKABLE",
            Self::AddressMissing => "ADDRESS_MISSING",
            Self::TrackingNumberMismatch => "TRACKING_NUMBER_MISMATCH",
            Self::AddressNotAsked => "ADDRESS_NOT_ASKED",
            Self::ParcelNotBooked => "PARCEL_NOT_BOOKED",
        }
    }
}
