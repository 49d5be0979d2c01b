//! Every check fails on a planted fault, and only that check.
//!
//! A small sound world (three orders: one placed and reserved, one cancelled for want of stock, one rejected
//! empty; a repeat; a bad record) is broken in one place at a time.

use std::{collections::BTreeMap, time::Duration};

use holdfast_proto::{inventory::v1 as inventory, orders::v1 as orders};
use prost::{Message, Name};
use uuid::Uuid;

use super::{
    AggregateRow, Answer, Breach, ClaimRow, ContextEvidence, DeadRecord, EventRecord, Evidence, OutboxRow,
    PartitionRow, PoolRow, Report, audit, latencies,
};
use crate::{
    kafka::Seen,
    producer::Ledger,
    work::{Expect, Form, Planned},
};

const GOOD: &str = "00000000-0000-7000-8000-000000000001";
const SHORT: &str = "00000000-0000-7000-8000-000000000002";
const EMPTY: &str = "00000000-0000-7000-8000-000000000003";
const BAD: &str = "00000000-0000-7000-8000-000000000004";

struct World {
    ledger: Ledger,
    evidence: Evidence,
    ids: u128,
}

/// A number that no other id in the world has.
pub(super) const fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub(super) fn seen<M: Message + Name>(key: &str, event: Uuid, sequence: u64, cause: Uuid, body: &M) -> Seen {
    let headers = [
        ("ce_id", event.to_string()),
        ("ce_type", M::full_name()),
        ("ce_subject", key.to_owned()),
        ("ce_sequence", sequence.to_string()),
        ("ce_causationid", cause.to_string()),
    ];
    Seen {
        key: key.to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).into_iter().collect(),
        value: body.encode_to_vec(),
        ..Seen::default()
    }
}

pub(super) fn length<T>(rows: &[T]) -> i64 {
    i64::try_from(rows.len()).expect("few")
}

pub(super) fn line(sku: &str, quantity: i64) -> inventory::ReservationLine {
    inventory::ReservationLine { sku: sku.into(), quantity }
}

impl World {
    fn context(&mut self, name: &str) -> &mut ContextEvidence {
        match (name, &mut self.evidence.inventory) {
            ("inventory", Some(inventory)) => inventory,
            _ => &mut self.evidence.orders,
        }
    }

    /// Publishes an event, with its outbox row; returns its id.
    fn event<M: Message + Name>(&mut self, context: &str, key: &str, sequence: u64, cause: Uuid, body: &M) -> Uuid {
        self.ids += 1;
        let id = id(self.ids);
        let evidence = self.context(context);
        let offset = length(&evidence.events);
        let record = EventRecord::read(&Seen { offset, ..seen(key, id, sequence, cause, body) }).expect("sound");
        evidence.events.push(record);
        evidence.outbox.push(OutboxRow { partition: 0, sequence: offset + 1, id, topic: format!("{context}.events") });
        id
    }

    /// Sends a command that must have `expect`, and leaves a claim with `answer`; returns its id.
    fn command(&mut self, order: &str, expect: Expect, answer: Answer) -> Uuid {
        self.ids += 1;
        let id = id(self.ids);
        self.ledger.note(&planned(id, order, expect));
        self.evidence.orders.claims.push(ClaimRow { id, scope: Uuid::from_u128(77), answer });
        id
    }

    fn applied(&mut self, order: &str) -> Uuid {
        self.command(order, Expect::Event, Answer::Applied)
    }

    fn aggregate(&mut self, context: &str, kind: &str, key: &str, version: i64, state: &impl Message) {
        let row = AggregateRow { kind: kind.into(), key: key.into(), version, state: state.encode_to_vec() };
        self.context(context).aggregates.push(row);
    }

    /// Everything consumed and published, as far as it is now.
    fn settle(&mut self) {
        let topics = [
            ("orders", ["orders.commands", "inventory.events"]),
            ("inventory", ["inventory.commands", "orders.events"]),
        ];
        for (context, topics) in topics {
            let evidence = self.context(context);
            let head = length(&evidence.outbox);
            let consumed: BTreeMap<String, i64> = topics.map(|topic| (topic.to_owned(), 9)).into_iter().collect();
            evidence.ends = consumed.iter().map(|(topic, end)| (topic.clone(), BTreeMap::from([(0, *end)]))).collect();
            evidence.partitions = vec![PartitionRow { partition: 0, head, cursor: head, consumed }];
        }
    }

