//! Laws of what one commit writes, and of what is found afterwards (I1, I2, I10).

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_core::{
    PartitionId,
    batch::{DeadLetter, StateWrite, ViewRow, ViewWrite, Writes},
    dedup::{Answer, Claim, ClaimKey, Rejection},
    disposition::DeadLetterReason,
    port::store::{CommitError, StateRow, Wanted},
};
use serde_json::json;
use uuid::Uuid;

use super::{StoreHarness, found, published, registered, row, stored};
use crate::sample::{self, Owner, claim, draft, entry, half, hash, id, known_claims, state};

/// Bytes are bytes, sources are kept, and numbers may be large.
pub async fn a_committed_state_is_found_as_it_was_written(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let sources = BTreeMap::from([("/inventory".to_owned(), 7), ("schlüssel 'x'".to_owned(), 1 << 40)]);
    let bytes = Bytes::from((0..=255).collect::<Vec<u8>>());
    let version = 1 << 40;
    let write = StateWrite { bytes: bytes.clone(), schema: 3, sources: sources.clone(), ..state("ä/b", 0, version) };
    owner.write(0, Writes { state: Some(write), ..Writes::default() }).await;
    let row = StateRow { version, revision: 1, schema: 3, bytes, sources };
    assert_eq!(stored(&store, "ä/b").await, Some(row));
    assert_eq!(stored(&harness.connect().await, "ä/b").await.map(|row| row.version), Some(version), "on any node");
}

/// Look-ups are answered by position.
pub async fn answers_come_in_the_order_asked(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    for key in ["a", "b", "c"] {
        owner.write(0, Writes { state: Some(state(key, 0, 1)), ..Writes::default() }).await;
    }
    let answer = found(&store, &["c", "none", "a", "b"]).await;
    let bodies: Vec<_> =
        answer.iter().map(|found| found.state.as_ref().expect("readable").as_ref().map(|row| &row.bytes[..])).collect();
    assert_eq!(bodies, [Some(&b"c@1"[..]), None, Some(&b"a@1"[..]), Some(&b"b@1"[..])]);
    assert_eq!(store.find(&[]).await, Ok(Vec::new()));
}

/// Version by version.
pub async fn state_is_replaced_under_its_expected_version(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    for (revision, (expected, version)) in [(0, 2), (2, 3), (3, 10), (10, 10)].into_iter().enumerate() {
        let write = StateWrite { revision: revision as u64, ..state("a", expected, version) };
        owner.write(0, Writes { state: Some(write), ..Writes::default() }).await;
        let row = stored(&store, "a").await.expect("written");
        assert_eq!((row.version, row.revision), (version, revision as u64 + 1));
    }
}

/// I10: and nothing means nothing, on any partition of the batch.
pub async fn version_conflict_writes_nothing(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0, 1]).await;
    owner.write(0, Writes { state: Some(state("a", 0, 2)), ..Writes::default() }).await;
    let once_more = StateWrite { revision: 1, ..state("no such", 0, 1) };
    owner.write(0, sample::claimed(state("no such", 0, 0), vec![claim(0)], 32)).await;
    owner
        .write(
            0,
            sample::claimed(StateWrite { sources: [("s".to_owned(), 1)].into(), ..once_more.clone() }, vec![], 32),
        )
        .await;
    let before = (row(&store, 0).await, row(&store, 1).await);
    let refused_before = StateWrite { revision: 2, ..state("a", 2, 3) };
    let wrong = [state("a", 0, 1), state("a", 1, 2), state("a", 3, 4), refused_before, once_more, state("none", 1, 2)];
    for (n, write) in wrong.into_iter().enumerate() {
        let outbox = vec![draft("t", "k", "x")];
        let neighbour = Writes { outbox, ..sample::claimed(state("neighbour", 0, 1), vec![claim(1), claim(1)], 1) };
        let keys: Vec<ClaimKey> = neighbour.claims.iter().map(|claim| claim.key).collect();
        let batch =
            owner.batch(vec![entry(0, Writes { state: Some(write), ..Writes::default() }), entry(1, neighbour)]);
        assert_eq!(owner.commit_batch(&batch).await, Err(CommitError::Conflict), "case {n}");
        assert_eq!((stored(&store, "neighbour").await, stored(&store, "none").await), (None, None), "case {n}");
        assert_eq!(stored(&store, "a").await.expect("kept").bytes, "a@2", "case {n}");
        assert_eq!(known_claims(&store, "neighbour", &keys).await, [None, None], "case {n}");
        assert_eq!((row(&store, 0).await, row(&store, 1).await), before, "case {n}");
        assert_eq!(published(&store, 1).await, [""; 0], "case {n}");
    }
}

