//! The books of a whole shop fail on a planted fault, and only they.
//!
//! A small sound world (one order delivered; one paid, cancelled and refunded) is broken in one place at a
//! time: money as the provider, payments and the order tell it, stock as the shelves and the reservations
//! tell it, and the ends of orders and parcels.

use holdfast_proto::{
    fulfillment::v1 as fulfillment, inventory::v1 as inventory, money::v1::Money, orders::v1 as orders,
    payments::v1 as payments,
};
use prost::{Message, Name};
use uuid::Uuid;

use super::{
    Account, AggregateRow, Answer, Breach, Charge, ClaimRow, ContextEvidence, DeadRecord, EventRecord, Evidence, News,
    OutboxRow, PartitionRow, PoolRow, Refund, Report, audit_shop,
    tests::{id, length, line, planned, seen},
};
use crate::{producer::Ledger, work::Expect};

const GOOD: &str = "00000000-0000-7000-8000-000000000001";
const BACK: &str = "00000000-0000-7000-8000-000000000002";
const NOBODY: &str = "00000000-0000-7000-8000-000000000009";
const PRICE: i64 = 150;

struct Shop {
    ledger: Ledger,
    warehouse: Ledger,
    evidence: Evidence,
    ids: u128,
}

fn euros(minor: i64) -> Money {
    Money { minor, currency: "EUR".into() }
}

impl Shop {
    fn context(&mut self, name: &str) -> &mut ContextEvidence {
        let evidence = &mut self.evidence;
        let context = match name {
            "inventory" => &mut evidence.inventory,
            "payments" => &mut evidence.payments,
            "fulfillment" => &mut evidence.fulfillment,
            _ => return &mut evidence.orders,
        };
        context.as_mut().expect("a whole shop")
    }

    fn provider(&mut self) -> &mut Account {
        self.evidence.provider.as_mut().expect("a provider")
    }

    /// Publishes the next event of `key`, with its outbox row.
    fn event<M: Message + Name>(&mut self, context: &str, key: &str, cause: Uuid, body: &M) -> Uuid {
        self.ids += 1;
        let id = id(self.ids);
        let evidence = self.context(context);
        let offset = length(&evidence.events);
        let before = evidence.events.iter().filter(|event| event.key == key).count() as u64;
        let record = super::super::kafka::Seen { offset, ..seen(key, id, before + 1, cause, body) };
        evidence.events.push(EventRecord::read(&record).expect("sound"));
        evidence.outbox.push(OutboxRow { partition: 0, sequence: offset + 1, id, topic: format!("{context}.events") });
        id
    }

    /// Sends a command, which is applied.
    fn command(&mut self, context: &str, order: &str, expect: Expect) -> Uuid {
        self.ids += 1;
        let id = id(self.ids);
        let ledger = if context == "orders" { &mut self.ledger } else { &mut self.warehouse };
        ledger.note(&planned(id, order, expect));
        let claim = ClaimRow { id, scope: Uuid::from_u128(77), answer: Answer::Applied };
        self.context(context).claims.push(claim);
        id
    }

    /// Stores a state at the version that its events have.
    fn aggregate(&mut self, context: &str, kind: &str, key: &str, state: &impl Message) {
        let evidence = self.context(context);
        let version = evidence.events.iter().filter(|event| event.key == key).count();
        let version = i64::try_from(version).expect("few");
        evidence.aggregates.push(AggregateRow {
            kind: kind.into(),
            key: key.into(),
            version,
            state: state.encode_to_vec(),
        });
    }

    /// Everything published, as far as it is now.
    fn settle(&mut self) {
        for context in ["orders", "inventory", "payments", "fulfillment"] {
            let evidence = self.context(context);
            let head = length(&evidence.outbox);
            evidence.partitions = vec![PartitionRow { head, cursor: head, ..PartitionRow::default() }];
        }
    }

