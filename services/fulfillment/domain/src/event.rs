//! What can have happened to a shipment. Its state is the fold of these; each carries the time it happened.

use std::sync::Arc;

use holdfast_core::Timestamp;
use uuid::Uuid;

use crate::{Address, Line, Parcel, Tracking};

/// Something that happened to a shipment. `at` is when, by the owning node's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An order was paid, and there is an address to send it to.
    ShipmentRequested {
        /// When.
        at: Timestamp,
        /// Whose it is.
        customer: Uuid,
        /// Which of the customer's addresses it goes to.
        address_id: Arc<str>,
        /// What it holds.
        lines: Arc<[Line]>,
        /// What the address says. Not published, so `None` in an event that was read back after a database
        /// was restored: it is lost.
        address: Option<Address>,
    },
    /// The stock is the order's for good.
    ShipmentConfirmed {
        /// When.
        at: Timestamp,
    },
    /// The warehouse has begun to collect the goods.
    PickingStarted {
        /// When.
        at: Timestamp,
    },
    /// The goods are in their parcel.
    ShipmentPacked {
        /// When.
        at: Timestamp,
    },
    /// The parcel was handed to a carrier.
    ShipmentDispatched {
        /// When.
        at: Timestamp,
        /// What was handed over, to whom.
        parcel: Parcel,
    },
    /// The parcel came further and has not arrived, or there is news of one whose hand-over is yet to be
    /// recorded.
    TrackingUpdated {
        /// When this context learned it.
        at: Timestamp,
        /// What the carrier said.
        tracking: Tracking,
    },
    /// The parcel arrived.
    ShipmentDelivered {
        /// When this context learned it.
        at: Timestamp,
        /// What the carrier said.
        tracking: Tracking,
    },
    /// It ended before it was handed over, or before it began.
    ShipmentCancelled {
        /// When.
        at: Timestamp,
        /// Why.
        cancellation: Cancellation,
    },
    /// Where it goes or went is not known any more.
    AddressErased {
        /// When.
        at: Timestamp,
    },
}

impl Event {
    /// When it happened, by the owning node's clock.
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::ShipmentRequested { at, .. }
            | Self::ShipmentConfirmed { at }
            | Self::PickingStarted { at }
            | Self::ShipmentPacked { at }
            | Self::ShipmentDispatched { at, .. }
            | Self::TrackingUpdated { at, .. }
            | Self::ShipmentDelivered { at, .. }
            | Self::ShipmentCancelled { at, .. }
            | Self::AddressErased { at } => *at,
        }
    }
}

/// Why a shipment was cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// What ended it.
    pub cause: CancellationCause,
    /// In a few words: the warehouse's, or [`CancellationCause::words`].
    pub reason: Arc<str>,
}

/// What ended a cancelled shipment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancellationCause {
    /// The order was asked to be cancelled after it was paid.
    CancellationRequested,
    /// The order was cancelled.
    OrderCancelled,
    /// There is no address to send it to, or not any more.
    Undeliverable,
    /// The warehouse can't make it.
    Warehouse,
}

impl CancellationCause {
    /// In a few words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::CancellationRequested => "cancellation requested",
            Self::OrderCancelled => "order cancelled",
            Self::Undeliverable => "no address to send it to",
            Self::Warehouse => "cancelled by the warehouse",
        }
    }
}
