//! Compressed records, which are small where the broker measures them and large where the runtime reads them.
//!
//! Invariant: each is a dead letter that its topic takes, cut if need be. Deliberately absent: records that
//! the broker refuses.

use holdfast_load_tests::by_hand::Raw;

use super::{
    attack::{Attack, Outcome, Row, TOO_LARGE, UNDECODABLE, dead, tables},
    envelopes::good,
    stand::PARTITIONS,
};

const MIB: usize = 1024 * 1024;

pub fn attacks() -> Vec<Attack> {
    tables![
        body_of_12_mb_in_12_kb_is_too_large_and_cut,
        body_of_12_mb_on_every_partition_is_too_large,
        body_of_90_mb_in_90_kb_is_too_large,
        body_of_200_mb_in_200_kb_is_too_large,
        key_of_12_mb_is_refused_and_cut,
        header_of_12_mb_is_too_large_and_cut,
        body_of_12_mb_in_foreign_events_is_too_large,
        hundred_bodies_of_a_mib_are_undecodable,
    ]
}

fn zeros(bytes: usize) -> Raw {
    Raw { value: Some(vec![0; bytes]), ..good() }
}

fn body_of_12_mb_in_12_kb_is_too_large_and_cut() -> Vec<Row> {
    vec![Row::new("12 MB of zeros", zeros(12_000_000), TOO_LARGE).compressed()]
}

fn body_of_12_mb_on_every_partition_is_too_large() -> Vec<Row> {
    let on = |partition: u32| {
        let row = Row::new(format!("on {partition}"), zeros(12_000_000), TOO_LARGE).compressed();
        Row { partition: Some(partition.cast_signed()), ..row }
    };
    (0..PARTITIONS).map(on).collect()
}

fn body_of_90_mb_in_90_kb_is_too_large() -> Vec<Row> {
    vec![Row::new("90 MB of zeros", zeros(90_000_000), TOO_LARGE).compressed()]
}

fn body_of_200_mb_in_200_kb_is_too_large() -> Vec<Row> {
    vec![Row::new("200 MB of zeros", zeros(200_000_000), TOO_LARGE).compressed()]
}

fn key_of_12_mb_is_refused_and_cut() -> Vec<Row> {
    let raw = Raw { key: Some(vec![b'k'; 12_000_000]), ..good().with("ce_subject", None) };
    vec![Row::new("12 MB of k", raw, dead(&["INVALID", "TOO_LARGE"])).compressed()]
}

fn header_of_12_mb_is_too_large_and_cut() -> Vec<Row> {
    let long = "x".repeat(12_000_000);
    vec![
        Row::new("a source of 12 MB", good().with("ce_source", Some(&long)), TOO_LARGE).compressed(),
        Row::new("a foreign header of 12 MB", good().with("x-foreign", Some(&long)), TOO_LARGE).compressed(),
    ]
}

/// A type that orders follow is refused; any other is passed over.
fn body_of_12_mb_in_foreign_events_is_too_large() -> Vec<Row> {
    let followed = zeros(12_000_000)
        .with("ce_type", Some("holdfast.inventory.v1.StockReserved"))
        .with("ce_source", Some("holdfast/inventory/reservation"))
        .with("ce_sequence", Some("1"));
    let unknown = zeros(12_000_000).with("ce_type", Some("shop.v1.Noise"));
    vec![
        Row::new("of a followed type", followed, TOO_LARGE).to("inventory.events").compressed(),
        Row::new("of an unknown type", unknown, Outcome::Caused(0)).to("inventory.events").compressed(),
    ]
}

fn hundred_bodies_of_a_mib_are_undecodable() -> Vec<Row> {
    (0..100).map(|n| Row::new(format!("number {n}"), zeros(MIB), UNDECODABLE).compressed()).collect()
}
