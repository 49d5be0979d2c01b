//! The Shipment aggregate, keyed by order id: its state, its decisions, its evolution.
//!
//! Invariants: nothing is picked before the order is paid *and* its stock is confirmed, in whichever order
//! that is heard; what was handed over is never cancelled, and what was cancelled never goes out. News never
//! errs, whatever state it meets: contexts react to one another, so their events cross. A cancellation that
//! comes first forestalls the shipment. What is cancelled keeps no address.

use std::sync::Arc;

use holdfast_core::{Aggregate, Context, Decision, Timestamp};
use uuid::Uuid;

use crate::{
    Address, Booking, Cancellation, CancellationCause, Command, Event, Line, Lookup, Parcel, Rejection, Tracking,
    TrackingStatus,
};

/// The name space of shipment ids. Must never change: other contexts know shipments by what is made with it.
const SHIPMENTS: Uuid = Uuid::from_u128(0xe0b4_9121_e38a_40d3_b020_502c_3f77_cde2);

/// The id of an order's shipment.
pub fn shipment_id(order: Uuid) -> Uuid {
    Uuid::new_v5(&SHIPMENTS, order.as_bytes())
}

/// One order's shipment, or the place where it will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shipment(Option<Details>);

/// What there is to know about a shipment of which something was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Where it is in its life.
    pub status: Status,
    /// What is to be sent; `None` until the order was paid.
    pub request: Option<Request>,
    /// Where it goes; `None` if it was not requested, was cancelled, if the address was erased, or lost with
    /// a database.
    pub address: Option<Address>,
    /// When the address was erased.
    pub address_erased_at: Option<Timestamp>,
    /// When its stock was confirmed.
    pub confirmed_at: Option<Timestamp>,
    /// What was handed to a carrier.
    pub parcel: Option<Parcel>,
    /// The last news of the parcel.
    pub tracking: Option<Tracking>,
    /// When its first event happened, by the owning node's clock.
    pub created_at: Timestamp,
    /// When its last event happened, by the owning node's clock.
    pub updated_at: Timestamp,
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it was requested.
    pub at: Timestamp,
    /// Whose it is.
    pub customer: Uuid,
    /// Which of the customer's addresses it goes to.
    pub address_id: Arc<str>,
    /// What it holds.
    pub lines: Arc<[Line]>,
}

/// Where a shipment is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not begun.
    Pending,
    /// The warehouse collects the goods.
    Picking,
    /// In its parcel.
    Packed,
    /// Handed to the carrier.
    Shipped,
    /// Arrived.
    Delivered,
    /// Ended before it was handed over.
    Cancelled(Cancellation),
}

impl Status {
    /// Its name on the wire and in rejections.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Picking => "PICKING",
            Self::Packed => "PACKED",
            Self::Shipped => "SHIPPED",
            Self::Delivered => "DELIVERED",
            Self::Cancelled(_) => "CANCELLED",
        }
    }

    /// Whether it can still be cancelled.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Pending | Self::Picking | Self::Packed)
    }
}

impl Details {
    /// When both its request and its stock's confirmation had come; `None` if one has not.
    pub fn ready_at(&self) -> Option<Timestamp> {
        let (request, confirmed) = (self.request.as_ref()?.at, self.confirmed_at?);
        Some(Timestamp::from_unix_ms(request.unix_ms().max(confirmed.unix_ms())))
    }
}

impl Shipment {
    /// A shipment as it was stored. Trusted: nothing is checked.
    pub const fn rehydrate(details: Details) -> Self {
        Self(Some(details))
    }

    /// What there is to know; `None` if nothing was heard of it.
    pub const fn details(&self) -> Option<&Details> {
        self.0.as_ref()
    }

    /// The decision on news, which never says no.
    fn react(&self, news: &Command, at: Timestamp) -> Result<Option<Event>, Rejection> {
        let details = self.0.as_ref();
        if details.is_some_and(|details| !details.status.is_open()) {
            return Ok(None);
        }
        let is_requested = details.is_some_and(|details| details.request.is_some());
        let is_confirmed = details.is_some_and(|details| details.confirmed_at.is_some());
        Ok(match news {
            Command::OrderPaid { address: Lookup::NotAsked, .. } => return Err(Rejection::AddressNotAsked),
            Command::OrderPaid { customer, address_id, lines, address } if !is_requested => Some(match address {
                Lookup::Found(address) => Event::ShipmentRequested {
                    at,
                    customer: *customer,
                    address_id: address_id.clone(),
                    lines: lines.clone(),
                    address: Some(address.clone()),
                },
                Lookup::Missing | Lookup::NotAsked => cancelled(at, CancellationCause::Undeliverable),
            }),
            Command::ReservationConfirmed if !is_confirmed => Some(Event::ShipmentConfirmed { at }),
            Command::CancellationRequested => Some(cancelled(at, CancellationCause::CancellationRequested)),
            Command::OrderCancelled => Some(cancelled(at, CancellationCause::OrderCancelled)),
            _ => None,
        })
    }
}

impl Aggregate for Shipment {
    const KIND: &'static str = "shipment";
    const SCHEMA: u32 = 1;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(&self, command: &Command, context: &Context<'_>) -> Result<Decision<Self>, Rejection> {
        let at = context.now;
        let events = match command {
            Command::OrderPaid { .. }
            | Command::ReservationConfirmed
            | Command::CancellationRequested
            | Command::OrderCancelled => self.react(command, at)?.into_iter().collect(),
            _ => self.0.as_ref().ok_or(Rejection::ShipmentNotFound)?.decide(command, at)?,
        };
        Ok(Decision::events(events))
    }

