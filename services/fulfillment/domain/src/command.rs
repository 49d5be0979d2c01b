//! Commands to a shipment: requests of the warehouse or an operator, and news of other contexts, of its
//! recipient or of a carrier.

use std::sync::Arc;

use uuid::Uuid;

use crate::{Lookup, Parcel, Tracking};

/// Units of one sku.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Of what.
    pub sku: Arc<str>,
    /// How many, at least 1.
    pub quantity: i64,
}

/// News from other contexts, a command from the warehouse or an operator, or news from a carrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The order was paid: send it.
    OrderPaid {
        /// Whose it is, as the customers context names them.
        customer: Uuid,
        /// Which of the customer's addresses it goes to; empty if none was given.
        address_id: Arc<str>,
        /// What it holds.
        lines: Arc<[Line]>,
        /// What that address says, filled in before the decision.
        address: Lookup,
    },
    /// The stock is the order's for good.
    ReservationConfirmed,
    /// The order is to be cancelled, if it can be.
    CancellationRequested,
    /// The order is cancelled.
    OrderCancelled,
    /// Begin to collect the goods.
    StartPicking,
    /// The goods are in their parcel.
    PackShipment,
    /// The parcel was handed to a carrier.
    DispatchShipment {
        /// To which.
        booking: Booking,
    },
    /// The warehouse can't make it.
    CancelShipment {
        /// Why, in the warehouse's words. Holds no personal data.
        reason: Arc<str>,
    },
    /// A carrier's news.
    RecordTracking {
        /// What it says.
        tracking: Tracking,
    },
    /// Erase where it goes or went.
    EraseAddress,
}

/// With whom a parcel goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Booking {
    /// Nobody was named: as a command is decoded. Prepare books the parcel of this shipment.
    Wanted {
        /// The shipment's id.
        shipment: Uuid,
    },
    /// With this carrier.
    Booked(Parcel),
}

impl Command {
    /// Its name, for rejections and telemetry.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::OrderPaid { .. } => "OrderPaid",
            Self::ReservationConfirmed => "ReservationConfirmed",
            Self::CancellationRequested => "CancellationRequested",
            Self::OrderCancelled => "OrderCancelled",
            Self::StartPicking => "StartPicking",
            Self::PackShipment => "PackShipment",
            Self::DispatchShipment { .. } => "DispatchShipment",
            Self::CancelShipment { .. } => "CancelShipment",
            Self::RecordTracking { .. } => "RecordTracking",
            Self::EraseAddress => "EraseAddress",
        }
    }
}