    fn good_order(&mut self) {
        let create = self.applied(GOOD);
        self.event("orders", GOOD, 1, create, &orders::OrderCreated::default());
        let add = self.applied(GOOD);
        let added = orders::ItemAdded { sku: "tea".into(), quantity: 2, line_quantity: 2, ..Default::default() };
        self.event("orders", GOOD, 2, add, &added);
        let place = self.applied(GOOD);
        let placed = self.event("orders", GOOD, 3, place, &orders::OrderPlaced::default());
        let held = inventory::StockReserved { lines: vec![line("tea", 2)], ..Default::default() };
        let held = self.event("inventory", GOOD, 1, placed, &held);
        self.event("orders", GOOD, 4, held, &orders::OrderReserved::default());
        let lines = vec![orders::OrderLineState { sku: "tea".into(), quantity: 2, unit_price_minor: 1 }];
        let status = orders::OrderStatus::Placed as i32;
        self.aggregate("orders", "order", GOOD, 4, &orders::OrderState { status, lines, ..Default::default() });
        let status = inventory::ReservationStatus::Held as i32;
        let lines = vec![line("tea", 2)];
        let held = inventory::ReservationState { status, lines, ..Default::default() };
        self.aggregate("inventory", "reservation", GOOD, 1, &held);
    }

    fn short_order(&mut self) {
        let create = self.applied(SHORT);
        self.event("orders", SHORT, 1, create, &orders::OrderCreated::default());
        let place = self.applied(SHORT);
        let placed = self.event("orders", SHORT, 2, place, &orders::OrderPlaced::default());
        let refused = self.event("inventory", SHORT, 1, placed, &inventory::ReservationRefused::default());
        let cause = orders::CancellationCause::OutOfStock as i32;
        self.event("orders", SHORT, 3, refused, &orders::OrderCancelled { cause, ..Default::default() });
        let status = orders::OrderStatus::Cancelled as i32;
        self.aggregate("orders", "order", SHORT, 3, &orders::OrderState { status, ..Default::default() });
        let status = inventory::ReservationStatus::Refused as i32;
        let refused = inventory::ReservationState { status, ..Default::default() };
        self.aggregate("inventory", "reservation", SHORT, 1, &refused);
    }

    fn empty_order(&mut self) {
        let create = self.applied(EMPTY);
        self.event("orders", EMPTY, 1, create, &orders::OrderCreated::default());
        let empty = "EMPTY_ORDER";
        let place = self.command(EMPTY, Expect::Rejection(empty), Answer::Rejected(empty.into()));
        self.ledger.note(&planned(place, EMPTY, Expect::Rejection(empty)));
        let status = orders::OrderStatus::Draft as i32;
        self.aggregate("orders", "order", EMPTY, 1, &orders::OrderState { status, ..Default::default() });
    }

    fn sound() -> Self {
        let evidence = Evidence { inventory: Some(ContextEvidence::default()), ..Evidence::default() };
        let mut world = Self { ledger: Ledger::default(), evidence, ids: 0 };
        let received = inventory::StockReceived { sku: "tea".into(), quantity: 5, ..Default::default() };
        world.event("inventory", "tea", 1, id(9_999), &received);
        world.aggregate("inventory", "stock_item", "tea", 1, &inventory::StockItemState::default());
        world.context("inventory").pools.push(PoolRow { name: "tea".into(), total: 5, held: 2 });
        world.good_order();
        world.short_order();
        world.empty_order();
        world.ledger.note(&planned(id(5_000), BAD, Expect::DeadLetter("INVALID")));
        let letter = id(6_000);
        let dead = DeadRecord { letter: letter.to_string(), key: BAD.into(), id: None, reason: "INVALID".into() };
        world.evidence.orders.dead.push(dead);
        let row = OutboxRow { partition: 0, sequence: 1_000, id: letter, topic: "orders.dlq".into() };
        world.evidence.orders.outbox.push(row);
        let view = [(GOOD, "PLACED"), (SHORT, "CANCELLED"), (EMPTY, "DRAFT")];
        world.evidence.orders.view =
            Some(view.map(|(key, status)| (key.to_owned(), status.to_owned())).into_iter().collect());
        world.settle();
        world
    }

    fn report(&self) -> Report {
        audit(&self.ledger, &self.evidence)
    }

