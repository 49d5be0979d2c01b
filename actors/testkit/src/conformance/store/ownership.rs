//! Laws of taking, releasing and fencing (I4).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast_core::{
    PartitionId,
    batch::Writes,
    epoch::{Beat, Epoch, Generation, Token},
    port::store::{CommitError, Cursor, MailLimit},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{StoreHarness, found, published, registered, row, stored};
use crate::sample::{self, Owner, draft, entry, everything, state};

/// A little of everything for `key`, which leaves traces in every table that [`super::found`] and friends
/// see.
fn something(key: &str) -> Writes {
    Writes {
        outbox: vec![draft("t.events", key, key)],
        timers: vec![sample::timer(key, "t", Some(Duration::ZERO))],
        mailbox: vec![sample::mail(key, "m", None)],
        ..sample::claimed(state(key, 0, 1), vec![sample::claim(1)], 32)
    }
}

async fn assert_no_trace(store: &Arc<dyn holdfast_core::port::store::Store>, key: &str, partition: u32) {
    let found = &found(store, &[key]).await[0];
    assert_eq!((&found.state, found.waiting), (&Ok(None), 0), "state or mailbox");
    assert_eq!(published(store, partition).await, [""; 0], "outbox");
    assert_eq!(store.due_timers(&everything(4), 10).await.expect("there"), [], "timers");
    assert_eq!(store.due_mail(&everything(4), MailLimit::of(10)).await.expect("there"), [], "mailbox");
}

/// The first owner of a partition has nobody's lease to wait out.
pub async fn a_fresh_partition_was_never_owned_and_needs_no_waiting(harness: &dyn StoreHarness) {
    let store = registered(harness, 3).await;
    let rows = store.partitions().await.expect("there");
    assert_eq!(rows.iter().map(|row| row.partition.0).collect::<Vec<_>>(), [0, 1, 2]);
    for row in rows {
        assert_eq!((row.epoch, row.token, row.generation, row.released), (Epoch(0), None, Generation(1), true));
        assert_eq!((row.batch, row.outbox_head, row.outbox_cursor, row.consumed.len()), (0, 0, 0, 0));
    }
}

/// Every node registers at its start.
pub async fn registering_again_adds_missing_rows_and_changes_no_others(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [1]).await;
    owner.write(1, something("a")).await;
    let before = store.partitions().await.expect("there");
    store.register_partitions(1).await.expect("there");
    store.register_partitions(4).await.expect("there");
    let after = store.partitions().await.expect("there");
    assert_eq!(after[..2], before[..]);
    assert_eq!(after.len(), 4);
}

/// Who read an older epoch was overtaken.
pub async fn take_is_conditional_on_the_epoch(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let (p, first, second) = (PartitionId(0), Token::draw(), Token::draw());
    let taken = store.take(p, Epoch(0), first, "http://a").await.expect("there").expect("nobody was quicker").row;
    assert_eq!((taken.epoch, taken.token, taken.address.as_str()), (Epoch(1), Some(first), "http://a"));
    assert_eq!(store.take(p, Epoch(0), second, "http://b").await.expect("there"), None);
    assert_eq!(store.take(p, Epoch(7), second, "http://b").await.expect("there"), None);
    assert_eq!(row(&store, 0).await.token, Some(first));
    let taken = store.take(p, Epoch(1), second, "http://b").await.expect("there").expect("nobody was quicker").row;
    assert_eq!((taken.epoch, taken.token, taken.released), (Epoch(2), Some(second), false));
    assert_eq!(store.take(PartitionId(9), Epoch(0), second, "http://b").await.expect("there"), None, "no such row");
}

