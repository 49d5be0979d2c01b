//! The parts that an order's events, its state and its public message share: amount, payment, shipment, cause
//! of cancellation.
//!
//! Invariant: what goes out comes back as it was. A part that no build could have written is refused, never
//! guessed.

use holdfast_adapter::check;
use holdfast_core::disposition::Refused;
use holdfast_money::{FxRate, Money, Ratio};
use holdfast_orders_domain::{Cancellation, CancellationCause, Payment, Shipment};
use holdfast_proto::{money::v1 as money, orders::v1};

pub(super) fn amount(amount: Money) -> money::Money {
    money::Money { minor: amount.minor, currency: amount.currency.code().to_owned() }
}

pub(super) fn payment(payment: &Payment) -> v1::OrderPayment {
    let rate = payment.rate;
    v1::OrderPayment {
        payment_id: payment.id.as_ref().to_owned(),
        amount: Some(amount(payment.amount)),
        rate: Some(v1::PinnedRate {
            from: rate.from().code().to_owned(),
            to: rate.to().code().to_owned(),
            numerator: rate.rate().numerator(),
            denominator: rate.rate().denominator(),
        }),
        settled: Some(amount(payment.settled)),
    }
}

pub(super) fn payment_back(wire: Option<&v1::OrderPayment>) -> Result<Payment, Refused> {
    let wire = wire.ok_or_else(|| check::missing("payment"))?;
    let rate = wire.rate.as_ref().ok_or_else(|| check::missing("payment.rate"))?;
    Ok(Payment {
        id: wire.payment_id.as_str().into(),
        amount: check::money("payment.amount", wire.amount.as_ref())?,
        rate: pinned(&rate.from, &rate.to, rate.numerator, rate.denominator)?,
        settled: settled(wire.settled.as_ref())?,
    })
}

pub(crate) fn settled(wire: Option<&money::Money>) -> Result<Money, Refused> {
    check::money("settled", wire)
}

/// One major unit of `from` is worth `numerator` / `denominator` major units of `to`.
pub(crate) fn pinned(from: &str, to: &str, numerator: i64, denominator: i64) -> Result<FxRate, Refused> {
    let ratio = Ratio::new(numerator, denominator);
    let (from, to) = (check::currency("rate.from", from)?, check::currency("rate.to", to)?);
    let rate = ratio.and_then(|ratio| FxRate::new(from, to, ratio));
    rate.map_err(|_| Refused::invalid("rate", "rate is not a positive ratio, or not one within a currency"))
}

pub(super) fn shipment(shipment: &Shipment) -> v1::OrderShipment {
    v1::OrderShipment {
        shipment_id: shipment.id.as_ref().to_owned(),
        carrier: shipment.carrier.as_ref().to_owned(),
        tracking_number: shipment.tracking_number.as_ref().to_owned(),
    }
}

pub(super) fn shipment_back(wire: Option<&v1::OrderShipment>) -> Result<Shipment, Refused> {
    let wire = wire.ok_or_else(|| check::missing("shipment"))?;
    Ok(Shipment {
        id: wire.shipment_id.as_str().into(),
        carrier: wire.carrier.as_str().into(),
        tracking_number: wire.tracking_number.as_str().into(),
    })
}

pub(super) fn cancellation(cancellation: &Cancellation) -> v1::Cancellation {
    v1::Cancellation { cause: cause(cancellation.cause).into(), reason: cancellation.reason.as_ref().to_owned() }
}

pub(super) const fn cause(cause: CancellationCause) -> v1::CancellationCause {
    match cause {
        CancellationCause::Requested => v1::CancellationCause::Requested,
        CancellationCause::OutOfStock => v1::CancellationCause::OutOfStock,
        CancellationCause::ReservationExpired => v1::CancellationCause::ReservationExpired,
        CancellationCause::PaymentDeclined => v1::CancellationCause::PaymentDeclined,
        CancellationCause::Undeliverable => v1::CancellationCause::Undeliverable,
        CancellationCause::Warehouse => v1::CancellationCause::Warehouse,
    }
}

pub(super) const fn cause_back(cause: v1::CancellationCause) -> Option<CancellationCause> {
    Some(match cause {
        v1::CancellationCause::Requested => CancellationCause::Requested,
        v1::CancellationCause::OutOfStock => CancellationCause::OutOfStock,
        v1::CancellationCause::ReservationExpired => CancellationCause::ReservationExpired,
        v1::CancellationCause::PaymentDeclined => CancellationCause::PaymentDeclined,
        v1::CancellationCause::Undeliverable => CancellationCause::Undeliverable,
        v1::CancellationCause::Warehouse => CancellationCause::Warehouse,
        v1::CancellationCause::Unspecified => return None,
    })
}