    fn order_events(&mut self) -> &mut Vec<EventRecord> {
        &mut self.evidence.orders.events
    }

    /// Where the event of `key` at `version` is in the orders' topic.
    fn at(&self, key: &str, version: u64) -> usize {
        let events = &self.evidence.orders.events;
        events.iter().position(|event| event.key == key && event.sequence == version).expect("there")
    }

    /// Puts a record at the end of the orders' topic.
    fn append(&mut self, record: EventRecord) {
        let offset = length(&self.evidence.orders.events);
        self.order_events().push(EventRecord { offset, ..record });
    }
}

pub(super) fn planned(id: Uuid, order: &str, expect: Expect) -> Planned {
    Planned {
        id,
        order: Uuid::try_parse(order).expect("an id"),
        key: order.to_owned(),
        r#type: String::new(),
        subject: order.to_owned(),
        is_complete: true,
        form: Form::Protobuf,
        value: Vec::new(),
        expect,
        is_repeat: false,
    }
}

/// The breaches in a world with this fault.
fn found(fault: impl FnOnce(&mut World)) -> Vec<(Breach, u64)> {
    let mut world = World::sound();
    fault(&mut world);
    world.report().violations().map(|(breach, found)| (breach, found.count)).collect()
}

#[test]
fn a_sound_run_has_no_breach_and_its_counts_add_up() {
    let report = World::sound().report();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.records, report.commands, report.bad_records), (9, 7, 1));
    assert_eq!((report.applied, report.repeats_sent, report.repeats_dropped), (6, 1, 1));
    assert_eq!(report.rejected, BTreeMap::from([("EMPTY_ORDER".to_owned(), 1)]));
    assert_eq!(report.dead_letters, BTreeMap::from([("INVALID".to_owned(), 1)]));
    assert_eq!((report.events, report.republished, report.caused_by_others), (11, 0, 0));
    let orders = [("CANCELLED", 1), ("DRAFT", 1), ("PLACED", 1)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(report.orders, BTreeMap::from(orders));
    assert_eq!(report.cancelled, BTreeMap::from([("OUT_OF_STOCK".to_owned(), 1)]));
    assert_eq!(report.reserved, 1);
    assert_eq!(report.reservations, BTreeMap::from([("HELD".to_owned(), 1), ("REFUSED".to_owned(), 1)]));
    assert_eq!((report.stock.received, report.stock.on_hand, report.stock.reserved), (5, 5, 2));
    assert!(serde_json::to_string(&report).expect("a value").contains("\"breaches\":{}"));
}

#[test]
fn every_breach_names_an_invariant_and_words() {
    let known = ["I1", "I2", "I3", "I7", "I8", "I10"];
    assert!(Breach::ALL.iter().all(|breach| known.contains(&breach.invariant()) && !breach.words().is_empty()));
}

#[test]
fn a_command_without_an_effect_is_lost() {
    let lost = found(|world| world.ledger.note(&planned(id(1_234), GOOD, Expect::Event)));
    assert_eq!(lost, [(Breach::Lost, 1)]);
    let claimed_only = found(|world| {
        world.applied(GOOD);
    });
    assert_eq!(claimed_only, [(Breach::Lost, 1)]);
}

#[test]
fn a_bad_record_without_its_dead_letter_is_lost() {
    let lost = found(|world| {
        world.evidence.orders.dead.clear();
        world.evidence.orders.outbox.pop();
        world.settle();
    });
    assert_eq!(lost, [(Breach::Lost, 1)]);
}

#[test]
fn two_events_of_one_command_double_it() {
    let doubled = found(|world| {
        let cause = world.evidence.orders.events[world.at(EMPTY, 1)].causation.expect("caused");
        world.event("orders", EMPTY, 2, cause, &orders::OrderCreated::default());
        world.evidence.orders.aggregates[2].version = 2;
        world.settle();
    });
    assert_eq!(doubled, [(Breach::Doubled, 1)]);
}

#[test]
fn an_event_and_a_rejection_of_one_command_double_it() {
    let doubled = found(|world| {
        let id = world.evidence.orders.events[world.at(GOOD, 1)].causation.expect("caused");
        let answer = Answer::Rejected("ORDER_ALREADY_EXISTS".into());
        world.evidence.orders.claims.push(ClaimRow { id, scope: Uuid::from_u128(78), answer });
    });
    assert_eq!(doubled, [(Breach::Doubled, 1)]);
}

