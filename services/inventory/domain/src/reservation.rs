//! The Reservation aggregate, keyed by order id: all lines of an order held, or none.
//!
//! ```text
//! HELD ──► CONFIRMED ──► SHIPPED
//!   └─────────┴──► RELEASED        HELD ──► EXPIRED        REFUSED, RELEASED from the start
//! ```
//!
//! Invariant: the pools hold a reservation's lines exactly while it is HELD or CONFIRMED; they leave what is
//! on hand when it is SHIPPED. It expires only unconfirmed, and is confirmed only unexpired: so who ships by
//! its word never ships what was given to others. A reservation is decided once: what has a state never
//! reserves (again), so repeats and events that cross do no harm, and a cancellation that comes first
//! forestalls it.

use std::{sync::Arc, time::Duration};

use holdfast_core::{Aggregate, Context, Decision, Effects, Timestamp, pool::PoolChange};

use crate::{Line, line};

/// The timer that ends a hold.
pub const EXPIRY_TIMER: &str = "expiry";

/// How long stock is held for an order that isn't paid, unless configured otherwise.
pub const HOLD_DEFAULT: Duration = Duration::from_mins(15);

/// One order's reservation, or the place where it will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservation(Option<Details>);

/// What there is to know about a reservation that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Where it is in its life.
    pub status: Status,
    /// What was asked for, each sku once, sorted by sku. Empty if the cancellation came first.
    pub lines: Arc<[Line]>,
    /// When the hold ends, or would have; `None` if there never was one.
    pub expires_at: Option<Timestamp>,
    /// When its first event happened, by the owning node's clock.
    pub created_at: Timestamp,
    /// When its last event happened, by the owning node's clock.
    pub updated_at: Timestamp,
}

/// Where a reservation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All lines are held.
    Held,
    /// Paid for: held without end.
    Confirmed,
    /// Gone to the customer.
    Shipped,
    /// Not every line could be held, so none was.
    Refused,
    /// Given back, or forestalled.
    Released(ReleaseCause),
    /// Given back because its time ran out.
    Expired,
}

impl Status {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "HELD",
            Self::Confirmed => "CONFIRMED",
            Self::Shipped => "SHIPPED",
            Self::Refused => "REFUSED",
            Self::Released(_) => "RELEASED",
            Self::Expired => "EXPIRED",
        }
    }
}

/// What ended a reservation that was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseCause {
    /// The order was cancelled.
    OrderCancelled,
}

/// News from orders, or the timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// An order was placed: hold its lines.
    OrderPlaced {
        /// What it wants. A sku may come more than once; its quantities add up.
        lines: Vec<Line>,
        /// For how long to hold, [`HOLD_DEFAULT`] unless configured otherwise.
        hold_for: Duration,
    },
    /// The order was paid: keep its stock for good.
    OrderPaid,
    /// The order's goods have left: they are not in stock any more.
    OrderShipped,
    /// The order was cancelled: give back what is held.
    OrderCancelled,
    /// [`EXPIRY_TIMER`] fired.
    HoldElapsed,
}

/// Something that happened to a reservation. `at` is when, by the owning node's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// All lines are held.
    StockReserved {
        /// When.
        at: Timestamp,
        /// What is held.
        lines: Arc<[Line]>,
        /// When the hold ends. The timer goes by the database's clock, so it is close to this, not exact.
        expires_at: Timestamp,
    },
    /// What is held is held without end.
    ReservationConfirmed {
        /// When.
        at: Timestamp,
        /// What is held.
        lines: Arc<[Line]>,
    },
    /// What was held has left.
    ReservationShipped {
        /// When.
        at: Timestamp,
        /// What has left.
        lines: Arc<[Line]>,
    },
    /// Not every line could be held, so none was.
    ReservationRefused {
        /// When.
        at: Timestamp,
        /// What was wanted.
        wanted: Arc<[Line]>,
    },
    /// Given back, or forestalled.
    ReservationReleased {
        /// When.
        at: Timestamp,
        /// What was given back; empty if it was forestalled.
        lines: Arc<[Line]>,
        /// What ended it.
        cause: ReleaseCause,
    },
    /// Given back because its time ran out.
    ReservationExpired {
        /// When.
        at: Timestamp,
        /// What was given back.
        lines: Arc<[Line]>,
    },
}

impl Event {
    /// What happened to the pools with it.
    pub fn pool_changes(&self) -> Vec<PoolChange> {
        match self {
            Self::StockReserved { lines, .. } => line::hold(lines),
            Self::ReservationRefused { .. } | Self::ReservationConfirmed { .. } => Vec::new(),
            Self::ReservationShipped { lines, .. } => line::take_out(lines),
            Self::ReservationReleased { lines, .. } | Self::ReservationExpired { lines, .. } => line::give_back(lines),
        }
    }
}