    fn evolve(&mut self, event: &Event) {
        let at = event.at();
        let details = self.0.get_or_insert(Details {
            status: Status::Pending,
            request: None,
            address: None,
            address_erased_at: None,
            confirmed_at: None,
            parcel: None,
            tracking: None,
            created_at: at,
            updated_at: at,
        });
        details.evolve(event);
    }
}

impl Details {
    /// The decision on a command to a shipment of which something was heard.
    fn decide(&self, command: &Command, at: Timestamp) -> Result<Vec<Event>, Rejection> {
        Ok(match (command, &self.status) {
            (Command::StartPicking, Status::Pending) if self.ready_at().is_none() => {
                return Err(Rejection::NotPickable);
            }
            (Command::StartPicking, Status::Pending) if self.address.is_none() => {
                return Err(Rejection::AddressMissing);
            }
            (Command::StartPicking, Status::Pending) => vec![Event::PickingStarted { at }],
            (Command::PackShipment, Status::Picking) => vec![Event::ShipmentPacked { at }],
            (Command::DispatchShipment { booking: Booking::Booked(parcel) }, Status::Packed) => {
                self.dispatch(parcel, at)
            }
            (Command::DispatchShipment { .. }, Status::Packed) => return Err(Rejection::ParcelNotBooked),
            (Command::CancelShipment { reason }, status) if status.is_open() => {
                let cancellation = Cancellation { cause: CancellationCause::Warehouse, reason: reason.clone() };
                vec![Event::ShipmentCancelled { at, cancellation }]
            }
            (Command::RecordTracking { tracking }, _) => self.track(tracking, at)?.into_iter().collect(),
            (Command::EraseAddress, _) if self.address_erased_at.is_some() => Vec::new(),
            (Command::EraseAddress, status) => {
                let undeliverable = status.is_open().then(|| cancelled(at, CancellationCause::Undeliverable));
                std::iter::once(Event::AddressErased { at }).chain(undeliverable).collect()
            }
            _ => return Err(Rejection::WrongState { command: command.name(), status: self.status.name() }),
        })
    }

    /// Hands the parcel over, and takes up what its carrier has said of it before.
    fn dispatch(&self, parcel: &Parcel, at: Timestamp) -> Vec<Event> {
        let arrived = self.tracking.as_ref().filter(|tracking| {
            tracking.tracking_number == parcel.tracking_number && tracking.status == TrackingStatus::Delivered
        });
        let arrived = arrived.map(|tracking| Event::ShipmentDelivered { at, tracking: tracking.clone() });
        std::iter::once(Event::ShipmentDispatched { at, parcel: parcel.clone() }).chain(arrived).collect()
    }

    /// Takes a carrier's news, if it is any.
    fn track(&self, tracking: &Tracking, at: Timestamp) -> Result<Option<Event>, Rejection> {
        if matches!(self.status, Status::Delivered | Status::Cancelled(_)) {
            return Ok(None);
        }
        if self.parcel.as_ref().is_some_and(|parcel| parcel.tracking_number != tracking.tracking_number) {
            return Err(Rejection::TrackingNumberMismatch);
        }
        if !tracking.is_news(self.tracking.as_ref()) {
            return Ok(None);
        }
        let tracking = tracking.clone();
        let has_arrived = self.status == Status::Shipped && tracking.status == TrackingStatus::Delivered;
        Ok(Some(if has_arrived {
            Event::ShipmentDelivered { at, tracking }
        } else {
            Event::TrackingUpdated { at, tracking }
        }))
    }

    fn evolve(&mut self, event: &Event) {
        self.updated_at = event.at();
        match event {
            Event::ShipmentRequested { at, customer, address_id, lines, address } => {
                let (address_id, lines) = (address_id.clone(), lines.clone());
                self.request = Some(Request { at: *at, customer: *customer, address_id, lines });
                self.address.clone_from(address);
            }
            Event::ShipmentConfirmed { at } => self.confirmed_at = Some(*at),
            Event::PickingStarted { .. } => self.status = Status::Picking,
            Event::ShipmentPacked { .. } => self.status = Status::Packed,
            Event::ShipmentDispatched { parcel, .. } => {
                self.status = Status::Shipped;
                self.tracking.take_if(|tracking| tracking.tracking_number != parcel.tracking_number);
                self.parcel = Some(parcel.clone());
            }
            Event::TrackingUpdated { tracking, .. } => self.tracking = Some(tracking.clone()),
            Event::ShipmentDelivered { tracking, .. } => {
                self.status = Status::Delivered;
                self.tracking = Some(tracking.clone());
            }
            Event::ShipmentCancelled { cancellation, .. } => {
                self.status = Status::Cancelled(cancellation.clone());
                self.address = None;
            }
            Event::AddressErased { at } => {
                self.address = None;
                self.address_erased_at = Some(*at);
            }
        }
    }
}

fn cancelled(at: Timestamp, cause: CancellationCause) -> Event {
    Event::ShipmentCancelled { at, cancellation: Cancellation { cause, reason: cause.words().into() } }
}