#[test]
fn two_claims_of_one_message_double_it() {
    let doubled = found(|world| {
        let claim = world.evidence.orders.claims[0].clone();
        world.evidence.orders.claims.push(claim);
    });
    assert_eq!(doubled, [(Breach::Doubled, 1)]);
}

#[test]
fn two_dead_letters_double_a_record_and_one_read_twice_does_not() {
    let again = found(|world| {
        let letter = world.evidence.orders.dead[0].clone();
        world.evidence.orders.dead.push(letter);
    });
    assert_eq!(again, []);
    let doubled = found(|world| {
        let letter = DeadRecord { letter: id(6_001).to_string(), ..world.evidence.orders.dead[0].clone() };
        world.evidence.orders.dead.push(letter);
        let row = OutboxRow { sequence: 1_001, id: id(6_001), ..world.evidence.orders.outbox[0].clone() };
        world.evidence.orders.outbox.push(row);
        world.settle();
    });
    assert_eq!(doubled, [(Breach::Doubled, 1)]);
}

#[test]
fn one_event_at_two_versions_is_doubled() {
    let doubled = found(|world| {
        let record = world.evidence.orders.events[world.at(GOOD, 4)].clone();
        world.append(EventRecord { sequence: 5, ..record });
        world.evidence.orders.aggregates[0].version = 5;
    });
    assert_eq!(doubled, [(Breach::Doubled, 1)]);
}

#[test]
fn another_effect_than_the_expected_one_is_reported() {
    let rejected = found(|world| {
        let claim = world.evidence.orders.claims.last_mut().expect("one");
        claim.answer = Answer::Rejected("WRONG_STATE".into());
    });
    assert_eq!(rejected, [(Breach::Unexpected, 1)]);
    let other_reason = found(|world| world.evidence.orders.dead[0].reason = "POISON".into());
    assert_eq!(other_reason, [(Breach::Unexpected, 1)]);
}

#[test]
fn an_event_without_a_claim_is_reported() {
    let unclaimed = found(|world| {
        world.evidence.orders.claims.remove(0);
    });
    assert_eq!(unclaimed, [(Breach::Unclaimed, 1)]);
}

#[test]
fn the_same_record_again_is_a_repeat_and_no_second_effect() {
    let mut world = World::sound();
    let record = world.evidence.orders.events[world.at(GOOD, 2)].clone();
    world.append(record);
    let report = world.report();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.republished, report.events), (1, 11));
}

#[test]
fn another_record_at_a_known_version_is_a_second_history() {
    let other_body = found(|world| {
        let record = world.evidence.orders.events[world.at(GOOD, 2)].clone();
        world.append(EventRecord { digest: record.digest + 1, ..record });
    });
    assert_eq!(other_body, [(Breach::TwoHistories, 1)]);
    let other_id = found(|world| {
        let record = world.evidence.orders.events[world.at(GOOD, 2)].clone();
        world.append(EventRecord { id: id(4_321), ..record });
    });
    assert_eq!(other_id, [(Breach::TwoHistories, 1), (Breach::Uncommitted, 1)]);
}

#[test]
fn a_gap_in_versions_is_out_of_order() {
    let gap = found(|world| {
        let at = world.at(GOOD, 4);
        world.order_events()[at].sequence = 5;
        world.evidence.orders.aggregates[0].version = 5;
    });
    assert_eq!(gap, [(Breach::OutOfOrder, 1)]);
}

#[test]
fn versions_published_in_the_wrong_order_are_out_of_order() {
    let swapped = found(|world| {
        let (second, third) = (world.at(GOOD, 2), world.at(GOOD, 3));
        let offset = world.evidence.orders.events[second].offset;
        world.order_events()[second].offset = world.evidence.orders.events[third].offset;
        world.order_events()[third].offset = offset;
    });
    assert_eq!(swapped, [(Breach::OutOfOrder, 2)]);
}

#[test]
fn events_of_one_order_in_two_partitions_are_out_of_order() {
    let moved = found(|world| {
        let at = world.at(GOOD, 4);
        world.order_events()[at].partition = 1;
    });
    assert_eq!(moved, [(Breach::OutOfOrder, 1)]);
}

