//! The `StockItem` aggregate, keyed by sku: what a unit costs, when more is wanted, and who may change how
//! much there is.
//!
//! Invariant: it changes the total of the pool named by its key only together with an event that says so, and
//! never below what is held. The quantities themselves live in the pool; the state here holds none, so orders
//! that hold stock never wait for it. Whether fewer units are available than the reorder point is asked of
//! the pool on a timer, by a condition that wants that many and gives them back at once: so nobody who takes
//! stock has to tell the sku, and a fall is noticed within [`CHECK_EVERY`].

use std::{sync::Arc, time::Duration};

use holdfast_core::{Aggregate, Context, Decision, Effects, Timestamp, pool::PoolChange};
use holdfast_money::Money;

/// The timer that looks whether the available units have fallen below the reorder point.
pub const REORDER_TIMER: &str = "reorder";

/// How often it looks.
pub const CHECK_EVERY: Duration = Duration::from_secs(5);

/// One sku, or the place where it will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StockItem(Option<Details>);

/// What there is to know about a sku that exists, beside its quantities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Details {
    /// What one unit costs; `None` until it is set, and so long the sku can't be ordered.
    pub price: Option<Money>,
    /// Available units below which more are wanted; 0 for none.
    pub reorder_point: i64,
    /// Whether more were asked for since the available units fell below the reorder point.
    pub is_replenishing: bool,
    /// When its first event happened, by the owning node's clock.
    pub created_at: Timestamp,
    /// When its last event happened, by the owning node's clock.
    pub updated_at: Timestamp,
}

/// What a sku can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Take delivered units into stock.
    ReceiveStock {
        /// How many, at least 1.
        quantity: i64,
    },
    /// Correct what is on hand.
    AdjustStock {
        /// Units to add; negative to take away; not 0.
        delta: i64,
        /// Why, in a few words. Holds no personal data.
        reason: Arc<str>,
    },
    /// Set what one unit costs from now on.
    SetPrice {
        /// Not negative.
        price: Money,
    },
    /// Set how few available units call for more.
    SetReorderPoint {
        /// Units, not negative; 0 for none.
        reorder_point: i64,
    },
    /// [`REORDER_TIMER`] fired.
    CheckDue,
}

/// Something that happened to a sku. `at` is when, by the owning node's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Delivered units were taken into stock.
    StockReceived {
        /// When.
        at: Timestamp,
        /// How many.
        quantity: i64,
    },
    /// What is on hand was corrected.
    StockAdjusted {
        /// When.
        at: Timestamp,
        /// Units added; negative if taken away.
        delta: i64,
        /// Why.
        reason: Arc<str>,
    },
    /// The price was set.
    PriceSet {
        /// When.
        at: Timestamp,
        /// Of one unit, from now on.
        price: Money,
    },
    /// The reorder point was set.
    ReorderPointSet {
        /// When.
        at: Timestamp,
        /// Available units below which more are wanted, from now on; 0 for none.
        reorder_point: i64,
    },
    /// The available units have fallen below the reorder point: once for each fall.
    ReplenishmentRequested {
        /// When it was noticed.
        at: Timestamp,
        /// The reorder point.
        reorder_point: i64,
    },
    /// They are at the reorder point again, or above.
    ReplenishmentEnded {
        /// When it was noticed.
        at: Timestamp,
    },
}

impl Event {
    /// When it happened, by the owning node's clock.
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::StockReceived { at, .. }
            | Self::StockAdjusted { at, .. }
            | Self::PriceSet { at, .. }
            | Self::ReorderPointSet { at, .. }
            | Self::ReplenishmentRequested { at, .. }
            | Self::ReplenishmentEnded { at } => *at,
        }
    }

    /// What happened to the pool of `sku` with it.
    pub fn pool_changes(&self, sku: &str) -> Vec<PoolChange> {
        match self {
            Self::StockReceived { quantity, .. } => vec![PoolChange::supply(sku, *quantity)],
            Self::StockAdjusted { delta, .. } => vec![PoolChange::supply(sku, *delta)],
            Self::PriceSet { .. }
            | Self::ReorderPointSet { .. }
            | Self::ReplenishmentRequested { .. }
            | Self::ReplenishmentEnded { .. } => Vec::new(),
        }
    }
}

/// Why a sku says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Fewer than one unit. Adapters refuse this as malformed input before it comes here.
    #[error("the quantity must be at least 1")]
    QuantityNotPositive,
    /// A correction by nothing. Adapters refuse this too.
    #[error("the delta must not be 0")]
    DeltaIsZero,
    /// A price below zero. Adapters refuse this too.
    #[error("the price must not be negative")]
    PriceNegative,
    /// A reorder point below zero. Adapters refuse this too.
    #[error("the reorder point must not be negative")]
    ReorderPointNegative,
    /// Less would remain than is reserved.
    #[error("less stock would remain than is reserved")]
    InsufficientStock,
    /// More than can be counted.
    #[error("the stock would be too large")]
    StockTooLarge,
}