/// Why a reservation says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The pools don't hold what this reservation is holding: an invariant is broken elsewhere. It stays
    /// HELD, for the difference to be found, rather than take from others.
    #[error("the stock of this reservation is not held")]
    StockNotHeld,
}

impl Rejection {
    /// Its stable name, in `UPPER_SNAKE_CASE`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::StockNotHeld => "STOCK_NOT_HELD",
        }
    }
}

impl Reservation {
    /// A reservation as it was stored. Trusted: nothing is checked.
    pub const fn rehydrate(details: Details) -> Self {
        Self(Some(details))
    }

    /// What there is to know; `None` if neither an order was placed nor cancelled under this id.
    pub const fn details(&self) -> Option<&Details> {
        self.0.as_ref()
    }
}

impl Aggregate for Reservation {
    const KIND: &'static str = "reservation";
    const SCHEMA: u32 = 1;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(&self, command: &Command, context: &Context<'_>) -> Result<Decision<Self>, Rejection> {
        let at = context.now;
        Ok(match (command, &self.0) {
            (Command::OrderPlaced { lines, hold_for }, None) => reserve(lines, *hold_for, at),
            (Command::OrderCancelled, None) => Decision::event(Event::ReservationReleased {
                at,
                lines: [].into(),
                cause: ReleaseCause::OrderCancelled,
            }),
            (Command::OrderPaid, Some(Details { status: Status::Held, lines, .. })) => Decision::Done(
                Effects::event(Event::ReservationConfirmed { at, lines: lines.clone() }).without_timer(EXPIRY_TIMER),
            ),
            (Command::OrderShipped, Some(Details { status: Status::Held | Status::Confirmed, lines, .. })) => {
                let shipped = Effects::event(Event::ReservationShipped { at, lines: lines.clone() });
                Decision::Conditional {
                    wants: line::take_out(lines),
                    granted: shipped.without_timer(EXPIRY_TIMER),
                    refused: Err(Rejection::StockNotHeld),
                }
            }
            (Command::OrderCancelled, Some(Details { status: Status::Held | Status::Confirmed, lines, .. })) => {
                let event =
                    Event::ReservationReleased { at, lines: lines.clone(), cause: ReleaseCause::OrderCancelled };
                give_back(lines, Effects::event(event).without_timer(EXPIRY_TIMER))
            }
            (Command::HoldElapsed, Some(Details { status: Status::Held, lines, .. })) => {
                give_back(lines, Effects::event(Event::ReservationExpired { at, lines: lines.clone() }))
            }
            _ => Decision::nothing(),
        })
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::StockReserved { at, lines, expires_at } => {
                self.begin(*at, Status::Held, lines, Some(*expires_at));
            }
            Event::ReservationConfirmed { at, lines } => self.turn(*at, Status::Confirmed, lines),
            Event::ReservationShipped { at, lines } => self.turn(*at, Status::Shipped, lines),
            Event::ReservationRefused { at, wanted } => self.begin(*at, Status::Refused, wanted, None),
            Event::ReservationReleased { at, lines, cause } => self.turn(*at, Status::Released(*cause), lines),
            Event::ReservationExpired { at, lines } => self.turn(*at, Status::Expired, lines),
        }
    }
}

impl Reservation {
    fn begin(&mut self, at: Timestamp, status: Status, lines: &Arc<[Line]>, expires_at: Option<Timestamp>) {
        self.0 = Some(Details { status, lines: lines.clone(), expires_at, created_at: at, updated_at: at });
    }

    fn turn(&mut self, at: Timestamp, status: Status, lines: &Arc<[Line]>) {
        match &mut self.0 {
            Some(details) => {
                details.status = status;
                details.updated_at = at;
            }
            None => self.begin(at, status, lines, None),
        }
    }
}

/// Holds all lines if the pools can give them, otherwise none.
fn reserve(lines: &[Line], hold_for: Duration, at: Timestamp) -> Decision<Reservation> {
    let refused = |wanted| Effects::event(Event::ReservationRefused { at, wanted });
    // No stock can satisfy a sum that doesn't fit. Quantities that aren't positive were refused at the door.
    let Some(lines) = line::merged(lines) else {
        return Decision::Done(refused(lines.into()));
    };
    let reserved = Event::StockReserved { at, lines: lines.clone(), expires_at: at.plus(hold_for) };
    Decision::Conditional {
        wants: line::hold(&lines),
        granted: Effects::event(reserved).with_timer(EXPIRY_TIMER, hold_for),
        refused: Ok(refused(lines)),
    }
}

/// Gives the lines back, with these effects.
fn give_back(lines: &[Line], effects: Effects<Event>) -> Decision<Reservation> {
    Decision::Conditional { wants: line::give_back(lines), granted: effects, refused: Err(Rejection::StockNotHeld) }
}
