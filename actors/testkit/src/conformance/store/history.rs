//! Laws of what was lost: halts, marks of topics, the end of what is known of the events topic (I4, I10).

use holdfast_core::{
    PartitionId,
    epoch::{Halt, HaltReason, Token},
    port::store::Cursor,
};

use super::{StoreHarness, registered, row};
use crate::sample::{Owner, draft, entry};

fn halt(detail: &str) -> Halt {
    Halt { reason: HaltReason::HistoryLost, detail: detail.to_owned() }
}

fn some() -> holdfast_core::batch::Writes {
    holdfast_core::batch::Writes { outbox: vec![draft("t.events", "k", "text")], ..Default::default() }
}

/// Both numbers are stored by one statement, and neither goes back; a cursor that a commit stored first keeps
/// the other from nothing.
pub async fn the_known_end_of_the_events_topic_is_stored_with_the_cursor(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0, 1]).await;
    owner.commit(vec![entry(0, some()), entry(0, some()), entry(1, some())]).await.expect("sound");
    assert_eq!(row(&store, 0).await.published, None);
    let cursor = |p, cursor, published| Cursor { published, ..Cursor::new(PartitionId(p), owner.token(p), cursor) };
    for (at, published, expected) in
        [(1, Some(5), Some(5)), (1, Some(9), Some(9)), (2, None, Some(9)), (2, Some(7), Some(9))]
    {
        store.advance(&[cursor(0, at, published), cursor(1, 0, None)]).await.expect("there");
        let stored = row(&store, 0).await;
        assert_eq!((stored.outbox_cursor, stored.published), (at, expected));
    }
    assert_eq!(row(&store, 1).await.published, None);
    store.advance(&[Cursor { token: Token::draw(), ..cursor(0, 2, Some(100)) }]).await.expect("there");
    assert_eq!(row(&store, 0).await.published, Some(9), "a stale token stores nothing");
}

/// Everybody's fence is gone at once, also the one of a take-over that has read the row and not taken it yet.
pub async fn a_halt_takes_every_partition_from_its_owner(harness: &dyn StoreHarness) {
    let store = registered(harness, 3).await;
    let mut owner = Owner::take(&store, [0, 1]).await;
    owner.write(0, some()).await;
    let before = [row(&store, 0).await.epoch, row(&store, 1).await.epoch, row(&store, 2).await.epoch];
    store.halt(Some(&halt("first"))).await.expect("there");
    let lost = owner.commit(vec![entry(0, some()), entry(1, some())]).await.expect("an answer");
    assert_eq!(lost.stale, [PartitionId(0), PartitionId(1)]);
    for p in 0..3 {
        let stored = row(&store, p).await;
        assert_eq!((stored.halted, stored.token, stored.released), (Some(halt("first")), None, false));
        let taken = store.take(PartitionId(p), before[p as usize], Token::draw(), "late").await.expect("there");
        assert_eq!(taken, None, "a take-over under way comes too late");
    }
    store.halt(Some(&halt("second"))).await.expect("there");
    assert_eq!(row(&store, 0).await.halted, Some(halt("first")), "the first reason stays");
    store.register_partitions(4).await.expect("there");
    assert_eq!(row(&store, 3).await.halted, Some(halt("first")), "a partition made later is as halted");
    store.halt(None).await.expect("there");
    let mut next = Owner::take(&store, [0, 1, 2, 3]).await;
    assert_eq!(row(&store, 0).await.halted, None);
    next.write(3, some()).await;
}

/// The first caller that notes a topic fixes its mark.
pub async fn first_topic_mark_stays_until_an_operator_accepts_another(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let pair = |topic: &str, mark: &str| (topic.to_owned(), mark.to_owned());
    let noted = store.incarnations(&[pair("a", "1"), pair("b", "2")]).await.expect("there");
    assert_eq!(noted.into_iter().collect::<Vec<_>>(), [pair("a", "1"), pair("b", "2")]);
    let noted = harness.connect().await.incarnations(&[pair("a", "9"), pair("c", "3")]).await.expect("there");
    assert_eq!(noted.into_iter().collect::<Vec<_>>(), [pair("a", "1"), pair("b", "2"), pair("c", "3")]);
    store.accept_topic("a", Some("9"), &[], false).await.expect("there");
    assert_eq!(store.incarnations(&[]).await.expect("there").get("a").map(String::as_str), Some("9"));
}

/// And where reading goes on: only there, only that topic.
pub async fn accepted_offsets_replace_those_of_one_topic(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0, 1]).await;
    let mut batch = owner.batch(vec![entry(0, some())]);
    batch.fences[0].consumed = vec![("a".into(), 50), ("b".into(), 60)];
    owner.commit_batch(&batch).await.expect("sound");
    let known = Cursor { published: Some(70), ..Cursor::new(PartitionId(0), owner.token(0), 1) };
    store.advance(&[known]).await.expect("there");
    store.accept_topic("a", None, &[(PartitionId(0), 3), (PartitionId(1), 4)], false).await.expect("there");
    let (first, second) = (row(&store, 0).await, row(&store, 1).await);
    assert_eq!((first.next_offset("a"), first.next_offset("b"), first.published), (Some(3), Some(60), Some(70)));
    assert_eq!((second.next_offset("a"), second.next_offset("b")), (Some(4), None));
    store.accept_topic("t.events", None, &[(PartitionId(0), 0)], true).await.expect("there");
    let first = row(&store, 0).await;
    assert_eq!((first.next_offset("t.events"), first.published), (None, Some(0)));
    assert_eq!(store.incarnations(&[]).await.expect("there").len(), 0, "no mark was given");
}
