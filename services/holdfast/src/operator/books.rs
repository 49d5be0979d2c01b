//! Whether the contexts tell one story of an order, once it has come to rest, and the provider that of its
//! money.
//!
//! Invariant: what is compared is what a shop can't afford to have wrong: money taken and kept, stock held
//! and gone, parcels sent. Deliberately absent: what is on its way by design (a placed order waits for its
//! payment); an order that moved a moment ago, which the caller leaves out.

use holdfast_proto::{
    fulfillment::v1::ShipmentStatus,
    inventory::v1::ReservationStatus,
    money::v1::Money,
    orders::v1::{Order, OrderStatus},
    payments::v1::{Contradiction, PaymentStatus},
};

use super::story::Story;

/// Everything in which the contexts disagree about an order, or the provider with what was asked of it, in
/// words.
pub fn disagreements(story: &Story) -> Vec<String> {
    let mut found: Vec<String> = contradicted(story).into_iter().collect();
    found.extend(match &story.order {
        Some(order) => between_contexts(story, order),
        None => orphans(story),
    });
    found
}

/// Why the payment is stopped, if it is.
fn contradicted(story: &Story) -> Option<String> {
    let found = story.payment.as_ref()?.contradiction.as_ref()?;
    let Contradiction { source, asked, answered, .. } = found;
    Some(contradiction(source, found.subject().as_str_name(), asked, answered))
}

/// A contradiction of the provider's in words; `subject` is its name on the wire.
pub fn contradiction(source: &str, subject: &str, asked: &str, answered: &str) -> String {
    let subject = name(Some(subject), "CONTRADICTION_SUBJECT_").to_lowercase();
    let answered = if answered.is_empty() { "none" } else { answered };
    let said = match source {
        "report" => format!("the provider reported the {subject} {answered}, known is {asked}"),
        call => format!("the provider answered `{call}` for the {subject} {answered}, asked was {asked}"),
    };
    format!("the payment is stopped: {said}")
}

fn between_contexts(story: &Story, order: &Order) -> Vec<String> {
    let reservation = story.reservation.as_ref().map(holdfast_proto::inventory::v1::Reservation::status);
    let payment = story.payment.as_ref().map(holdfast_proto::payments::v1::Payment::status);
    let shipment = story.shipment.as_ref().map(holdfast_proto::fulfillment::v1::Shipment::status);
    let status = order.status();
    let mut found = Vec::new();
    let mut check = |is_right: bool, what: String| {
        if !is_right {
            found
                .push(format!("the order is {}, but {what}", status.as_str_name().trim_start_matches("ORDER_STATUS_")));
        }
    };
    if let Some(paid) = order.mismatched_payment.as_ref().and_then(|payment| payment.amount.as_ref()) {
        let (total, currency) = order.total.as_ref().map_or((0, ""), |total| (total.minor, total.currency.as_str()));
        check(false, format!("{} {} was paid of {total} {currency}: no payment of it", paid.minor, paid.currency));
    }
    let is_paid = matches!(status, OrderStatus::Paid | OrderStatus::Shipped | OrderStatus::Delivered);
    check(is_paid || kept(story) == 0, format!("payments keeps {} of its money", kept(story)));
    if is_paid {
        let total = order.total.as_ref().map_or(0, |total| total.minor);
        let taken = story.payment.as_ref().and_then(|payment| payment.amount.as_ref()).map_or(0, |amount| amount.minor);
        let is_captured = matches!(
            payment,
            Some(PaymentStatus::Captured | PaymentStatus::PartiallyRefunded | PaymentStatus::Refunded)
        );
        check(is_captured, format!("its payment is {}", name(payment.map(|s| s.as_str_name()), "PAYMENT_STATUS_")));
        check(taken == total, format!("{taken} was to be paid of {total}"));
    }
    let reservation_status = name(reservation.map(|s| s.as_str_name()), "RESERVATION_STATUS_");
    let is_stock_right = match status {
        OrderStatus::Draft | OrderStatus::Unspecified => reservation.is_none(),
        OrderStatus::Placed => matches!(reservation, Some(ReservationStatus::Held)),
        OrderStatus::Paid => matches!(reservation, Some(ReservationStatus::Confirmed)),
        OrderStatus::Shipped | OrderStatus::Delivered => matches!(reservation, Some(ReservationStatus::Shipped)),
        OrderStatus::Cancelled => !matches!(
            reservation,
            Some(ReservationStatus::Held | ReservationStatus::Confirmed | ReservationStatus::Shipped)
        ),
    };
    check(is_stock_right, format!("its reservation is {reservation_status}"));
    let shipment_status = name(shipment.map(|s| s.as_str_name()), "SHIPMENT_STATUS_");
    let is_parcel_right = match status {
        OrderStatus::Shipped => matches!(shipment, Some(ShipmentStatus::Shipped)),
        OrderStatus::Delivered => matches!(shipment, Some(ShipmentStatus::Delivered)),
        OrderStatus::Paid => {
            matches!(shipment, Some(ShipmentStatus::Pending | ShipmentStatus::Picking | ShipmentStatus::Packed))
        }
        _ => matches!(shipment, None | Some(ShipmentStatus::Cancelled)),
    };
    check(is_parcel_right, format!("its shipment is {shipment_status}"));
    found
}

