//! Laws of narrowing: what can't be asked, read or filed for one key's sake costs the others nothing (I6,
//! I7).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_core::{
    Headers, PartitionId, Record, Timestamp,
    batch::{MailboxWrite, Unfiled, Writes},
    port::store::{MailLimit, Store, StoreError, UNREADABLE_HEADERS, Wanted},
};
use uuid::Uuid;

use super::{Damage, StoreHarness, eventually, found, registered};
use crate::sample::{self, Owner, claim, everything, id, mail, state, timer};

async fn single(harness: &dyn StoreHarness) -> (Arc<dyn Store>, Owner) {
    let store = registered(harness, 1).await;
    let owner = Owner::take(&store, [0]).await;
    (store, owner)
}

async fn mailed(store: &Arc<dyn Store>, limit: MailLimit) -> Vec<String> {
    let mail = store.due_mail(&everything(1), limit).await.expect("there");
    mail.iter().map(|mail| String::from_utf8_lossy(mail.record.value.as_deref().unwrap_or_default()).into()).collect()
}

/// So that the asker can split the question until the value stands alone.
pub async fn key_that_cannot_be_asked_is_named_as_data(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner.write(0, Writes { state: Some(state("a", 0, 1)), ..Writes::default() }).await;
    for key in ["\0", "\0x", "a\0"] {
        let refused = store.find(&[id("a"), id(key)].map(Wanted::state)).await;
        assert!(matches!(&refused, Err(StoreError::Data { sqlstate, .. }) if sqlstate == "22021"), "{refused:?}");
    }
    assert!(found(&store, &["a"]).await[0].state.as_ref().is_ok_and(Option::is_some), "and the store goes on");
}

/// A claim written by a newer build, or damaged.
pub async fn unreadable_claim_is_an_error_in_its_place(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    let claims = [claim(1), claim(2), claim(3)];
    owner.write(0, sample::claimed(state("a", 0, 1), claims.to_vec(), 0)).await;
    harness.damage(Damage::Claim(claims[1].key.id)).await;
    let answer = sample::found(&store, "a", claims.iter().map(|claim| claim.key).collect()).await;
    assert!(answer.state.as_ref().is_ok_and(Option::is_some));
    assert!(matches!(&answer.claims[..], [Ok(Some(_)), Err(_), Ok(Some(_))]), "{:?}", answer.claims);
}

/// And how many messages wait for it is known all the same.
pub async fn unreadable_state_is_an_error_in_its_place(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    for key in ["a", "b"] {
        let mailbox = vec![mail(key, "m", None)];
        owner.write(0, Writes { state: Some(state(key, 0, 1)), mailbox, ..Writes::default() }).await;
    }
    harness.damage(Damage::State(id("a"))).await;
    let answer = found(&store, &["a", "b"]).await;
    assert!(answer[0].state.is_err() && answer[1].state.as_ref().is_ok_and(Option::is_some), "{answer:?}");
    assert_eq!((answer[0].waiting, answer[1].waiting), (1, 1));
}

/// With all that its row holds, so that it can become a dead letter in its turn.
pub async fn unreadable_mail_is_an_error_in_its_place(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    let letters = vec![mail("a", "a1", None), mail("a", "a2", None), mail("b", "b1", None)];
    owner.write(0, Writes { mailbox: letters, ..Writes::default() }).await;
    harness.damage(Damage::MailReason(id("a"))).await;
    let due = store.due_mail(&everything(1), MailLimit::of(10)).await.expect("there");
    let read: Vec<_> = due.iter().map(|mail| (&*mail.key, mail.hash, mail.reason.is_ok())).collect();
    let hash = crate::sample::hash;
    assert_eq!(read, [("a", hash("a"), false), ("a", hash("a"), false), ("b", hash("b"), true)]);
    assert_eq!(due[0].record, crate::sample::record("a", due[0].record.offset, "a1"));
    if harness.damage(Damage::MailHeaders(id("b"))).await {
        let due = store.due_mail(&everything(1), MailLimit::of(10)).await.expect("there");
        assert!(due[2].reason.is_err());
        assert_eq!(due[2].record.headers.get(UNREADABLE_HEADERS), Some(&b"\x07"[..]), "the stored bytes are kept");
    }
}

/// A long mailbox, or one large message, must neither flood a node nor displace the others.
pub async fn due_mail_keeps_its_bytes(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    for key in ["a", "b", "c"] {
        let mailbox = (0..4).map(|n| mail(key, &format!("{key}{n}{}", "x".repeat(10_000)), None)).collect();
        owner.write(0, Writes { mailbox, ..Writes::default() }).await;
    }
    let all = MailLimit::of(100);
    let heads = |texts: Vec<String>| texts.iter().map(|text| text[..2].to_owned()).collect::<Vec<_>>();
    let one_each = heads(mailed(&store, MailLimit { bytes_each: 1, ..all }).await);
    assert_eq!(one_each, ["a0", "b0", "c0"], "the first of each, whatever its size");
    let by_rounds = heads(mailed(&store, MailLimit { bytes: 45_000, ..all }).await);
    assert_eq!(by_rounds, ["a0", "a1", "b0", "b1", "c0"], "every head before any second");
    assert_eq!(heads(mailed(&store, MailLimit { bytes: 1, ..all }).await), ["a0"], "one always");
    assert_eq!(heads(mailed(&store, MailLimit { messages: 4, ..all }).await), ["a0", "a1", "b0", "c0"]);
    assert_eq!(mailed(&store, all).await.len(), 12);
}

/// So that timers of an older or newer build don't stand before the others for ever.
pub async fn timers_put_off_are_due_later(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    let set = |key, name| timer(key, name, Some(Duration::ZERO));
    let timers = vec![set("a", "strange"), set("b", "known")];
    owner.write(0, Writes { timers, ..Writes::default() }).await;
    let due = || async { store.due_timers(&everything(1), 10).await.expect("there") };
    let strange: Vec<_> = due().await.into_iter().filter(|timer| timer.name == "strange").collect();
    assert_eq!(strange.len(), 1);
    for _ in 0..2 {
        store.put_off_timers(&strange).await.expect("there");
        assert_eq!(due().await.iter().map(|timer| timer.name.as_str()).collect::<Vec<_>>(), ["known"]);
    }
    eventually("the timer falls due again", || async { due().await.len() == 2 }).await;
}

/// I7: the last resort refuses nothing: no text is checked, no number is too large, and the offset is
/// consumed with it.
pub async fn unfiled_record_is_kept_whatever_it_holds(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    let position = {
        owner.write(0, Writes { mailbox: vec![mail("a", "m", None)], ..Writes::default() }).await;
        store.due_mail(&everything(1), MailLimit::of(1)).await.expect("there")[0].position
    };
    let record = Record {
        topic: "t\0.commands".into(),
        partition: PartitionId(u32::MAX),
        offset: u64::MAX,
        timestamp: Some(Timestamp::from_unix_ms(i64::MIN)),
        key: Some(Bytes::from_static(b"\0\xff")),
        headers: Headers(vec![("\0".into(), None), ("ce_id".into(), Some(Bytes::from_static(b"\xff\0")))]),
        value: None,
    };
    let row = Unfiled { id: Uuid::now_v7(), error: "22021: a NUL: \0".into(), record };
    let mailbox = vec![MailboxWrite::Remove { position }];
    owner.write(0, Writes { unfiled: vec![row.clone()], mailbox, ..Writes::default() }).await;
    assert_eq!(harness.unfiled().await, [row]);
    assert_eq!(found(&store, &["a"]).await[0].waiting, 0);
}