    /// From its creation until it is paid and its shipment is requested and confirmed.
    fn paid(&mut self, key: &str, quantity: i64) -> Uuid {
        let total = PRICE * quantity;
        let create = self.command("orders", key, Expect::Event);
        self.event("orders", key, create, &orders::OrderCreated::default());
        let add = self.command("orders", key, Expect::Event);
        let added = orders::ItemAdded { sku: "tea".into(), quantity, line_quantity: quantity, ..Default::default() };
        self.event("orders", key, add, &added);
        let place = self.command("orders", key, Expect::Event);
        let placed = orders::OrderPlaced { total: Some(euros(total)), ..Default::default() };
        let placed = self.event("orders", key, place, &placed);
        let lines = || vec![line("tea", quantity)];
        let held = inventory::StockReserved { lines: lines(), ..Default::default() };
        let held = self.event("inventory", key, placed, &held);
        let reserved = self.event("orders", key, held, &orders::OrderReserved::default());
        self.event("payments", key, reserved, &payments::PaymentRequested::default());
        let captured = payments::PaymentCaptured { amount: Some(euros(total)), ..Default::default() };
        let captured = self.event("payments", key, id(7_000), &captured);
        let payment = orders::OrderPayment { amount: Some(euros(total)), ..Default::default() };
        let paid = orders::OrderPaid { payment: Some(payment), ..Default::default() };
        let paid = self.event("orders", key, captured, &paid);
        let confirmed = inventory::ReservationConfirmed { lines: lines(), ..Default::default() };
        let confirmed = self.event("inventory", key, paid, &confirmed);
        self.event("fulfillment", key, paid, &fulfillment::ShipmentRequested::default());
        self.event("fulfillment", key, confirmed, &fulfillment::ShipmentConfirmed::default());
        let charge = Charge {
            id: format!("pi_{key}"),
            order_id: key.into(),
            status: "succeeded".into(),
            amount: total,
            refunded: 0,
        };
        self.provider().charges.push(charge);
        paid
    }

    fn states(
        &mut self,
        key: &str,
        quantity: i64,
        order: orders::OrderStatus,
        reservation: inventory::ReservationStatus,
        payment: payments::PaymentStatus,
        shipment: fulfillment::ShipmentStatus,
    ) {
        let lines = vec![orders::OrderLineState { sku: "tea".into(), quantity, unit_price_minor: PRICE }];
        let state = orders::OrderState { status: order.into(), lines, ..Default::default() };
        self.aggregate("orders", "order", key, &state);
        let lines = vec![line("tea", quantity)];
        let state = inventory::ReservationState { status: reservation.into(), lines, ..Default::default() };
        self.aggregate("inventory", "reservation", key, &state);
        let state = payments::PaymentState { status: payment.into(), ..Default::default() };
        self.aggregate("payments", "payment", key, &state);
        let state = fulfillment::ShipmentState { status: shipment.into(), ..Default::default() };
        self.aggregate("fulfillment", "shipment", key, &state);
    }

    fn delivered(&mut self) {
        self.paid(GOOD, 2);
        let step = |shop: &mut Self| shop.command("fulfillment", GOOD, Expect::Event);
        let pick = step(self);
        self.event("fulfillment", GOOD, pick, &fulfillment::PickingStarted::default());
        let pack = step(self);
        self.event("fulfillment", GOOD, pack, &fulfillment::ShipmentPacked::default());
        let dispatch = step(self);
        let sent = self.event("fulfillment", GOOD, dispatch, &fulfillment::ShipmentDispatched::default());
        let shipped = self.event("orders", GOOD, sent, &orders::OrderShipped::default());
        let gone = inventory::ReservationShipped { lines: vec![line("tea", 2)], ..Default::default() };
        self.event("inventory", GOOD, shipped, &gone);
        let track = step(self);
        let arrived = self.event("fulfillment", GOOD, track, &fulfillment::ShipmentDelivered::default());
        self.event("orders", GOOD, arrived, &orders::OrderDelivered::default());
        // The carrier says something old.
        self.command("fulfillment", GOOD, Expect::Nothing);
        self.states(
            GOOD,
            2,
            orders::OrderStatus::Delivered,
            inventory::ReservationStatus::Shipped,
            payments::PaymentStatus::Captured,
            fulfillment::ShipmentStatus::Delivered,
        );
    }

    fn given_back(&mut self) {
        self.paid(BACK, 1);
        let cancel = self.command("orders", BACK, Expect::Whatever);
        let asked = self.event("orders", BACK, cancel, &orders::OrderCancellationRequested::default());
        let stopped = self.event("fulfillment", BACK, asked, &fulfillment::ShipmentCancelled::default());
        let cause = orders::CancellationCause::Requested as i32;
        let cancelled = orders::OrderCancelled { cause, ..Default::default() };
        let cancelled = self.event("orders", BACK, stopped, &cancelled);
        let released = inventory::ReservationReleased { lines: vec![line("tea", 1)], ..Default::default() };
        self.event("inventory", BACK, cancelled, &released);
        self.event("payments", BACK, cancelled, &payments::RefundRequested::default());
        let refunded = payments::PaymentRefunded { amount: Some(euros(PRICE)), ..Default::default() };
        self.event("payments", BACK, id(7_001), &refunded);
        self.states(
            BACK,
            1,
            orders::OrderStatus::Cancelled,
            inventory::ReservationStatus::Released,
            payments::PaymentStatus::Refunded,
            fulfillment::ShipmentStatus::Cancelled,
        );
        let provider = self.provider();
        provider.charges[1].refunded = PRICE;
        provider.refunds.push(Refund { charge: provider.charges[1].id.clone(), amount: PRICE });
    }