/// I2: what a repeat is answered with, whether its claim stands in the ring or was pushed out.
pub async fn claims_are_found_with_their_answers(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let reply = Bytes::from_static(b"\x00reply\xff");
    let rejection = Rejection { code: "EMPTY_ORDER".into(), message: "nichts zu bestellen – ü".into() };
    let applied = || Claim { answer: Answer::Applied { version: 5, reply: reply.clone() }, ..claim(0) };
    let rejected = || Claim { answer: Answer::Rejected { version: 0, rejection: rejection.clone() }, ..claim(0) };
    let long = || Claim { answer: Answer::Applied { version: 6, reply: vec![7; 500].into() }, ..claim(0) };
    let claims = vec![applied(), rejected(), long(), claim(3), applied(), rejected(), long(), claim(4)];
    for (aggregate, max) in [("all", 32), ("last", 3), ("none", 0)] {
        owner.write(0, sample::claimed(state(aggregate, 0, 1), claims.clone(), max)).await;
        let stranger = ClaimKey { scope: claim(0).key.scope, ..claims[0].key };
        let keys: Vec<ClaimKey> = claims.iter().map(|claim| claim.key).chain([claim(0).key, stranger]).collect();
        let expected = claims.iter().cloned().map(half).map(Some).chain([None, None]);
        assert_eq!(
            known_claims(&store, aggregate, &keys).await,
            expected.collect::<Vec<_>>(),
            "{aggregate} in the ring"
        );
    }
}

/// Random, timed today, long ago or in the future; producers choose them.
pub async fn claims_are_found_whatever_their_ids(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let timed = |seconds| Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0));
    let ids = [
        Uuid::now_v7(),
        timed(1),
        timed(1_600_000_000),
        timed(9_000_000_000),
        Uuid::new_v4(),
        Uuid::nil(),
        Uuid::max(),
    ];
    let claims: Vec<Claim> =
        ids.iter().map(|id| Claim { key: ClaimKey { id: *id, ..claim(0).key }, ..claim(3) }).collect();
    owner.write(0, sample::claimed(state("a", 0, 1), claims.clone(), 0)).await;
    let keys: Vec<ClaimKey> = claims.iter().map(|claim| claim.key).collect();
    let expected: Vec<Option<Claim>> = claims.into_iter().map(half).map(Some).collect();
    assert_eq!(known_claims(&store, "a", &keys).await, expected);
    for (key, claim) in keys.iter().zip(expected) {
        assert_eq!(known_claims(&store, "a", &[*key]).await, [claim]);
    }
}

/// An aggregate that does not exist remembers what it has refused, and comes into being afterwards.
pub async fn refusals_alone_leave_a_row_with_their_claims(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let refused = || Claim { answer: Answer::Rejected { version: 0, rejection: rejection() }, ..claim(0) };
    let claims = [refused(), refused(), claim(1)];
    let mut keys = Vec::new();
    for (revision, (claim, version)) in claims.iter().zip([0, 0, 1]).enumerate() {
        let ring = sample::found(&store, "a", Vec::new()).await.ring;
        let write = StateWrite { revision: revision as u64, ring, ..state("a", 0, version) };
        owner.write(0, sample::claimed(write, vec![claim.clone()], 2)).await;
        keys.push(claim.key);
        let expected: Vec<_> = claims[..=revision].iter().cloned().map(half).map(Some).collect();
        assert_eq!(known_claims(&store, "a", &keys).await, expected, "after {} writes", revision + 1);
    }
    assert_eq!(stored(&store, "a").await.expect("written").version, 1);
}

fn rejection() -> Rejection {
    Rejection { code: "NO_SUCH_ORDER".into(), message: "there is no such order".into() }
}

/// And says so after later writes that push nothing out. Its claims are found without its row, too.
pub async fn an_aggregate_that_has_spilled_says_so(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let claims = vec![claim(1), claim(2)];
    owner.write(0, sample::claimed(state("a", 0, 1), claims.clone(), 1)).await;
    owner.write(0, Writes { state: Some(state("a", 1, 2)), ..Writes::default() }).await;
    assert!(sample::found(&store, "a", Vec::new()).await.has_spilled);
    let wanted = Wanted { state: false, claims: vec![claims[0].key], ..Wanted::state(id("a")) };
    let found = store.find(&[wanted]).await.expect("there").remove(0);
    let known = found.claims.into_iter().map(|claim| claim.expect("readable").map(half));
    assert_eq!(known.collect::<Vec<_>>(), [Some(half(claims[0].clone()))]);
    assert_eq!(found.state, Ok(None), "which was not asked for");
}

