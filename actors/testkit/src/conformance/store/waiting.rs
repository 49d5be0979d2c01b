//! Laws of what waits in the store: timers and the durable mailbox (I3, I7).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_core::{
    Headers, PartitionId, Record, Timestamp,
    batch::{MailboxWrite, TimerWrite, Writes},
    disposition::WaitReason,
    port::store::{MailLimit, Slice, Store, Waiting},
};

use super::{StoreHarness, eventually, found, registered};
use crate::sample::{Owner, entry, everything, hash, id, mail, record, timer};

const HOUR: Duration = Duration::from_hours(1);
const SOON: Duration = Duration::from_millis(150);

async fn due_timers(store: &Arc<dyn Store>) -> Vec<String> {
    let due = store.due_timers(&everything(1), 100).await.expect("there");
    due.iter().map(|timer| format!("{}/{}", timer.key, timer.name)).collect()
}

async fn due_mail(store: &Arc<dyn Store>) -> Vec<Waiting> {
    store.due_mail(&everything(1), MailLimit::of(100)).await.expect("there")
}

fn texts(mail: &[Waiting]) -> Vec<String> {
    mail.iter().map(|mail| String::from_utf8_lossy(mail.record.value.as_deref().unwrap_or_default()).into()).collect()
}

fn timers(list: &[(&str, &str, Option<Duration>)]) -> Writes {
    Writes { timers: list.iter().map(|(key, name, after)| timer(key, name, *after)).collect(), ..Writes::default() }
}

fn letters(mailbox: Vec<MailboxWrite>) -> Writes {
    Writes { mailbox, ..Writes::default() }
}

fn remove(position: i64) -> MailboxWrite {
    MailboxWrite::Remove { position }
}

async fn single(harness: &dyn StoreHarness) -> (Arc<dyn Store>, Owner) {
    let store = registered(harness, 1).await;
    let owner = Owner::take(&store, [0]).await;
    (store, owner)
}

/// A timer falls due by the store's clock, and stays due until its owner removes it.
pub async fn a_timer_is_due_after_its_delay_and_not_before(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner
        .write(0, timers(&[("a", "now", Some(Duration::ZERO)), ("a", "soon", Some(SOON)), ("a", "late", Some(HOUR))]))
        .await;
    let due = store.due_timers(&everything(1), 100).await.expect("there");
    assert_eq!(due.iter().map(|timer| timer.kind.as_str()).collect::<Vec<_>>(), [crate::sample::KIND]);
    assert_eq!(due_timers(&store).await, ["a/now"]);
    eventually("the timer falls due", || async { due_timers(&store).await == ["a/now", "a/soon"] }).await;
    owner.write(0, timers(&[("a", "now", None)])).await;
    assert_eq!(due_timers(&store).await, ["a/soon"]);
}

/// A name is one timer of its aggregate.
pub async fn timer_set_again_replaces(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner.write(0, timers(&[("a", "t", Some(Duration::ZERO)), ("b", "t", Some(HOUR)), ("b", "u", Some(HOUR))])).await;
    owner.write(0, timers(&[("a", "t", Some(HOUR))])).await;
    assert_eq!(due_timers(&store).await, [""; 0]);
    owner.write(0, timers(&[("b", "t", Some(Duration::ZERO))])).await;
    assert_eq!(due_timers(&store).await, ["b/t"]);
}

/// And cancelling none is fine.
pub async fn a_cancelled_timer_is_gone(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner.write(0, timers(&[("a", "t", Some(Duration::ZERO)), ("a", "u", Some(Duration::ZERO))])).await;
    owner.write(0, timers(&[("a", "t", None), ("a", "none", None), ("b", "t", None)])).await;
    assert_eq!(due_timers(&store).await, ["a/u"]);
}

async fn serials(store: &Arc<dyn Store>) -> Vec<i64> {
    store.due_timers(&everything(1), 100).await.expect("there").iter().map(|timer| timer.serial).collect()
}

/// What the firing of the setting `serial` of timer `t` of `a` has written.
fn fired(serial: i64, after: Option<Duration>) -> Writes {
    Writes { timers: vec![TimerWrite { serial: Some(serial), ..timer("a", "t", after) }], ..Writes::default() }
}

