//! The `ce_type`s of inventory's events.
//!
//! Invariant: what an adapter writes, `recover` reads, by the same name. Deliberately absent: commands, whose
//! names are public beside their adapter.

pub(super) const STOCK_RESERVED: &str = "holdfast.inventory.v1.StockReserved";
pub(super) const RESERVATION_CONFIRMED: &str = "holdfast.inventory.v1.ReservationConfirmed";
pub(super) const RESERVATION_SHIPPED: &str = "holdfast.inventory.v1.ReservationShipped";
pub(super) const RESERVATION_REFUSED: &str = "holdfast.inventory.v1.ReservationRefused";
pub(super) const RESERVATION_RELEASED: &str = "holdfast.inventory.v1.ReservationReleased";
pub(super) const RESERVATION_EXPIRED: &str = "holdfast.inventory.v1.ReservationExpired";

pub(super) const STOCK_RECEIVED: &str = "holdfast.inventory.v1.StockReceived";
pub(super) const STOCK_ADJUSTED: &str = "holdfast.inventory.v1.StockAdjusted";
pub(super) const PRICE_SET: &str = "holdfast.inventory.v1.PriceSet";
pub(super) const REORDER_POINT_SET: &str = "holdfast.inventory.v1.ReorderPointSet";
pub(super) const REPLENISHMENT_REQUESTED: &str = "holdfast.inventory.v1.ReplenishmentRequested";
pub(super) const REPLENISHMENT_ENDED: &str = "holdfast.inventory.v1.ReplenishmentEnded";