/// However many try.
pub async fn of_concurrent_takers_exactly_one_wins(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    for epoch in 0..5 {
        let mut takers = Vec::new();
        for _ in 0..6 {
            let node = harness.connect().await;
            takers.push(tokio::spawn(async move {
                let token = Token::draw();
                node.take(PartitionId(0), Epoch(epoch), token, "x").await.expect("there").map(|_| token)
            }));
        }
        let mut winners = Vec::new();
        for taker in takers {
            winners.extend(taker.await.expect("no taker panics"));
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(row(&store, 0).await.token, Some(winners[0]));
    }
}

/// The next owner goes on where the last one stopped.
pub async fn a_take_over_keeps_progress(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let mut batch = owner.batch(vec![entry(0, something("a"))]);
    batch.fences[0].consumed = vec![("t.commands".into(), 17)];
    owner.commit_batch(&batch).await.expect("sound");
    store.advance(&[Cursor::new(PartitionId(0), owner.token(0), 1)]).await.expect("there");
    let taken =
        store.take(PartitionId(0), Epoch(1), Token::draw(), "x").await.expect("there").expect("conditional").row;
    assert_eq!((taken.batch, taken.outbox_head, taken.outbox_cursor), (1, 1, 1));
    assert_eq!((taken.next_offset("t.commands"), taken.next_offset("other")), (Some(17), None));
}

/// `released` in the answer is what it was before; in the row it is gone.
pub async fn release_is_seen_by_the_next_taker_and_by_no_later_one(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let (p, token) = (PartitionId(0), Token::draw());
    let first = store.take(p, Epoch(0), token, "a").await.expect("there").expect("free").row;
    assert!(first.released && !row(&store, 0).await.released);
    assert!(store.release(p, token).await.expect("there"));
    assert!(row(&store, 0).await.released);
    let second = store.take(p, Epoch(1), Token::draw(), "b").await.expect("there").expect("free").row;
    assert!(second.released);
    let third = store.take(p, Epoch(2), Token::draw(), "c").await.expect("there").expect("free").row;
    assert!(!third.released, "the second taker did not release");
}

/// Only an owner may say that the next need not wait.
pub async fn release_needs_the_current_token(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let old = Owner::take(&store, [0]).await;
    let _new = Owner::take(&store, [0]).await;
    assert!(!store.release(PartitionId(0), old.token(0)).await.expect("there"));
    assert!(!store.release(PartitionId(0), Token::draw()).await.expect("there"));
    assert!(!row(&store, 0).await.released);
}

/// Whose lease a taker has to wait out: that of the last owner, if nobody raised the epoch after it began.
pub async fn taker_gets_the_last_beat_of_an_owner_that_had_begun(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let (p, run) = (PartitionId(0), Uuid::new_v4());
    let beat = |count| Beat { run, count };
    let take = async |epoch: u64, address: &str| {
        let token = Token::draw();
        (token, store.take(p, Epoch(epoch), token, address).await.expect("there").expect("free"))
    };
    store.beat("a", beat(1)).await.expect("there");
    let (token, taken) = take(0, "a").await;
    assert_eq!((taken.row.has_begun, taken.beat), (false, None), "nobody had it");
    assert!(!row(&store, 0).await.has_begun);
    let begun = store.acknowledge(p, token, Generation(1), None).await.expect("there").expect("ours");
    assert!(begun.has_begun && row(&store, 0).await.has_begun);
    store.beat("a", beat(2)).await.expect("there");
    let (_, taken) = take(1, "b").await;
    assert_eq!((taken.row.has_begun, taken.beat), (true, Some(beat(2))));
    assert!(!row(&store, 0).await.has_begun);
    store.beat("b", beat(3)).await.expect("there");
    let (token, taken) = take(2, "c").await;
    assert_eq!((taken.row.has_begun, taken.beat), (false, None), "a's lease may run, and b says nothing of it");
    store.acknowledge(p, token, Generation(1), None).await.expect("there").expect("ours");
    let (_, taken) = take(3, "d").await;
    assert_eq!((taken.row.has_begun, taken.beat), (true, None), "c was never heard of");
}

/// Every node hears every other.
pub async fn a_beat_is_answered_with_the_last_of_each_node(harness: &dyn StoreHarness) {
    let (store, other) = (registered(harness, 1).await, harness.connect().await);
    let run = Uuid::new_v4();
    let beat = |count| Beat { run, count };
    store.beat("a", beat(1)).await.expect("there");
    store.beat("a", beat(2)).await.expect("there");
    other.beat("b", beat(3)).await.expect("there");
    let said = store.beat("c", beat(4)).await.expect("there");
    assert_eq!((said.get("a"), said.get("b")), (Some(&beat(2)), Some(&beat(3))));
}

/// I5: of a take-over and a beat at the same time one is first, and the other knows of it. An owner whose
/// last beat the taker did not get may no longer find its old token.
pub async fn owner_with_a_beat_unknown_to_its_taker_finds_the_new_token(harness: &dyn StoreHarness) {
    let (store, other) = (registered(harness, 1).await, harness.connect().await);
    let (p, run, mut races) = (PartitionId(0), Uuid::new_v4(), [0, 0]);
    for round in 0..100_u64 {
        let token = Token::draw();
        store.beat("owner", Beat { run, count: 2 * round }).await.expect("there");
        store.take(p, Epoch(2 * round), token, "owner").await.expect("there").expect("free");
        store.acknowledge(p, token, Generation(1), None).await.expect("there").expect("ours");
        let (owner, last) = (Arc::clone(&store), Beat { run, count: 2 * round + 1 });
        let renewing = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_micros(200 * (round % 20))).await;
            owner.beat("owner", last).await.expect("there");
            owner.tokens(&[p]).await.expect("there")
        });
        tokio::time::sleep(Duration::from_millis(2)).await;
        let taken = other.take(p, Epoch(2 * round + 1), Token::draw(), "taker").await.expect("there").expect("free");
        let still_owned = renewing.await.expect("no panic") == [(p, Some(token))];
        let is_heard = taken.beat == Some(last);
        assert!(is_heard || !still_owned, "round {round}: renewed behind the taker's back");
        races[usize::from(is_heard)] += 1;
    }
    assert!(races.iter().all(|times| *times > 0), "no race: {races:?}");
}