    fn sound() -> Self {
        let some = || Some(ContextEvidence::default());
        let evidence = Evidence {
            inventory: some(),
            payments: some(),
            fulfillment: some(),
            provider: Some(Account::default()),
            ..Evidence::default()
        };
        let mut shop = Self { ledger: Ledger::default(), warehouse: Ledger::default(), evidence, ids: 0 };
        let received = inventory::StockReceived { sku: "tea".into(), quantity: 5, ..Default::default() };
        shop.event("inventory", "tea", id(9_999), &received);
        shop.aggregate("inventory", "stock_item", "tea", &inventory::StockItemState::default());
        shop.context("inventory").pools.push(PoolRow { name: "tea".into(), total: 3, held: 0 });
        shop.delivered();
        shop.given_back();
        shop.settle();
        shop
    }

    fn report(&self) -> Report {
        audit_shop(&self.ledger, &self.warehouse, &self.evidence)
    }

    /// Takes back the last events of `key`, and gives its stored state the version and the bytes that it has
    /// without them.
    fn forget(&mut self, context: &str, key: &str, count: usize, kind: &str, state: &impl Message) {
        let evidence = self.context(context);
        for _ in 0..count {
            let at = evidence.events.iter().rposition(|event| event.key == key).expect("there");
            let gone = evidence.events.remove(at);
            evidence.outbox.retain(|row| row.id != gone.id);
        }
        evidence.aggregates.retain(|row| row.kind != kind || row.key != key);
        self.aggregate(context, kind, key, state);
        self.settle();
    }
}

/// The breaches in a shop with this fault.
fn found(fault: impl FnOnce(&mut Shop)) -> Vec<(Breach, u64)> {
    let mut shop = Shop::sound();
    fault(&mut shop);
    shop.report().violations().map(|(breach, found)| (breach, found.count)).collect()
}

#[test]
fn a_sound_shop_has_no_breach_and_its_books_balance() {
    let report = Shop::sound().report();
    assert!(report.is_clean(), "{report}");
    let money = report.money.expect("looked at");
    assert_eq!((money.charged, money.refunded, money.kept, money.delivered), (450, 150, 300, 300));
    assert_eq!((money.charges, money.taken, money.charged_once), (2, 2, 1));
    let stock = report.stock;
    assert_eq!((stock.received, stock.shipped, stock.on_hand, stock.reserved), (5, 2, 3, 0));
    assert_eq!((report.applied, report.idle), (11, 1));
    assert_eq!(report.payments.len(), 2);
}

#[test]
fn an_order_charged_twice_does_not_balance() {
    let twice = found(|shop| {
        let again = Charge { id: "pi_again".into(), ..shop.provider().charges[0].clone() };
        shop.provider().charges.push(again);
    });
    // Twice, more than it costs, more than payments knows of; and so it is in all.
    assert_eq!(twice, [(Breach::MoneyAdrift, 4)]);
}

#[test]
fn cancelled_order_charged_twice_is_unbalanced_even_if_refunded() {
    let twice = found(|shop| {
        let again = Charge { id: "pi_again".into(), ..shop.provider().charges[1].clone() };
        shop.provider().refunds.push(Refund { charge: again.id.clone(), amount: PRICE });
        shop.provider().charges.push(again);
    });
    assert_eq!(twice, [(Breach::MoneyAdrift, 3)]);
}

#[test]
fn payment_that_its_provider_contradicts_does_not_balance() {
    let contradicted = found(|shop| {
        shop.event("payments", GOOD, id(7_002), &payments::PaymentContradicted::default());
        let row = shop.context("payments").aggregates.iter_mut().find(|row| row.key == GOOD).expect("there");
        row.version += 1;
        shop.settle();
    });
    assert_eq!(contradicted, [(Breach::MoneyAdrift, 1)]);
}

#[test]
fn a_missing_refund_does_not_balance() {
    let missing = found(|shop| {
        shop.provider().charges[1].refunded = 0;
        shop.provider().refunds.clear();
    });
    // Kept, though payments believes that it was given back; and so it is in all.
    assert_eq!(missing, [(Breach::MoneyAdrift, 3)]);
}