#[test]
fn order_moves_after_growth_only_to_a_split_of_its_partition() {
    let moved = |to: i32| {
        found(|world| {
            world.evidence.orders.grown_from = Some(4);
            for event in world.order_events().iter_mut().filter(|event| event.key == GOOD && event.sequence >= 4) {
                event.partition = to;
            }
        })
    };
    assert_eq!(moved(8), []);
    assert_eq!(moved(3), [(Breach::OutOfOrder, 1)]);
}

#[test]
fn a_command_applied_before_an_earlier_one_is_overtaken() {
    let overtaken = found(|world| {
        let (second, third) = (world.at(GOOD, 2), world.at(GOOD, 3));
        let cause = world.evidence.orders.events[second].causation;
        world.order_events()[second].causation = world.evidence.orders.events[third].causation;
        world.order_events()[third].causation = cause;
    });
    assert_eq!(overtaken, [(Breach::Overtaken, 1)]);
}

#[test]
fn a_record_that_is_no_event_is_unreadable() {
    let broken = seen(GOOD, id(1), 1, id(2), &orders::OrderCreated::default());
    for header in ["ce_id", "ce_sequence", "ce_subject"] {
        let mut broken = broken.clone();
        broken.headers.remove(header);
        assert!(EventRecord::read(&broken).is_err(), "{header}");
    }
    assert!(EventRecord::read(&broken).is_ok());
    let unreadable = found(|world| world.evidence.orders.unreadable.push(("partition 0".into(), "garbage".into())));
    assert_eq!(unreadable, [(Breach::Unreadable, 1)]);
}

#[test]
fn an_outbox_row_that_is_in_no_topic_is_unpublished() {
    let unpublished = found(|world| {
        let row = OutboxRow { sequence: 2_000, id: id(7_000), ..world.evidence.orders.outbox[0].clone() };
        world.evidence.orders.outbox.push(row);
        world.settle();
    });
    assert_eq!(unpublished, [(Breach::Unpublished, 1)]);
}

#[test]
fn an_event_that_no_outbox_row_knows_is_uncommitted() {
    let uncommitted = found(|world| {
        world.evidence.orders.outbox.remove(0);
        world.settle();
    });
    assert_eq!(uncommitted, [(Breach::Uncommitted, 1)]);
}

#[test]
fn two_outbox_rows_of_one_number_are_two_histories() {
    let twice = found(|world| {
        let row = world.evidence.orders.outbox[0].clone();
        world.evidence.orders.outbox[1].sequence = row.sequence;
    });
    assert_eq!(twice, [(Breach::TwoHistories, 1)]);
}

#[test]
fn a_cursor_behind_its_head_is_undrained() {
    assert_eq!(found(|world| world.evidence.orders.partitions[0].cursor -= 1), [(Breach::Undrained, 1)]);
}

#[test]
fn offset_behind_or_beyond_the_end_is_unconsumed() {
    for end in [8, 10] {
        let unread = found(|world| {
            let ends = world.evidence.orders.ends.get_mut("inventory.events").expect("read");
            ends.insert(0, end);
        });
        assert_eq!(unread, [(Breach::Unconsumed, 1)]);
    }
}

#[test]
fn a_message_in_a_mailbox_is_waiting() {
    let waiting = found(|world| world.evidence.orders.mailbox.push((GOOD.into(), "retrying".into())));
    assert_eq!(waiting, [(Breach::Waiting, 1)]);
}

#[test]
fn stored_version_other_than_last_published_is_not_the_fold() {
    assert_eq!(found(|world| world.evidence.orders.aggregates[0].version = 3), [(Breach::NotTheFold, 1)]);
    assert_eq!(found(|world| world.evidence.orders.aggregates[0].version = 5), [(Breach::NotTheFold, 1)]);
}

#[test]
fn aggregate_only_published_or_only_stored_is_not_the_fold() {
    let only_published = found(|world| {
        world.evidence.orders.aggregates.remove(0);
    });
    assert_eq!(only_published, [(Breach::NotTheFold, 1)]);
    let only_stored = found(|world| {
        let row = AggregateRow { key: "x".into(), ..world.evidence.orders.aggregates[0].clone() };
        world.evidence.orders.aggregates.push(row);
    });
    assert_eq!(only_stored, [(Breach::NotTheFold, 1)]);
}

