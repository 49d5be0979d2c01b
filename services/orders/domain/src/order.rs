//! The Order aggregate: its state, its decisions, its evolution.
//!
//! Invariants: lines change in DRAFT only; an order is placed at most once and with at least one line; CANCELLED is final.
//! Inventory's news never errs, whatever state it meets: orders and inventory react to one another, so their events cross,
//! and what comes too late changes nothing here because inventory, told of the cancellation, gives the stock back.

use std::sync::Arc;

use holdfast_core::{Aggregate, Context, Decision, Timestamp};
use holdfast_money::Money;
use uuid::Uuid;

use crate::{Cancellation, CancellationCause, Command, Event, Lines, Quote, Rejection, Sku};

/// The most lines that an order may have.
pub const LINES_MAX: usize = 100;

/// One order, or the place where it will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order(Option<Details>);

/// What there is to know about an order that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Whose order.
    pub customer: Uuid,
    /// What is ordered, and for how much.
    pub lines: Lines,
    /// Where it is in its life.
    pub status: Status,
    /// Token of the payment method, if one was given when it was placed.
    pub payment_method: Option<Arc<str>>,
    /// Id of the customer's address, if one was given when it was placed.
    pub address_id: Option<Arc<str>>,
    /// When it was created, by the owning node's clock.
    pub created_at: Timestamp,
    /// When its last event happened, by the owning node's clock.
    pub updated_at: Timestamp,
}

/// Where an order is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Open for items.
    Draft,
    /// Placed by the customer.
    Placed {
        /// Until when inventory holds the lines; `None` until inventory has said so.
        reserved_until: Option<Timestamp>,
    },
    /// Ended before shipping.
    Cancelled(Cancellation),
}

impl Status {
    /// Its name on the wire and in rejections.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Draft => "DRAFT",
            Self::Placed { .. } => "PLACED",
            Self::Cancelled(_) => "CANCELLED",
        }
    }
}

impl Order {
    /// An order as it was stored. Trusted: nothing is checked.
    pub const fn rehydrate(details: Details) -> Self {
        Self(Some(details))
    }

    /// What there is to know; `None` if the order does not exist.
    pub const fn details(&self) -> Option<&Details> {
        self.0.as_ref()
    }

    /// The decision on inventory's news, which never says no.
    fn react(&self, news: &Command, at: Timestamp) -> Decision<Self> {
        let Some(Details { status: Status::Placed { reserved_until }, .. }) = &self.0 else {
            return Decision::nothing();
        };
        match news {
            Command::StockReserved { until } if reserved_until.is_none() => {
                Decision::event(Event::OrderReserved { at, until: *until })
            }
            Command::ReservationRefused => Decision::event(cancelled(at, CancellationCause::OutOfStock)),
            Command::ReservationExpired => Decision::event(cancelled(at, CancellationCause::ReservationExpired)),
            _ => Decision::nothing(),
        }
    }
}

impl Aggregate for Order {
    const KIND: &'static str = "order";
    const SCHEMA: u32 = 1;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(&self, command: &Command, context: &Context<'_>) -> Result<Decision<Self>, Rejection> {
        let at = context.now;
        let event = match command {
            Command::StockReserved { .. } | Command::ReservationRefused | Command::ReservationExpired => {
                return Ok(self.react(command, at));
            }
            Command::CreateOrder { customer, currency } => match self.0 {
                None => Event::OrderCreated { at, customer: *customer, currency: *currency },
                Some(_) => return Err(Rejection::OrderAlreadyExists),
            },
            _ => self.0.as_ref().ok_or(Rejection::OrderNotFound)?.decide(command, at)?,
        };
        Ok(Decision::event(event))
    }

    fn evolve(&mut self, event: &Event) {
        if let Event::OrderCreated { at, customer, currency } = event {
            self.0 = Some(Details {
                customer: *customer,
                lines: Lines::none(*currency),
                status: Status::Draft,
                payment_method: None,
                address_id: None,
                created_at: *at,
                updated_at: *at,
            });
        } else if let Some(details) = &mut self.0 {
            details.evolve(event);
        }
    }
}