/// One bad value, found by the database alone, is reported as such and costs nothing else; so the batch can
/// be bisected.
pub async fn bad_data_refuses_the_whole_batch(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0, 1]).await;
    let before = (row(&store, 0).await, row(&store, 1).await);
    let good = || entry(0, Writes { state: Some(state("good", 0, 1)), ..Writes::default() });
    let bad = entry(1, Writes { state: Some(state("nul \0 in text", 0, 1)), ..Writes::default() });
    match owner.commit(vec![good(), bad]).await {
        Err(CommitError::Data { sqlstate, .. }) => {
            assert!(sqlstate.starts_with("22") || sqlstate.starts_with("23"), "SQLSTATE {sqlstate}");
        }
        other => panic!("expected a data error, got {other:?}"),
    }
    assert_eq!(stored(&store, "good").await, None);
    assert_eq!((row(&store, 0).await, row(&store, 1).await), before);
    owner.commit(vec![good()]).await.expect("alone it is sound");
    assert!(stored(&store, "good").await.is_some());
}

/// The last row counts.
pub async fn views_are_written_and_replaced(harness: &dyn StoreHarness) {
    if !harness.features().views {
        return;
    }
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    assert_eq!(harness.view(&id("a")).await, None);
    let first = json!({"status": "DRAFT", "lines": [{"sku": "ä", "n": 1}], "none": null});
    for row in [first, json!({"status": "PLACED"})] {
        let view = ViewWrite { id: id("a"), row: ViewRow::of(&row) };
        owner.write(0, Writes { view: Some(view), ..Writes::default() }).await;
        assert_eq!(harness.view(&id("a")).await, Some(row));
    }
}

/// With or without an aggregate.
pub async fn dead_letters_are_indexed(harness: &dyn StoreHarness) {
    if !harness.features().dead_letters {
        return;
    }
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let letters: Vec<DeadLetter> = [(None, DeadLetterReason::Undecodable), (Some(id("a")), DeadLetterReason::Poison)]
        .into_iter()
        .zip(40..)
        .map(|((aggregate, reason), offset)| DeadLetter {
            id: Uuid::now_v7(),
            aggregate,
            hash: hash("a"),
            topic: "t.commands".into(),
            partition: PartitionId(3),
            offset,
            reason,
            error: "header ce_id is missing".into(),
            attempts: 3,
        })
        .collect();
    for letter in &letters {
        let outbox = vec![draft("t.dlq", "a", "bytes")];
        owner.write(0, Writes { outbox, dead_letters: vec![letter.clone()], ..Writes::default() }).await;
    }
    assert_eq!(harness.dead_letters().await, letters);
}

/// A thousand aggregates at once, each with everything.
pub async fn a_batch_may_be_large(harness: &dyn StoreHarness) {
    const N: u32 = 1_000;
    let store = registered(harness, 4).await;
    let mut owner = Owner::take(&store, 0..4).await;
    let keys: Vec<String> = (0..N).map(|n| format!("k{n}")).collect();
    let full = |key: &str| Writes {
        outbox: vec![draft("t", key, key), draft("t", key, key)],
        timers: vec![sample::timer(key, "t", Some(std::time::Duration::from_hours(1)))],
        ..sample::claimed(state(key, 0, 1), vec![claim(1), claim(1)], 1)
    };
    let entries = keys.iter().zip(0..).map(|(key, n)| entry(n % 4, full(key))).collect();
    let committed = owner.commit(entries).await.expect("sound");
    assert_eq!((committed.outbox.len(), committed.granted.len()), (2 * N as usize, N as usize));
    for partition in 0..4 {
        assert_eq!(row(&store, partition).await.outbox_head, u64::from(N / 2));
        assert_eq!(published(&store, partition).await.len(), N as usize / 2);
    }
    let asked: Vec<&str> = keys.iter().map(String::as_str).collect();
    assert!(found(&store, &asked).await.iter().all(|found| found.state.as_ref().is_ok_and(Option::is_some)));
}