#[test]
fn a_delivered_order_that_nobody_paid_for_does_not_balance() {
    let unpaid = found(|shop| _ = shop.provider().charges.remove(0));
    assert_eq!(unpaid, [(Breach::MoneyAdrift, 4)]);
    let declined = found(|shop| shop.provider().charges[0].status = "requires_payment_method".into());
    assert_eq!(declined, [(Breach::MoneyAdrift, 4)]);
}

#[test]
fn refunded_delivered_order_does_not_balance() {
    let given_back = found(|shop| {
        shop.provider().charges[0].refunded = 300;
        let charge = shop.provider().charges[0].id.clone();
        shop.provider().refunds.push(Refund { charge, amount: 300 });
    });
    assert_eq!(given_back, [(Breach::MoneyAdrift, 3)]);
}

#[test]
fn a_cent_too_much_does_not_balance() {
    let more = found(|shop| shop.provider().charges[0].amount += 1);
    assert_eq!(more, [(Breach::MoneyAdrift, 3)]);
}

#[test]
fn refunds_not_adding_up_to_their_charge_do_not_balance() {
    let short = found(|shop| shop.provider().refunds[0].amount -= 1);
    assert_eq!(short, [(Breach::MoneyAdrift, 1)]);
    let orphan = found(|shop| shop.provider().refunds.push(Refund { charge: "pi_none".into(), amount: 1 }));
    assert_eq!(orphan, [(Breach::MoneyAdrift, 1)]);
}

#[test]
fn a_charge_for_an_order_that_is_none_does_not_balance() {
    let strange = found(|shop| {
        let charge = Charge { id: "pi_x".into(), order_id: NOBODY.into(), ..shop.provider().charges[1].clone() };
        shop.provider().refunds.push(Refund { charge: charge.id.clone(), amount: PRICE });
        shop.provider().charges.push(charge);
    });
    assert_eq!(strange, [(Breach::MoneyAdrift, 1)]);
}

#[test]
fn authorization_neither_captured_nor_voided_does_not_balance() {
    let open = found(|shop| {
        let open =
            Charge { id: "pi_open".into(), status: "requires_capture".into(), ..shop.provider().charges[0].clone() };
        shop.provider().charges.push(open);
    });
    assert_eq!(open, [(Breach::MoneyAdrift, 1)]);
}

#[test]
fn lines_that_cost_something_else_than_was_paid_do_not_balance() {
    let cheaper = found(|shop| {
        let row = shop.evidence.orders.aggregates.iter_mut().find(|row| row.key == GOOD).expect("there");
        let mut state = orders::OrderState::decode(&row.state[..]).expect("sound");
        state.lines[0].unit_price_minor -= 1;
        row.state = state.encode_to_vec();
    });
    assert_eq!(cheaper, [(Breach::MoneyAdrift, 1)]);
}

#[test]
fn a_unit_that_is_lost_is_adrift() {
    let lost = found(|shop| shop.context("inventory").pools[0].total -= 1);
    assert_eq!(lost, [(Breach::StockAdrift, 1)]);
    let still_held = found(|shop| shop.context("inventory").pools[0].held += 1);
    assert_eq!(still_held, [(Breach::StockAdrift, 2)]);
}

#[test]
fn goods_other_than_those_ordered_are_a_disagreement() {
    let other = found(|shop| {
        let inventory = shop.context("inventory");
        let gone = inventory.events.iter_mut().find(|event| matches!(event.news, News::Gone(_))).expect("there");
        gone.news = News::Gone(vec![("tea".into(), 1)]);
        inventory.pools[0].total += 1;
    });
    // One unit left less than was held for it, which the shelves show as well.
    assert_eq!(other, [(Breach::StockAdrift, 1), (Breach::Disagreement, 1)]);
}

#[test]
fn an_order_that_never_ends_is_named() {
    let stuck = found(|shop| {
        let lines = vec![orders::OrderLineState { sku: "tea".into(), quantity: 2, unit_price_minor: PRICE }];
        let status = orders::OrderStatus::Shipped.into();
        shop.forget("orders", GOOD, 1, "order", &orders::OrderState { status, lines, ..Default::default() });
    });
    // Nor do the delivered orders cost what is kept.
    assert_eq!(stuck, [(Breach::MoneyAdrift, 1), (Breach::Unended, 1)]);
}