impl Details {
    /// The decision on a customer's command to an order that exists.
    fn decide(&self, command: &Command, at: Timestamp) -> Result<Event, Rejection> {
        match (command, &self.status) {
            (Command::AddItem { sku, quantity, quote }, Status::Draft) => self.add_item(sku, *quantity, *quote, at),
            (Command::RemoveItem { sku }, Status::Draft) => match self.lines.total_without(sku) {
                None => Err(Rejection::ItemNotInOrder { sku: sku.clone() }),
                Some(total) => {
                    let total = total.map_err(|_| Rejection::TotalTooLarge)?;
                    Ok(Event::ItemRemoved { at, sku: sku.clone(), total })
                }
            },
            (Command::PlaceOrder { .. }, Status::Draft) if self.lines.as_slice().is_empty() => {
                Err(Rejection::EmptyOrder)
            }
            (Command::PlaceOrder { payment_method, address_id }, Status::Draft) => Ok(Event::OrderPlaced {
                at,
                customer: self.customer,
                lines: self.lines.as_slice().into(),
                total: self.lines.total(),
                payment_method: payment_method.clone(),
                address_id: address_id.clone(),
            }),
            (Command::CancelOrder { reason }, Status::Draft | Status::Placed { .. }) => {
                let cancellation = Cancellation { cause: CancellationCause::Requested, reason: reason.clone() };
                Ok(Event::OrderCancelled { at, cancellation })
            }
            _ => Err(Rejection::WrongState { command: command.name(), status: self.status.name() }),
        }
    }

    fn add_item(&self, sku: &Sku, quantity: i64, quote: Quote, at: Timestamp) -> Result<Event, Rejection> {
        if quantity <= 0 {
            return Err(Rejection::QuantityNotPositive);
        }
        let unit_price = self.price(sku, quote)?;
        if self.lines.get(sku).is_none() && self.lines.as_slice().len() >= LINES_MAX {
            return Err(Rejection::TooManyLines);
        }
        let (line, total) = self.lines.plus(sku, quantity, unit_price).map_err(|_| Rejection::TotalTooLarge)?;
        Ok(Event::ItemAdded { at, quantity, line, total })
    }

    /// The quoted price, if there is one in the order's currency.
    fn price(&self, sku: &Sku, quote: Quote) -> Result<Money, Rejection> {
        match quote {
            Quote::NotAsked => Err(Rejection::PriceNotAsked { sku: sku.clone() }),
            Quote::UnknownSku => Err(Rejection::UnknownSku { sku: sku.clone() }),
            Quote::Price(price) if price.currency == self.lines.currency() => Ok(price),
            Quote::Price(price) => Err(Rejection::CurrencyMismatch {
                sku: sku.clone(),
                price: price.currency,
                order: self.lines.currency(),
            }),
        }
    }

    fn evolve(&mut self, event: &Event) {
        self.updated_at = event.at();
        match event {
            // The first event only; see `Order::evolve`.
            Event::OrderCreated { .. } => {}
            Event::ItemAdded { line, total, .. } => self.lines.put(line.clone(), *total),
            Event::ItemRemoved { sku, total, .. } => self.lines.remove(sku, *total),
            Event::OrderPlaced { payment_method, address_id, .. } => {
                self.status = Status::Placed { reserved_until: None };
                self.payment_method.clone_from(payment_method);
                self.address_id.clone_from(address_id);
            }
            Event::OrderReserved { until, .. } => self.status = Status::Placed { reserved_until: Some(*until) },
            Event::OrderCancelled { cancellation, .. } => self.status = Status::Cancelled(cancellation.clone()),
        }
    }
}

fn cancelled(at: Timestamp, cause: CancellationCause) -> Event {
    Event::OrderCancelled { at, cancellation: Cancellation { cause, reason: cause.words().into() } }
}