/// What a lease is renewed by.
pub async fn tokens_are_those_of_the_last_takers(harness: &dyn StoreHarness) {
    let store = registered(harness, 3).await;
    let _old = Owner::take(&store, [0, 1]).await;
    let new = Owner::take(&store, [1]).await;
    let tokens = store.tokens(&[PartitionId(1), PartitionId(2)]).await.expect("there");
    let tokens: BTreeMap<_, _> = tokens.into_iter().collect();
    assert_eq!(tokens, BTreeMap::from([(PartitionId(1), Some(new.token(1))), (PartitionId(2), None)]));
}

/// I4: an owner that was replaced writes nothing at all.
pub async fn stale_token_commits_nothing(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut old = Owner::take(&store, [0]).await;
    let _new = Owner::take(&harness.connect().await, [0]).await;
    let before = row(&store, 0).await;
    let mut batch = old.batch(vec![entry(0, something("a"))]);
    batch.fences[0].consumed = vec![("t.commands".into(), 1)];
    let committed = old.commit_batch(&batch).await.expect("a stale fence is no error");
    assert_eq!((committed.stale, committed.granted), (vec![PartitionId(0)], vec![false]));
    assert!(committed.outbox.is_empty() && committed.heads.is_empty());
    assert_eq!(row(&store, 0).await, before);
    assert_no_trace(&store, "a", 0).await;
}

/// I4: nor one that routes by another partition count.
pub async fn stale_generation_commits_nothing(harness: &dyn StoreHarness) {
    if !harness.features().generations {
        return;
    }
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    harness.set_generation(Generation(2)).await;
    let committed = owner.commit(vec![entry(0, something("a"))]).await.expect("a stale fence is no error");
    assert_eq!(committed.stale, [PartitionId(0)]);
    assert_no_trace(&store, "a", 0).await;
    owner.set_generation(0, Generation(2));
    owner.write(0, something("a")).await;
}

/// I2: a commit that is executed blindly a second time has no second effect, not even one without a version.
pub async fn a_batch_number_used_before_commits_nothing(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0, 1]).await;
    let once = owner.batch(vec![entry(0, Writes { outbox: vec![draft("t", "k", "once")], ..Writes::default() })]);
    owner.commit_batch(&once).await.expect("sound");
    let committed = store.commit(&once).await.expect("a stale fence is no error");
    assert_eq!(committed.stale, [PartitionId(0)]);
    let mut ahead = owner.batch(vec![entry(1, Writes { outbox: vec![draft("t", "k", "x")], ..Writes::default() })]);
    ahead.fences[0].number += 1;
    let committed = store.commit(&ahead).await.expect("a stale fence is no error");
    assert_eq!(committed.stale, [PartitionId(1)]);
    assert_eq!((published(&store, 0).await, published(&store, 1).await), (vec!["once".into()], vec![]));
}

