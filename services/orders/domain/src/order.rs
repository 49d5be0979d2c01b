//! The Order aggregate: its state, its decisions, its evolution.
//!
//! Invariants: lines change in DRAFT only; an order is placed at most once, with at least one line, and for
//! an ACTIVE customer who has the address (nobody is charged for what can't be sent); CANCELLED and DELIVERED
//! are final; it is paid at most once, by an amount that equals its total in its currency, and shipped only
//! when paid. Other contexts' news never errs, whatever state it meets: contexts react to one another, so
//! their events cross, and what comes too late changes nothing here ([`crate::process`]) because the context
//! that sent it undoes its own work when it reads of the cancellation. A paid order is cancelled by
//! fulfillment's word alone, for only fulfillment knows whether the goods have left.

use std::sync::Arc;

use holdfast_core::{Aggregate, Context, Decision, Timestamp};
use holdfast_money::Money;
use uuid::Uuid;

use crate::{
    Account, Cancellation, CancellationCause, Command, Event, LINES_MAX, Lines, Payment, Quote, Rejection, Shipment,
    ShipmentCause, Sku, Standing,
    command::is_token,
    process::{self, News, Reaction, Stage},
};

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
    /// What was paid, once it was.
    pub payment: Option<Payment>,
    /// A payment over another amount than the total, or in another currency: the first one that the order
    /// learned of. It stays for an operator to see.
    pub mismatched_payment: Option<Payment>,
    /// Why the customer wants it cancelled, while fulfillment has not said whether it is in time.
    pub cancellation_requested: Option<Arc<str>>,
    /// What is on its way, or has arrived.
    pub shipment: Option<Shipment>,
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
    /// Paid. Money has moved.
    Paid,
    /// Handed to a carrier.
    Shipped,
    /// Arrived.
    Delivered,
    /// Ended before shipping.
    Cancelled(Cancellation),
}

impl Status {
    /// It without particulars.
    pub const fn stage(&self) -> Stage {
        match self {
            Self::Draft => Stage::Draft,
            Self::Placed { .. } => Stage::Placed,
            Self::Paid => Stage::Paid,
            Self::Shipped => Stage::Shipped,
            Self::Delivered => Stage::Delivered,
            Self::Cancelled(_) => Stage::Cancelled,
        }
    }

    /// Its name on the wire and in rejections.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Draft => "DRAFT",
            Self::Placed { .. } => "PLACED",
            Self::Paid => "PAID",
            Self::Shipped => "SHIPPED",
            Self::Delivered => "DELIVERED",
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