/// What payments has taken and not given back, in minor units.
fn kept(story: &Story) -> i64 {
    let minor = |money: Option<&Money>| money.map_or(0, |money| money.minor);
    let Some(payment) = &story.payment else { return 0 };
    match payment.status() {
        PaymentStatus::Captured | PaymentStatus::PartiallyRefunded | PaymentStatus::Refunded => {
            minor(payment.amount.as_ref()) - minor(payment.refunded.as_ref())
        }
        _ => 0,
    }
}

fn orphans(story: &Story) -> Vec<String> {
    let mut found = Vec::new();
    for (is_there, what) in [
        (story.reservation.is_some(), "a reservation"),
        (story.payment.is_some(), "a payment"),
        (story.shipment.is_some(), "a shipment"),
    ] {
        if is_there {
            found.push(format!("there is {what}, but no order"));
        }
    }
    found
}

fn name<'a>(status: Option<&'a str>, prefix: &str) -> &'a str {
    status.map_or("not there", |status| status.strip_prefix(prefix).unwrap_or(status))
}

#[cfg(test)]
mod tests {
    use holdfast_proto::{
        fulfillment::v1::Shipment,
        inventory::v1::Reservation,
        orders::v1::{Order, OrderPayment},
        payments::v1::{ContradictionSubject, Payment},
    };

    use super::*;

    fn euro(minor: i64) -> Money {
        Money { minor, currency: "EUR".into() }
    }

    fn story(
        order: OrderStatus,
        reservation: Option<ReservationStatus>,
        payment: Option<(PaymentStatus, i64)>,
        shipment: Option<ShipmentStatus>,
    ) -> Story {
        Story {
            order: Some(Order { status: order.into(), total: Some(euro(100)), ..Order::default() }),
            reservation: reservation.map(|status| Reservation { status: status.into(), ..Reservation::default() }),
            payment: payment.map(|(status, refunded)| Payment {
                status: status.into(),
                amount: Some(euro(100)),
                refunded: Some(euro(refunded)),
                ..Payment::default()
            }),
            shipment: shipment.map(|status| Shipment { status: status.into(), ..Shipment::default() }),
        }
    }

    /// The same after a payment over one cent.
    fn mismatched(mut story: Story) -> Story {
        if let Some(order) = &mut story.order {
            order.mismatched_payment = Some(OrderPayment { amount: Some(euro(1)), ..OrderPayment::default() });
        }
        story
    }

    #[test]
    fn healthy_orders_at_every_stage_agree() {
        use OrderStatus as O;
        use PaymentStatus as P;
        use ReservationStatus as R;
        use ShipmentStatus as S;
        let healthy = vec![
            story(O::Draft, None, None, None),
            story(O::Placed, Some(R::Held), Some((P::Requested, 0)), None),
            story(O::Paid, Some(R::Confirmed), Some((P::Captured, 0)), Some(S::Packed)),
            story(O::Shipped, Some(R::Shipped), Some((P::Captured, 0)), Some(S::Shipped)),
            story(O::Delivered, Some(R::Shipped), Some((P::PartiallyRefunded, 40)), Some(S::Delivered)),
            story(O::Cancelled, Some(R::Refused), None, Some(S::Cancelled)),
            story(O::Cancelled, Some(R::Released), Some((P::Refunded, 100)), Some(S::Cancelled)),
            story(O::Cancelled, Some(R::Expired), Some((P::Declined, 0)), None),
        ];
        for healthy in healthy {
            assert_eq!(disagreements(&healthy), Vec::<String>::new(), "{healthy:?}");
        }
    }