/// One lost partition costs a node nothing elsewhere.
pub async fn a_partially_stale_batch_commits_only_the_held_partitions(harness: &dyn StoreHarness) {
    let store = registered(harness, 3).await;
    let mut owner = Owner::take(&store, [0, 1, 2]).await;
    let _thief = Owner::take(&harness.connect().await, [1]).await;
    let stolen = row(&store, 1).await;
    let entries = vec![entry(0, something("a")), entry(1, something("b")), entry(2, something("c"))];
    let mut batch = owner.batch(entries);
    for fence in &mut batch.fences {
        fence.consumed = vec![("t.commands".into(), 5)];
    }
    let committed = owner.commit_batch(&batch).await.expect("sound");
    assert_eq!((committed.stale, committed.granted), (vec![PartitionId(1)], vec![true, false, true]));
    assert_eq!(committed.heads, BTreeMap::from([(PartitionId(0), 1), (PartitionId(2), 1)]));
    assert_eq!(committed.outbox.iter().map(|row| row.partition.0).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(row(&store, 1).await, stolen);
    for (key, partition, held) in [("a", 0, true), ("b", 1, false), ("c", 2, true)] {
        assert_eq!(stored(&store, key).await.is_some(), held, "{key}");
        assert_eq!(published(&store, partition).await.len(), usize::from(held), "{key}");
        assert_eq!(row(&store, partition).await.next_offset("t.commands").is_some(), held, "{key}");
    }
    let mail = store.due_mail(&everything(4), MailLimit::of(10)).await.expect("there");
    assert_eq!((mail.len(), store.due_timers(&everything(4), 10).await.expect("there").len()), (2, 2));
}

/// A commit that had not happened when its outcome was asked for never happens.
pub async fn retoken_settles_an_unknown_commit_for_good(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    owner.write(0, Writes { outbox: vec![draft("t", "k", "before")], ..Writes::default() }).await;
    let late = owner.batch(vec![entry(0, something("a"))]);
    let new = Token::draw();
    let settled = store.retoken(&[(PartitionId(0), owner.token(0), new)]).await.expect("there");
    assert_eq!(settled, BTreeMap::from([(PartitionId(0), 1)]), "the number of the batch before");
    let committed = harness.connect().await.commit(&late).await.expect("a stale fence is no error");
    assert_eq!(committed.stale, [PartitionId(0)]);
    assert_eq!(stored(&store, "a").await, None);
    owner.set_token(0, new);
    owner.write(0, something("a")).await;
    assert_eq!(published(&store, 0).await, ["before", "a"]);
    assert_eq!(row(&store, 0).await.batch, 2);
}

/// And one that had is known by its number.
pub async fn retoken_returns_the_number_of_a_commit_that_happened(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0, 1]).await;
    owner.write(1, something("x")).await;
    let batch = owner.batch(vec![entry(0, something("a")), entry(1, something("b"))]);
    store.commit(&batch).await.expect("sound");
    let changes: Vec<_> = batch.fences.iter().map(|fence| (fence.partition, fence.token, Token::draw())).collect();
    let settled = store.retoken(&changes).await.expect("there");
    assert_eq!(settled, batch.fences.iter().map(|fence| (fence.partition, fence.number)).collect());
    assert_eq!(row(&store, 1).await.token, Some(changes[1].2));
    assert_eq!(row(&store, 1).await.epoch, Epoch(1), "still the same term");
}

/// Who was replaced gets no answer, and harms nobody.
pub async fn retoken_touches_only_rows_that_still_have_the_old_token(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let owner = Owner::take(&store, [0, 1]).await;
    let mut thief = Owner::take(&store, [1]).await;
    let changes = [0, 1].map(|p| (PartitionId(p), owner.token(p), Token::draw()));
    let settled = store.retoken(&changes).await.expect("there");
    assert_eq!(settled.keys().copied().collect::<Vec<_>>(), [PartitionId(0)]);
    thief.write(1, something("a")).await;
}

