//! The `StockItem` aggregate, keyed by sku: what a unit costs, and who may change how much there is.
//!
//! Invariant: it changes the total of the pool named by its key only together with an event that says so, and never below what
//! is held. The quantities themselves live in the pool; the state here holds none, so orders that hold stock never wait for it.

use std::sync::Arc;

use holdfast_core::{Aggregate, Context, Decision, Effects, Timestamp, pool::PoolChange};
use holdfast_money::Money;

/// One sku, or the place where it will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StockItem(Option<Details>);

/// What there is to know about a sku that exists, beside its quantities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Details {
    /// What one unit costs; `None` until it is set, and so long the sku can't be ordered.
    pub price: Option<Money>,
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
}

impl Event {
    /// When it happened, by the owning node's clock.
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::StockReceived { at, .. } | Self::StockAdjusted { at, .. } | Self::PriceSet { at, .. } => *at,
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
    /// Less would remain than is reserved.
    #[error("less stock would remain than is reserved")]
    InsufficientStock,
    /// More than can be counted.
    #[error("the stock would be too large")]
    StockTooLarge,
}

impl Rejection {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::QuantityNotPositive,
        Self::DeltaIsZero,
        Self::PriceNegative,
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

    /// What there is to know; `None` if nobody has received, adjusted or priced it yet.
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
        }
    }

    fn evolve(&mut self, event: &Event) {
        let at = event.at();
        let details = self.0.get_or_insert(Details { price: None, created_at: at, updated_at: at });
        details.updated_at = at;
        if let Event::PriceSet { price, .. } = event {
            details.price = Some(*price);
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