/// A timer set again is another setting, which the firing of the older one does not remove.
pub async fn firing_removes_its_own_setting_alone(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    let set = || timers(&[("a", "t", Some(Duration::ZERO))]);
    owner.write(0, set()).await;
    let old = serials(&store).await[0];
    owner.write(0, set()).await;
    let new = serials(&store).await[0];
    assert_ne!(old, new);
    owner.write(0, fired(old, None)).await;
    assert_eq!(serials(&store).await, [new]);
    owner.write(0, fired(new, None)).await;
    assert_eq!(serials(&store).await, [0; 0]);
    owner.write(0, set()).await;
    assert!(![old, new].contains(&serials(&store).await[0]), "a number is used once");
}

/// A firing that failed is due again as the same setting, and does not move a newer one, nor bring back one
/// that is gone.
pub async fn firing_puts_off_its_own_setting_alone(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner.write(0, timers(&[("a", "t", Some(Duration::ZERO))])).await;
    let old = serials(&store).await[0];
    owner.write(0, fired(old, Some(HOUR))).await;
    assert_eq!(serials(&store).await, [0; 0]);
    owner.write(0, fired(old, Some(Duration::ZERO))).await;
    assert_eq!(serials(&store).await, [old]);
    owner.write(0, timers(&[("a", "t", Some(Duration::ZERO))])).await;
    let new = serials(&store).await;
    owner.write(0, fired(old, Some(HOUR))).await;
    assert_eq!(serials(&store).await, new);
    owner.write(0, timers(&[("a", "t", None)])).await;
    owner.write(0, fired(new[0], Some(Duration::ZERO))).await;
    assert_eq!(serials(&store).await, [0; 0]);
}

/// Whether they stand in one entry or in several.
pub async fn timer_changes_of_one_batch_take_effect_in_order(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    const NOW: Option<Duration> = Some(Duration::ZERO);
    // The changes after which the stored setting is the old one, another one, or none.
    type Case = (&'static str, fn(i64) -> Vec<Writes>);
    let cases: [Case; 8] = [
        ("none", |old| vec![timers(&[("a", "t", NOW)]), timers(&[("a", "t", None)]), fired(old, NOW)]),
        ("none", |old| vec![fired(old, None), fired(old, NOW)]),
        ("none", |old| vec![fired(old, NOW), fired(old, None)]),
        ("old", |old| vec![fired(old, Some(HOUR)), fired(old + 1_000, None), fired(old, NOW)]),
        ("old", |old| vec![fired(old + 1_000, Some(HOUR))]),
        ("new", |old| vec![fired(old, None), timers(&[("a", "t", NOW)])]),
        ("new", |old| vec![timers(&[("a", "t", NOW)]), fired(old, None)]),
        ("new", |old| vec![timers(&[("a", "t", NOW)]), fired(old, Some(HOUR))]),
    ];
    for (case, (left, changes)) in cases.into_iter().enumerate() {
        for split in [true, false] {
            owner.write(0, timers(&[("a", "t", NOW)])).await;
            let old = serials(&store).await[0];
            let changes = changes(old);
            let entries = if split {
                changes.into_iter().map(|writes| entry(0, writes)).collect()
            } else {
                let timers = changes.into_iter().flat_map(|writes| writes.timers).collect();
                vec![entry(0, Writes { timers, ..Writes::default() })]
            };
            owner.commit(entries).await.expect("sound");
            let found = match serials(&store).await[..] {
                [] => "none",
                [serial] if serial == old => "old",
                _ => "new",
            };
            assert_eq!(found, left, "case {case}, split {split}");
        }
    }
}

/// So that none starves.
pub async fn due_timers_come_oldest_first_up_to_a_limit(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    for key in ["c", "a", "d", "b"] {
        owner.write(0, timers(&[(key, "t", Some(Duration::ZERO))])).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(due_timers(&store).await, ["c/t", "a/t", "d/t", "b/t"]);
    let due = store.due_timers(&everything(1), 2).await.expect("there");
    assert_eq!(due.iter().map(|timer| &*timer.key).collect::<Vec<_>>(), ["c", "a"]);
}

/// Not by who wrote them: nothing is rewritten when the count grows.
pub async fn timers_are_found_by_the_home_of_their_key(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    let keys: Vec<String> = (0..40).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        owner.write(0, timers(&[(key, "t", Some(Duration::ZERO))])).await;
    }
    for count in [1, 3, 12] {
        let slice = Slice { partitions: vec![PartitionId(0), PartitionId(2)], count };
        let due = store.due_timers(&slice, 100).await.expect("there");
        let mut names: Vec<&str> = due.iter().map(|timer| &*timer.key).collect();
        let mut expected: Vec<&str> =
            keys.iter().filter(|key| [0, 2].contains(&hash(key).home(count).0)).map(String::as_str).collect();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected, "of {count}");
    }
}