    #[test]
    fn each_planted_disagreement_is_found_and_named() {
        use OrderStatus as O;
        use PaymentStatus as P;
        use ReservationStatus as R;
        use ShipmentStatus as S;
        let planted = vec![
            (story(O::Cancelled, Some(R::Released), Some((P::Captured, 0)), None), "payments keeps 100"),
            (story(O::Cancelled, Some(R::Released), Some((P::PartiallyRefunded, 60)), None), "payments keeps 40"),
            (story(O::Placed, Some(R::Held), Some((P::Captured, 0)), None), "payments keeps 100"),
            (story(O::Paid, Some(R::Confirmed), Some((P::Declined, 0)), Some(S::Pending)), "its payment is DECLINED"),
            (story(O::Paid, Some(R::Confirmed), None, Some(S::Pending)), "its payment is not there"),
            (story(O::Paid, Some(R::Expired), Some((P::Captured, 0)), Some(S::Pending)), "its reservation is EXPIRED"),
            (story(O::Cancelled, Some(R::Held), None, None), "its reservation is HELD"),
            (story(O::Placed, None, None, None), "its reservation is not there"),
            (story(O::Cancelled, Some(R::Released), None, Some(S::Shipped)), "its shipment is SHIPPED"),
            (
                story(O::Delivered, Some(R::Shipped), Some((P::Captured, 0)), Some(S::Shipped)),
                "its shipment is SHIPPED",
            ),
            (story(O::Paid, Some(R::Confirmed), Some((P::Captured, 0)), None), "its shipment is not there"),
            (
                mismatched(story(O::Placed, Some(R::Held), Some((P::Requested, 0)), None)),
                "1 EUR was paid of 100 EUR: no payment of it",
            ),
            (
                Story { order: None, ..story(O::Draft, None, Some((P::Captured, 0)), None) },
                "there is a payment, but no order",
            ),
        ];
        for (planted, words) in planted {
            let found = disagreements(&planted);
            assert!(found.iter().any(|found| found.contains(words)), "{words}: {found:?}");
        }
    }

    #[test]
    fn stopped_payment_is_named_whatever_else_agrees() {
        let stopped = |source: &str, subject: ContradictionSubject, asked: &str, answered: &str| {
            let sound = (OrderStatus::Paid, ReservationStatus::Confirmed, ShipmentStatus::Packed);
            let mut story = story(sound.0, Some(sound.1), Some((PaymentStatus::Captured, 0)), Some(sound.2));
            assert_eq!(disagreements(&story), Vec::<String>::new());
            let (source, asked, answered) = (source.to_owned(), asked.to_owned(), answered.to_owned());
            let found = Contradiction { source, subject: subject.into(), asked, answered };
            story.payment.as_mut().unwrap().contradiction = Some(found);
            let with_order = disagreements(&story);
            story.order = None;
            assert!(disagreements(&story).starts_with(&with_order), "without an order, too");
            with_order
        };
        assert_eq!(
            stopped("refund:1", ContradictionSubject::Charge, "pi_1", "pi_2"),
            ["the payment is stopped: the provider answered `refund:1` for the charge pi_2, asked was pi_1"]
        );
        assert_eq!(
            stopped("charge", ContradictionSubject::Order, "order-a", ""),
            ["the payment is stopped: the provider answered `charge` for the order none, asked was order-a"]
        );
        assert_eq!(
            stopped("report", ContradictionSubject::Amount, "10.00 USD", "0.01 USD"),
            ["the payment is stopped: the provider reported the amount 0.01 USD, known is 10.00 USD"]
        );
    }
}