#[test]
fn delivered_order_without_delivered_shipment_is_disagreement() {
    let undelivered = found(|shop| {
        let events = &mut shop.context("fulfillment").events;
        let last = events.iter_mut().rfind(|event| event.key == GOOD).expect("there");
        last.news = News::Parcel(None);
        let status = fulfillment::ShipmentStatus::Shipped.into();
        let state = fulfillment::ShipmentState { status, ..Default::default() };
        shop.forget("fulfillment", GOOD, 0, "shipment", &state);
    });
    assert_eq!(undelivered, [(Breach::Disagreement, 1)]);
}

#[test]
fn a_shipment_without_an_order_is_a_disagreement() {
    let orphan = found(|shop| {
        shop.event("fulfillment", NOBODY, id(8_000), &fulfillment::ShipmentCancelled::default());
        let status = fulfillment::ShipmentStatus::Cancelled.into();
        let state = fulfillment::ShipmentState { status, ..Default::default() };
        shop.aggregate("fulfillment", "shipment", NOBODY, &state);
        shop.settle();
    });
    assert_eq!(orphan, [(Breach::Disagreement, 1)]);
}

#[test]
fn payment_or_shipment_stored_unlike_its_events_is_not_the_fold() {
    let payment = found(|shop| {
        let status = payments::PaymentStatus::Declined.into();
        let state = payments::PaymentState { status, ..Default::default() };
        shop.forget("payments", GOOD, 0, "payment", &state);
    });
    assert_eq!(payment, [(Breach::NotTheFold, 1)]);
    let shipment = found(|shop| {
        let state = fulfillment::ShipmentState::default();
        shop.forget("fulfillment", GOOD, 0, "shipment", &state);
    });
    assert_eq!(shipment, [(Breach::NotTheFold, 1)]);
}

#[test]
fn a_dead_letter_that_nobody_meant_to_send_is_unexpected() {
    let letter = found(|shop| {
        let letter = id(6_000);
        let dead = DeadRecord { letter: letter.to_string(), key: GOOD.into(), id: None, reason: "POISON".into() };
        shop.context("payments").dead.push(dead);
        let row = OutboxRow { partition: 0, sequence: 1_000, id: letter, topic: "payments.dlq".into() };
        shop.context("payments").outbox.push(row);
        shop.settle();
    });
    assert_eq!(letter, [(Breach::Unexpected, 1)]);
}

#[test]
fn what_one_aggregate_has_to_tell_another_is_published_too() {
    let tell = |shop: &mut Shop| {
        let row = OutboxRow { partition: 0, sequence: 1_000, id: id(6_001), topic: "fulfillment.commands".into() };
        shop.context("fulfillment").outbox.push(row);
        shop.settle();
    };
    assert_eq!(found(tell), [(Breach::Unpublished, 1)]);
    let published = found(|shop| {
        tell(shop);
        shop.context("fulfillment").command_ids.insert(id(6_001));
    });
    assert_eq!(published, []);
}

#[test]
fn warehouse_command_without_claim_or_with_undue_event_is_found() {
    let lost = found(|shop| shop.warehouse.note(&planned(id(1_234), GOOD, Expect::Event)));
    assert_eq!(lost, [(Breach::Lost, 1)]);
    let unheard = found(|shop| shop.warehouse.note(&planned(id(1_234), GOOD, Expect::Nothing)));
    assert_eq!(unheard, [(Breach::Lost, 1)]);
    let acted = found(|shop| {
        let id = shop.command("fulfillment", GOOD, Expect::Nothing);
        shop.event("fulfillment", GOOD, id, &fulfillment::TrackingUpdated::default());
        let row = shop.context("fulfillment").aggregates.iter_mut().find(|row| row.key == GOOD).expect("there");
        row.version += 1;
        shop.settle();
    });
    assert_eq!(acted, [(Breach::Unexpected, 1)]);
}

#[test]
fn the_providers_books_are_read_as_it_publishes_them() {
    let said = serde_json::json!({
        "charges": [{"id": "pi_1", "order_id": GOOD, "status": "succeeded", "amount": 5, "currency": "eur", "refunded": 2}],
        "refunds": [{"id": "re_1", "charge": "pi_1", "order_id": GOOD, "refund_no": "1", "amount": 2}],
        "faults": {"late": 3}, "requests": 9, "keys": 1,
    });
    let account = Account::read(said).expect("books");
    assert!(account.charges[0].is_taken() && !account.charges[0].is_open());
    assert_eq!((account.refunds[0].amount, account.faults["late"], account.requests), (2, 3, 9));
    assert!(Account::read(serde_json::json!({"charges": 1})).is_err());
}