impl Rejection {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::QuantityNotPositive,
        Self::DeltaIsZero,
        Self::PriceNegative,
        Self::ReorderPointNegative,
        Self::InsufficientStock,
        Self::StockTooLarge,
    ];

    /// The one of this name, if one is.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rejection| rejection.code() == code)
    }

    /// Its stable name, in `UPPER_SNAKE_CASE`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::QuantityNotPositive => "QUANTITY_NOT_POSITIVE",
            Self::DeltaIsZero => "DELTA_IS_ZERO",
            Self::PriceNegative => "PRICE_NEGATIVE",
            Self::ReorderPointNegative => "REORDER_POINT_NEGATIVE",
            Self::InsufficientStock => "INSUFFICIENT_STOCK",
            Self::StockTooLarge => "STOCK_TOO_LARGE",
        }
    }
}

impl StockItem {
    /// A sku as it was stored. Trusted: nothing is checked.
    pub const fn rehydrate(details: Details) -> Self {
        Self(Some(details))
    }

    /// What there is to know; `None` if nothing has happened to it yet.
    pub const fn details(&self) -> Option<&Details> {
        self.0.as_ref()
    }
}

impl Aggregate for StockItem {
    const KIND: &'static str = "stock_item";
    const SCHEMA: u32 = 1;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(&self, command: &Command, context: &Context<'_>) -> Result<Decision<Self>, Rejection> {
        let at = context.now;
        match command {
            Command::ReceiveStock { quantity } if *quantity <= 0 => Err(Rejection::QuantityNotPositive),
            Command::ReceiveStock { quantity } => {
                Ok(supply(context.key, *quantity, Event::StockReceived { at, quantity: *quantity }))
            }
            Command::AdjustStock { delta: 0, .. } => Err(Rejection::DeltaIsZero),
            Command::AdjustStock { delta, reason } => {
                Ok(supply(context.key, *delta, Event::StockAdjusted { at, delta: *delta, reason: reason.clone() }))
            }
            Command::SetPrice { price } if price.is_negative() => Err(Rejection::PriceNegative),
            Command::SetPrice { price } if self.0.and_then(|details| details.price) == Some(*price) => {
                Ok(Decision::nothing())
            }
            Command::SetPrice { price } => Ok(Decision::event(Event::PriceSet { at, price: *price })),
            Command::SetReorderPoint { reorder_point } if *reorder_point < 0 => Err(Rejection::ReorderPointNegative),
            Command::SetReorderPoint { reorder_point }
                if self.0.map(|details| details.reorder_point) == Some(*reorder_point) =>
            {
                Ok(Decision::nothing())
            }
            Command::SetReorderPoint { reorder_point } => {
                let set = Effects::event(Event::ReorderPointSet { at, reorder_point: *reorder_point });
                Ok(Decision::Done(match reorder_point {
                    0 => set.without_timer(REORDER_TIMER),
                    _ => set.with_timer(REORDER_TIMER, Duration::ZERO),
                }))
            }
            Command::CheckDue => Ok(self.0.map_or_else(Decision::nothing, |details| details.check(context.key, at))),
        }
    }

    fn evolve(&mut self, event: &Event) {
        let at = event.at();
        let new = Details { price: None, reorder_point: 0, is_replenishing: false, created_at: at, updated_at: at };
        let details = self.0.get_or_insert(new);
        details.updated_at = at;
        match event {
            Event::PriceSet { price, .. } => details.price = Some(*price),
            Event::ReorderPointSet { reorder_point, .. } => details.reorder_point = *reorder_point,
            Event::ReplenishmentRequested { .. } => details.is_replenishing = true,
            Event::ReplenishmentEnded { .. } => details.is_replenishing = false,
            Event::StockReceived { .. } | Event::StockAdjusted { .. } => {}
        }
    }
}

impl Details {
    /// Asks for more if fewer than the reorder point are available, and looks again later.
    fn check(&self, sku: &str, at: Timestamp) -> Decision<StockItem> {
        let again = |effects: Effects<Event>| effects.with_timer(REORDER_TIMER, CHECK_EVERY);
        if self.reorder_point == 0 {
            let ended = || Decision::event(Event::ReplenishmentEnded { at });
            return if self.is_replenishing { ended() } else { Decision::nothing() };
        }
        let event_unless =
            |is_known: bool, event| again(if is_known { Effects::none() } else { Effects::event(event) });
        let reorder_point = self.reorder_point;
        Decision::Conditional {
            wants: vec![PoolChange::hold(sku, reorder_point), PoolChange::hold(sku, -reorder_point)],
            granted: event_unless(!self.is_replenishing, Event::ReplenishmentEnded { at }),
            refused: Ok(event_unless(self.is_replenishing, Event::ReplenishmentRequested { at, reorder_point })),
        }
    }
}

/// Changes what there is of `sku` by `by`, if no less remains than is held.
fn supply(sku: &str, by: i64, event: Event) -> Decision<StockItem> {
    let refused = if by < 0 { Rejection::InsufficientStock } else { Rejection::StockTooLarge };
    Decision::Conditional {
        wants: vec![PoolChange::supply(sku, by)],
        granted: Effects::event(event),
        refused: Err(refused),
    }
}
