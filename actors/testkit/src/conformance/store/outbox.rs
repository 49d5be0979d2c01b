//! Laws of the outbox, its cursor, and the consumed offsets (I3, I7).

use bytes::Bytes;
use holdfast_core::{
    Headers, PartitionId,
    batch::{Batch, OutboxDraft, OutboxRow, Writes},
    epoch::Token,
    port::store::Cursor,
};
use uuid::Uuid;

use super::{StoreHarness, registered, row};
use crate::sample::{Owner, draft, entry};

fn texts(list: &[&str]) -> Writes {
    Writes { outbox: list.iter().map(|text| draft("t.events", "k", text)).collect(), ..Writes::default() }
}

/// Per partition, across entries and batches.
pub async fn outbox_rows_are_numbered_in_batch_order_without_gaps(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0, 1]).await;
    let entries = vec![entry(0, texts(&["a", "b"])), entry(1, texts(&["c"])), entry(0, texts(&["d"]))];
    let first = owner.commit(entries).await.expect("sound");
    let second = owner.commit(vec![entry(1, texts(&["e"])), entry(0, texts(&["f"]))]).await.expect("sound");
    let listed = |rows: &[OutboxRow]| -> Vec<(u32, u64, String)> {
        let text = |row: &OutboxRow| String::from_utf8_lossy(row.draft.value.as_deref().unwrap_or_default()).into();
        rows.iter().map(|row| (row.partition.0, row.sequence, text(row))).collect()
    };
    let of = |p, n, text: &str| (p, n, text.to_owned());
    assert_eq!(listed(&first.outbox), [of(0, 1, "a"), of(0, 2, "b"), of(1, 1, "c"), of(0, 3, "d")]);
    assert_eq!(listed(&second.outbox), [of(1, 2, "e"), of(0, 4, "f")]);
    let stored = store.outbox(PartitionId(0), 0, 100, usize::MAX).await.expect("there");
    assert_eq!(listed(&stored), [of(0, 1, "a"), of(0, 2, "b"), of(0, 3, "d"), of(0, 4, "f")]);
    assert_eq!((row(&store, 0).await.outbox_head, row(&store, 1).await.outbox_head), (4, 2));
    assert_eq!(second.heads.values().copied().collect::<Vec<_>>(), [4, 2]);
}

/// A dead letter's record is whatever a stranger sent.
pub async fn outbox_rows_come_back_byte_for_byte(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let headers = Headers(vec![
        ("twice".into(), Some(Bytes::from_static(b"1"))),
        ("twice".into(), Some(Bytes::from_static(b"\xff\x00"))),
        ("null".into(), None),
        ("".into(), Some(Bytes::new())),
    ]);
    let full = OutboxDraft {
        id: Uuid::now_v7(),
        topic: "t.dlq".into(),
        target: PartitionId(11),
        key: Some(Bytes::from_static(b"\x00\xfe")),
        headers,
        value: Some(Bytes::from((0..=255).collect::<Vec<u8>>())),
    };
    let bare = OutboxDraft { key: None, value: None, headers: Headers::default(), id: Uuid::now_v7(), ..full.clone() };
    let empty = OutboxDraft { key: Some(Bytes::new()), value: Some(Bytes::new()), id: Uuid::now_v7(), ..bare.clone() };
    let drafts = vec![full, bare, empty];
    let committed = owner.write(0, Writes { outbox: drafts.clone(), ..Writes::default() }).await;
    let rows = store.outbox(PartitionId(0), 0, 10, usize::MAX).await.expect("there");
    assert_eq!(rows.iter().map(|row| row.draft.clone()).collect::<Vec<_>>(), drafts);
    assert_eq!(rows, committed.outbox);
}

/// What a relay reads after a take-over.
pub async fn outbox_is_read_after_a_sequence_up_to_a_limit(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0, 1]).await;
    owner.write(0, texts(&["a", "b", "c", "d", "e"])).await;
    owner.write(1, texts(&["x"])).await;
    for (after, limit, expected) in [(0, 2, vec![1, 2]), (2, 10, vec![3, 4, 5]), (5, 10, vec![]), (9, 10, vec![])] {
        let rows = store.outbox(PartitionId(0), after, limit, usize::MAX).await.expect("there");
        assert_eq!(rows.iter().map(|row| row.sequence).collect::<Vec<_>>(), expected, "after {after}");
    }
}

/// A batch speaks only of the topics it read.
pub async fn consumed_offsets_are_merged_per_topic(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0, 1]).await;
    for consumed in [
        vec![("orders.commands".into(), 5), ("inventory.events".into(), 2)],
        vec![("inventory.events".into(), 9)],
        vec![],
        vec![("payments.events".into(), 1 << 40)],
    ] {
        let mut batch = owner.batch(vec![entry(0, texts(&["a"]))]);
        batch.fences[0].consumed = consumed;
        owner.commit_batch(&batch).await.expect("sound");
    }
    let stored = row(&store, 0).await;
    let next = |topic| stored.next_offset(topic);
    assert_eq!((next("orders.commands"), next("inventory.events")), (Some(5), Some(9)));
    assert_eq!((next("payments.events"), next("never")), (Some(1 << 40), None));
    assert_eq!(row(&store, 1).await.consumed, []);
}

/// A batch of repeats writes nothing else.
pub async fn a_batch_without_entries_moves_number_and_offsets(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    owner.write(0, texts(&["a"])).await;
    let mut fence = owner.fence(0);
    fence.consumed = vec![("t.commands".into(), 3)];
    let committed = owner.commit_batch(&Batch { fences: vec![fence], entries: vec![] }).await.expect("sound");
    assert_eq!((committed.stale.len(), committed.heads[&PartitionId(0)]), (0, 1));
    let stored = row(&store, 0).await;
    assert_eq!((stored.batch, stored.outbox_head, stored.next_offset("t.commands")), (2, 1, Some(3)));
}

/// Late answers don't undo later ones.
pub async fn a_cursor_never_goes_back(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0, 1]).await;
    owner.write(0, texts(&["a", "b", "c", "d"])).await;
    let p = PartitionId(0);
    for (to, expected) in [(2, 2), (1, 2), (3, 3)] {
        let still = Cursor::new(PartitionId(1), owner.token(1), 0);
        store.advance(&[Cursor::new(p, owner.token(0), to), still]).await.expect("there");
        assert_eq!(row(&store, 0).await.outbox_cursor, expected);
    }
    for (to, expected) in [(Some(4), 4), (Some(1), 4), (None, 4)] {
        let mut batch = owner.batch(vec![entry(0, texts(&["e"]))]);
        batch.fences[0].cursor = to;
        owner.commit_batch(&batch).await.expect("sound");
        assert_eq!(row(&store, 0).await.outbox_cursor, expected);
    }
}

/// A replaced relay's answers count for nothing.
pub async fn a_cursor_needs_the_current_token(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut old = Owner::take(&store, [0, 1]).await;
    old.commit(vec![entry(0, texts(&["a"])), entry(1, texts(&["b"]))]).await.expect("sound");
    let _new = Owner::take(&store, [0]).await;
    let cursors = [0, 1].map(|p| Cursor::new(PartitionId(p), old.token(p), 1));
    store.advance(&cursors).await.expect("there");
    store.advance(&[Cursor::new(PartitionId(0), Token::draw(), 1)]).await.expect("there");
    assert_eq!((row(&store, 0).await.outbox_cursor, row(&store, 1).await.outbox_cursor), (0, 1));
}