/// Whatever a stranger sent.
pub async fn waiting_messages_come_back_as_they_were_put(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    let full = record("a", 77, "x");
    let bare = Record {
        timestamp: None,
        headers: Headers::default(),
        value: None,
        key: Some(Bytes::from_static(b"a")),
        partition: PartitionId(9),
        offset: 1 << 40,
        topic: "other.events".into(),
    };
    let put = |record: &Record, attempts, reason| MailboxWrite::Put {
        id: id("a"),
        hash: hash("a"),
        reason,
        attempts,
        after: None,
        since: Timestamp::from_unix_ms(1_700_000_000_789),
        error: "ä: failed".into(),
        record: record.clone(),
    };
    owner.write(0, letters(vec![put(&full, 2, WaitReason::Retrying), put(&bare, 0, WaitReason::Downstream)])).await;
    let mail = due_mail(&store).await;
    assert_eq!(mail.len(), 2);
    for (mail, (record, attempts, reason)) in
        mail.iter().zip([(full, 2, WaitReason::Retrying), (bare, 0, WaitReason::Downstream)])
    {
        assert_eq!(
            (mail.kind.as_str(), mail.reason.clone(), mail.attempts),
            (crate::sample::KIND, Ok(reason), attempts)
        );
        assert_eq!((mail.since.unix_ms(), mail.error.as_str()), (1_700_000_000_789, "ä: failed"));
        assert_eq!(mail.record, record);
    }
}

/// I3: nothing that follows a waiting message overtakes it.
pub async fn waiting_messages_keep_commit_order_and_only_the_head_is_due(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner.write(0, letters(vec![mail("a", "a1", Some(HOUR))])).await;
    owner.write(0, letters(vec![mail("b", "b1", Some(Duration::ZERO)), mail("b", "b2", None)])).await;
    owner.write(0, letters(vec![mail("a", "a2", None), mail("b", "b3", None)])).await;
    let due = due_mail(&store).await;
    assert_eq!(texts(&due), ["b1", "b2", "b3"], "the head of a waits, so a waits");
    assert!(due.is_sorted_by_key(|mail| mail.position));
    owner.write(0, letters(vec![mail("c", "c1", Some(SOON)), mail("c", "c2", None)])).await;
    assert_eq!(texts(&due_mail(&store).await), ["b1", "b2", "b3"]);
    eventually("the head falls due", || async { texts(&due_mail(&store).await) == ["b1", "b2", "b3", "c1", "c2"] })
        .await;
}

/// The message behind a removed head becomes the head (I7).
pub async fn removing_the_head_makes_the_next_due(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner
        .write(0, letters(vec![mail("a", "a1", Some(Duration::ZERO)), mail("a", "a2", None), mail("a", "a3", None)]))
        .await;
    owner.write(0, letters(vec![mail("b", "b1", Some(HOUR)), mail("b", "b2", None)])).await;
    for expected in [&["a1", "a2", "a3"][..], &["a2", "a3"], &["a3"]] {
        let due = due_mail(&store).await;
        assert_eq!(texts(&due), expected);
        owner.write(0, letters(vec![remove(due[0].position)])).await;
    }
    assert_eq!(texts(&due_mail(&store).await), [""; 0], "and nobody else's");
    assert_eq!(found(&store, &["a", "b"]).await.iter().map(|found| found.waiting).collect::<Vec<_>>(), [0, 2]);
}