/// Whatever the race, the number says whether the commit happened.
pub async fn retoken_racing_a_commit_agrees_with_its_outcome(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let (mut owner, other) = (Owner::take(&store, [0]).await, harness.connect().await);
    for round in 0..40_u64 {
        let batch = owner.batch(vec![entry(0, something(&format!("k{round}")))]);
        let (old, new, attempted) = (owner.token(0), Token::draw(), batch.fences[0].number);
        let commit = tokio::spawn(async move {
            let outcome = owner.commit_batch(&batch).await;
            (owner, outcome)
        });
        for _ in 0..round % 4 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_micros(100 * (round % 8))).await;
        let settled = other.retoken(&[(PartitionId(0), old, new)]).await.expect("there");
        let (mut again, outcome) = commit.await.expect("no panic");
        let happened = outcome.expect("sound").stale.is_empty();
        let number = settled[&PartitionId(0)];
        assert_eq!(number, if happened { attempted } else { attempted - 1 }, "round {round}");
        assert_eq!(stored(&store, &format!("k{round}")).await.is_some(), happened, "round {round}");
        assert_eq!(row(&store, 0).await.batch, number, "round {round}");
        again.set_token(0, new);
        owner = again;
    }
}

/// A transaction that holds the row may still commit, so the question waits for it.
pub async fn retoken_waits_for_whoever_holds_the_row(harness: &dyn StoreHarness) {
    if !harness.features().row_locks {
        return;
    }
    let store = registered(harness, 1).await;
    let owner = Owner::take(&store, [0]).await;
    let held = harness.hold_rows(&[PartitionId(0)]).await;
    let (asking, change) = (Arc::clone(&store), (PartitionId(0), owner.token(0), Token::draw()));
    let mut question = tokio::spawn(async move { asking.retoken(&[change]).await });
    assert!(timeout(Duration::from_millis(300), &mut question).await.is_err(), "it must wait");
    drop(held);
    let settled =
        timeout(Duration::from_secs(10), question).await.expect("free now").expect("no panic").expect("there");
    assert_eq!(settled, BTreeMap::from([(PartitionId(0), 0)]));
}

/// A stuck commit must not cost its node the lease, nor others their reads: not even where a taker waits
/// behind it.
pub async fn plain_reads_and_beats_wait_for_no_lock(harness: &dyn StoreHarness) {
    if !harness.features().row_locks {
        return;
    }
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    owner.write(0, something("a")).await;
    let held = harness.hold_rows(&[PartitionId(0)]).await;
    let (taking, other) = (row(&store, 0).await.epoch, harness.connect().await);
    let taker = tokio::spawn(async move { other.take(PartitionId(0), taking, Token::draw(), "x").await });
    let reads = async {
        store.beat("http://here", Beat { run: Uuid::new_v4(), count: 1 }).await.expect("there");
        store.tokens(&[PartitionId(0)]).await.expect("there");
        store.partitions().await.expect("there");
        store.outbox(PartitionId(0), 0, 10, usize::MAX).await.expect("there");
        found(&store, &["a"]).await;
        store.due_mail(&everything(1), MailLimit::of(10)).await.expect("there");
        store.due_timers(&everything(1), 10).await.expect("there");
    };
    timeout(Duration::from_secs(10), reads).await.expect("no read waits for the lock");
    assert!(!taker.is_finished(), "the lock held nobody up");
    drop(held);
    taker.await.expect("no panic").expect("there").expect("free");
}

/// I2, I3: rows of the old owner are there if it saw their commit acknowledged, else not, and the numbers
/// have no gap.
pub async fn a_take_over_amid_commits_loses_and_doubles_nothing(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut old = Owner::take(&store, [0]).await;
    let committing = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for n in 1..10_000 {
            let text = format!("old-{n}");
            let writes = Writes { outbox: vec![draft("t", "k", &text)], ..Writes::default() };
            match old.commit(vec![entry(0, writes)]).await {
                Ok(committed) if committed.stale.is_empty() => acknowledged.push(text),
                Ok(_) => return acknowledged,
                Err(CommitError::Unknown(_)) => panic!("nobody loses connections here"),
                Err(error) => panic!("{error}"),
            }
            if n % 8 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        panic!("never fenced");
    });
    tokio::time::sleep(Duration::from_millis(30)).await;
    let mut new = Owner::take(&harness.connect().await, [0]).await;
    new.write(0, Writes { outbox: vec![draft("t", "k", "new")], ..Writes::default() }).await;
    let mut expected = committing.await.expect("no panic");
    expected.push("new".into());
    assert_eq!(published(&store, 0).await, expected);
    let rows = store.outbox(PartitionId(0), 0, 20_000, usize::MAX).await.expect("there");
    assert!(rows.iter().zip(1..).all(|(row, n)| row.sequence == n), "numbered without gaps");
    assert_eq!(row(&store, 0).await.batch, expected.len() as u64);
}
