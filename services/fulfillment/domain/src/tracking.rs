//! A parcel, and how far its carrier says it is.

use std::sync::Arc;

use holdfast_core::Timestamp;

/// What a carrier took over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Who carries it.
    pub carrier: Arc<str>,
    /// The carrier's number of it.
    pub tracking_number: Arc<str>,
}

/// A carrier's news of a parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracking {
    /// The carrier's number of it.
    pub tracking_number: Arc<str>,
    /// How far it is.
    pub status: TrackingStatus,
    /// When it came so far, by the carrier's clock.
    pub occurred_at: Timestamp,
}

/// How far a parcel is. The order of these is the order on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrackingStatus {
    /// The carrier has it.
    Accepted,
    /// On its way.
    InTransit,
    /// In the vehicle that brings it.
    OutForDelivery,
    /// Arrived.
    Delivered,
}

impl Tracking {
    /// Whether this is further on than what is known of the same parcel.
    pub fn is_news(&self, known: Option<&Self>) -> bool {
        let same = known.filter(|known| known.tracking_number == self.tracking_number);
        same.is_none_or(|known| known.status < self.status)
    }
}