/// I7: or it would wait for a head that is gone.
pub async fn a_message_put_while_its_head_is_removed_is_due(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner.write(0, letters(vec![mail("a", "a1", Some(Duration::ZERO)), mail("b", "b1", Some(Duration::ZERO))])).await;
    let due = due_mail(&store).await;
    owner.write(0, letters(vec![remove(due[0].position), mail("a", "a2", None)])).await;
    owner.write(0, letters(vec![mail("b", "b2", None), remove(due[1].position)])).await;
    assert_eq!(texts(&due_mail(&store).await), ["a2", "b2"]);
}

/// What is said of it outweighs that it comes up.
pub async fn a_message_deferred_while_its_head_is_removed_stays_deferred(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner
        .write(0, letters(vec![mail("a", "a1", Some(Duration::ZERO)), mail("a", "a2", None), mail("a", "a3", None)]))
        .await;
    let due = due_mail(&store).await;
    let defer = MailboxWrite::Defer {
        position: due[1].position,
        reason: WaitReason::Retrying,
        attempts: 1,
        after: HOUR,
        error: "failed".into(),
    };
    owner.write(0, letters(vec![defer, remove(due[0].position)])).await;
    assert_eq!(texts(&due_mail(&store).await), [""; 0]);
    assert_eq!(found(&store, &["a"]).await[0].waiting, 2);
}

/// I6: another failure, another wait, for one aggregate.
pub async fn a_deferred_head_holds_its_aggregate_back_and_nobody_else(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner
        .write(0, letters(vec![mail("a", "a1", Some(Duration::ZERO)), mail("a", "a2", None), mail("b", "b1", None)]))
        .await;
    let position = due_mail(&store).await[0].position;
    let defer = |after| MailboxWrite::Defer {
        position,
        reason: WaitReason::Downstream,
        attempts: 2,
        after,
        error: "again".into(),
    };
    owner.write(0, letters(vec![defer(HOUR)])).await;
    assert_eq!(texts(&due_mail(&store).await), ["b1"]);
    owner.write(0, letters(vec![defer(Duration::ZERO)])).await;
    let due = due_mail(&store).await;
    assert_eq!(texts(&due), ["a1", "a2", "b1"]);
    assert_eq!(
        (due[0].reason.clone(), due[0].attempts, due[0].error.as_str()),
        (Ok(WaitReason::Downstream), 2, "again")
    );
    assert_eq!(due[0].since.unix_ms(), 1_700_000_000_456, "since when it waits doesn't change");
}

/// What an activation must know.
pub async fn found_counts_waiting_messages(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    let state = Some(crate::sample::state("a", 0, 1));
    let mailbox = vec![mail("a", "a1", Some(HOUR)), mail("a", "a2", None), mail("b", "b1", None)];
    owner.write(0, Writes { state, mailbox, ..Writes::default() }).await;
    let counts: Vec<_> = found(&store, &["a", "b", "c"])
        .await
        .iter()
        .map(|found| (found.state.as_ref().is_ok_and(Option::is_some), found.waiting))
        .collect();
    assert_eq!(counts, [(true, 2), (false, 1), (false, 0)]);
}

/// A long mailbox or many must not flood a node.
pub async fn due_mail_keeps_its_limits(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    for key in ["a", "b", "c"] {
        let mailbox = (0..4).map(|n| mail(key, &format!("{key}{n}"), None)).collect();
        owner.write(0, letters(mailbox)).await;
    }
    let due = store.due_mail(&everything(1), MailLimit::of(2)).await.expect("there");
    assert_eq!(texts(&due), ["a0", "a1", "b0", "b1"]);
}

/// As timers are.
pub async fn mail_is_found_by_the_home_of_its_key(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    let keys: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        owner.write(0, letters(vec![mail(key, key, None)])).await;
    }
    for count in [1, 4] {
        let slice = Slice { partitions: vec![PartitionId(0), PartitionId(3)], count };
        let expected: Vec<&str> =
            keys.iter().filter(|key| [0, 3].contains(&hash(key).home(count).0)).map(String::as_str).collect();
        assert_eq!(texts(&store.due_mail(&slice, MailLimit::of(100)).await.expect("there")), expected, "of {count}");
        let waiting = store.mail_waiting(&slice).await.expect("there");
        assert_eq!(waiting.values().sum::<u64>(), expected.len() as u64, "of {count}");
        assert!(waiting.keys().all(|partition| slice.partitions.contains(partition)));
    }
}
