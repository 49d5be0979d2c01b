//! The shop's own carrier, as a port: with whom a parcel goes if nobody was named.
//!
//! Invariant: a booking is made under the shipment's id, so that the same shipment is booked once however
//! often it is asked for, also when the command is rejected afterwards. Deliberately absent: labels, prices,
//! pick-ups, and any real carrier.

use async_trait::async_trait;
use holdfast_core::codec::LookupFailed;
use holdfast_fulfillment_domain::Parcel;
use uuid::Uuid;

/// Takes parcels.
#[async_trait]
pub trait Carrier: Send + Sync + 'static {
    /// Books a parcel for each of these shipments, or finds the one that was booked before; one answer for
    /// each, in order.
    async fn book(&self, shipments: &[Uuid]) -> Vec<Result<Parcel, LookupFailed>>;
}

#[async_trait]
impl Carrier for Box<dyn Carrier> {
    async fn book(&self, shipments: &[Uuid]) -> Vec<Result<Parcel, LookupFailed>> {
        (**self).book(shipments).await
    }
}

/// A carrier that takes everything and has no vans.
#[derive(Clone, Copy, Debug, Default)]
pub struct Simulated;

/// The name space of the simulator's tracking numbers.
const PARCELS: Uuid = Uuid::from_u128(0x0b57_6c1e_d0f5_4bb1_9a6e_51c2_7f38_e4d9);

impl Simulated {
    /// The name of the carrier.
    pub const NAME: &'static str = "simulated";

    /// The parcel of a shipment: always the same.
    pub fn parcel(shipment: Uuid) -> Parcel {
        let number = Uuid::new_v5(&PARCELS, shipment.as_bytes()).simple().to_string();
        Parcel { carrier: Self::NAME.into(), tracking_number: format!("SIM-{}", &number[..20]).into() }
    }
}

#[async_trait]
impl Carrier for Simulated {
    async fn book(&self, shipments: &[Uuid]) -> Vec<Result<Parcel, LookupFailed>> {
        shipments.iter().map(|shipment| Ok(Self::parcel(*shipment))).collect()
    }
}