#[test]
fn a_stored_state_other_than_the_events_make_it_is_not_the_fold() {
    let status = orders::OrderStatus::Placed as i32;
    let lines = vec![orders::OrderLineState { sku: "tea".into(), quantity: 3, unit_price_minor: 1 }];
    let more = orders::OrderState { status, lines, ..Default::default() };
    let lines = found(|world| world.evidence.orders.aggregates[0].state = more.encode_to_vec());
    assert_eq!(lines, [(Breach::NotTheFold, 1)]);
    let garbage = found(|world| world.evidence.orders.aggregates[0].state = vec![0xff; 9]);
    assert_eq!(garbage, [(Breach::NotTheFold, 1)]);
}

#[test]
fn a_read_model_other_than_the_events_make_it_is_not_the_fold() {
    let stale = found(|world| {
        let view = world.evidence.orders.view.as_mut().expect("there");
        view.insert(GOOD.into(), "DRAFT".into());
    });
    assert_eq!(stale, [(Breach::NotTheFold, 1)]);
}

#[test]
fn stock_that_was_neither_received_nor_reserved_is_adrift() {
    let pool = |change: fn(&mut PoolRow)| found(|world| change(&mut world.context("inventory").pools[0]));
    assert_eq!(pool(|pool| pool.total += 1), [(Breach::StockAdrift, 1)]);
    // It differs from the events, and from the reservations.
    assert_eq!(pool(|pool| pool.held -= 1), [(Breach::StockAdrift, 2)]);
}

#[test]
fn oversold_stock_is_adrift() {
    let oversold = found(|world| {
        let received = world.context("inventory").events[0].clone();
        let news = super::News::Stock(("tea".into(), 1));
        world.context("inventory").events[0] = EventRecord { news, ..received };
        world.context("inventory").pools[0].total = 1;
    });
    assert_eq!(oversold, [(Breach::StockAdrift, 1)]);
}

#[test]
fn a_reservation_that_its_order_does_not_know_is_a_disagreement() {
    let unaware = found(|world| {
        let at = world.at(GOOD, 4);
        world.evidence.orders.events.remove(at);
        world.evidence.orders.outbox.retain(|row| row.topic == "orders.dlq" || row.sequence != 4);
        world.evidence.orders.aggregates[0].version = 3;
        world.settle();
    });
    assert_eq!(unaware, [(Breach::Disagreement, 1)]);
}

#[test]
fn a_reservation_without_an_order_is_a_disagreement() {
    let orphan = found(|world| {
        let key = "00000000-0000-7000-8000-00000000000f";
        world.event("inventory", key, 1, id(8_000), &inventory::ReservationReleased::default());
        let status = inventory::ReservationStatus::Released as i32;
        let state = inventory::ReservationState { status, ..Default::default() };
        world.aggregate("inventory", "reservation", key, 1, &state);
        world.settle();
    });
    assert_eq!(orphan, [(Breach::Disagreement, 1)]);
}

#[test]
fn an_event_that_nothing_known_caused_is_counted() {
    let mut world = World::sound();
    let at = world.at(GOOD, 4);
    world.order_events()[at].causation = Some(id(31_337));
    assert_eq!(world.report().caused_by_others, 1);
}

#[test]
fn latency_runs_from_the_first_sending_to_the_first_event() {
    let mut world = World::sound();
    let command = *world.ledger.commands.keys().next().expect("some");
    let start = i64::try_from(world.ledger.started_ms).expect("a time");
    let at = world.evidence.orders.events[0].clone();
    let record = |after: i64| EventRecord { causation: Some(command), time_ms: start + after, ..at.clone() };
    world.evidence.orders.events = vec![record(700), record(40)];
    world.ledger.commands.get_mut(&command).expect("there").after = Duration::from_millis(15);
    let found = latencies(&world.ledger, &world.evidence, |id, _| *id == command);
    assert_eq!((found.count, found.p50_ms, found.max_ms), (1, 25, 25));
    assert_eq!(latencies(&world.ledger, &world.evidence, |_, _| false).count, 0);
}

#[test]
fn stored_answers_are_read_as_they_are_written() {
    let stored = |tag: u8, rest: &[u8]| [&[tag][..], &[0; 8], rest].concat();
    assert_eq!(Answer::read(&stored(1, b"")), Answer::Applied);
    assert_eq!(Answer::read(&stored(2, b"EMPTY_ORDER\0nothing to place")), Answer::Rejected("EMPTY_ORDER".into()));
    for garbage in [&[][..], &[1, 2], &[9; 20]] {
        assert_eq!(Answer::read(garbage), Answer::Unreadable);
    }
}