    /// The event that follows from `news`, if one does.
    fn react(&self, news: News, command: &Command, at: Timestamp) -> Option<Event> {
        let order = self.0.as_ref()?;
        match (process::reaction(news, order.status.stage())?, command) {
            (Reaction::Reserve, Command::StockReserved { until }) => order.reserve(*until, at),
            (Reaction::Pay, Command::PaymentCaptured(payment)) => order.pay(payment, at),
            (Reaction::Ship, Command::ShipmentDispatched(shipment)) => {
                Some(Event::OrderShipped { at, shipment: shipment.clone() })
            }
            (Reaction::Deliver, _) => Some(Event::OrderDelivered { at }),
            (Reaction::Cancel(cause), _) => Some(cancelled(at, cause)),
            (Reaction::CancelWithShipment, Command::ShipmentCancelled { cause }) => {
                Some(order.cancel_with_shipment(*cause, at))
            }
            _ => None,
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
        if let Some(news) = News::of(command) {
            return Ok(self.react(news, command, at).map_or_else(Decision::nothing, Decision::event));
        }
        let event = match command {
            Command::CreateOrder { customer, currency, account, .. } => match (&self.0, account) {
                (Some(_), _) => return Err(Rejection::OrderAlreadyExists),
                (None, None) => return Ok(Decision::Unprepared(NOT_ASKED)),
                (None, Some(account)) => {
                    may_order(*account)?;
                    Event::OrderCreated { at, customer: *customer, currency: *currency }
                }
            },
            Command::PlaceOrder { payment_method, address_id, standing, .. } => {
                let order = self.0.as_ref().ok_or(Rejection::OrderNotFound)?;
                order.placeable(command, payment_method)?;
                match standing.filter(|standing| standing.customer == order.customer) {
                    None => return Ok(Decision::Unprepared(NOT_ASKED)),
                    Some(standing) => order.place(payment_method, address_id, standing, at)?,
                }
            }
            Command::CancelOrder { .. }
                if self.0.as_ref().is_some_and(|order| order.cancellation_requested.is_some()) =>
            {
                return Ok(Decision::nothing());
            }
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
                payment: None,
                mismatched_payment: None,
                cancellation_requested: None,
                shipment: None,
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
            (Command::CancelOrder { reason }, Status::Draft | Status::Placed { .. }) => {
                let cancellation = Cancellation { cause: CancellationCause::Requested, reason: reason.clone() };
                Ok(Event::OrderCancelled { at, cancellation })
            }
            (Command::CancelOrder { reason }, Status::Paid) => {
                Ok(Event::OrderCancellationRequested { at, reason: reason.clone() })
            }
            _ => Err(self.wrong_state(command)),
        }
    }

    fn wrong_state(&self, command: &Command) -> Rejection {
        Rejection::WrongState { command: command.name(), status: self.status.name() }
    }

    /// Whether the order can be placed, as far as it knows without customers' answer.
    fn placeable(&self, command: &Command, payment_method: &str) -> Result<(), Rejection> {
        if self.status != Status::Draft {
            return Err(self.wrong_state(command));
        }
        if self.lines.as_slice().is_empty() {
            return Err(Rejection::EmptyOrder);
        }
        if is_token(payment_method) { Ok(()) } else { Err(Rejection::InvalidPaymentMethod) }
    }

    /// `standing` is the order's own customer's.
    fn place(
        &self,
        payment_method: &Arc<str>,
        address_id: &Arc<str>,
        standing: Standing,
        at: Timestamp,
    ) -> Result<Event, Rejection> {
        may_order(standing.account)?;
        if !standing.has_address {
            return Err(Rejection::UnknownAddress);
        }
        Ok(Event::OrderPlaced {
            at,
            customer: self.customer,
            lines: self.lines.as_slice().into(),
            total: self.lines.total(),
            payment_method: Some(payment_method.clone()),
            address_id: Some(address_id.clone()),
        })
    }

    /// Once: inventory says so again when it reads again.
    fn reserve(&self, until: Timestamp, at: Timestamp) -> Option<Event> {
        let Status::Placed { reserved_until: None } = self.status else { return None };
        let (customer, total, payment_method) = (self.customer, self.lines.total(), self.payment_method.clone());
        Some(Event::OrderReserved { at, until, customer, total, payment_method })
    }

    /// By its total alone. Of payments over other amounts the first is an event.
    fn pay(&self, payment: &Payment, at: Timestamp) -> Option<Event> {
        let (payment, total) = (payment.clone(), self.lines.total());
        if payment.amount == total {
            let (customer, address_id) = (self.customer, self.address_id.clone());
            return Some(Event::OrderPaid { at, payment, customer, address_id, lines: self.lines.as_slice().into() });
        }
        self.mismatched_payment.is_none().then_some(Event::OrderPaymentMismatched { at, payment, total })
    }

    fn cancel_with_shipment(&self, cause: ShipmentCause, at: Timestamp) -> Event {
        let cause = match cause {
            ShipmentCause::CancellationRequested => CancellationCause::Requested,
            ShipmentCause::Undeliverable => CancellationCause::Undeliverable,
            ShipmentCause::Warehouse => CancellationCause::Warehouse,
        };
        match &self.cancellation_requested {
            Some(reason) if cause == CancellationCause::Requested => {
                Event::OrderCancelled { at, cancellation: Cancellation { cause, reason: reason.clone() } }
            }
            _ => cancelled(at, cause),
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
            Event::OrderPaid { payment, .. } => {
                self.status = Status::Paid;
                self.payment = Some(payment.clone());
            }
            Event::OrderPaymentMismatched { payment, .. } => self.mismatched_payment = Some(payment.clone()),
            Event::OrderCancellationRequested { reason, .. } => self.cancellation_requested = Some(reason.clone()),
            Event::OrderShipped { shipment, .. } => {
                self.status = Status::Shipped;
                self.shipment = Some(shipment.clone());
                self.cancellation_requested = None;
            }
            Event::OrderDelivered { .. } => self.status = Status::Delivered,
            Event::OrderCancelled { cancellation, .. } => {
                self.status = Status::Cancelled(cancellation.clone());
                self.cancellation_requested = None;
            }
        }
    }
}

/// What a decision without customers' answer about the order's own customer lacks.
const NOT_ASKED: &str = "customers were not asked about the order's customer";

const fn may_order(account: Account) -> Result<(), Rejection> {
    match account {
        Account::Unknown => Err(Rejection::UnknownCustomer),
        Account::NotActive => Err(Rejection::CustomerNotActive),
        Account::Active => Ok(()),
    }
}

fn cancelled(at: Timestamp, cause: CancellationCause) -> Event {
    Event::OrderCancelled { at, cancellation: Cancellation { cause, reason: cause.words().into() } }
}
