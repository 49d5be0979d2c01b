//! Laws of stuck outbox records (I3, I7): a row leaves the order with the cursor or not at all, queues keep
//! their order.

use std::sync::Arc;

use holdfast_core::{
    PartitionId,
    batch::{OutboxRow, Writes},
    epoch::Token,
    port::store::{Slice, Store},
    stuck::{Queue, Release, SetAside, Stuck, hash_of},
};

use super::{StoreHarness, registered, row};
use crate::sample::{Owner, draft, entry, everything, hash};

const P: PartitionId = PartitionId(0);

fn records(list: &[(&str, &str)]) -> Writes {
    Writes { outbox: list.iter().map(|(key, text)| draft("t.events", key, text)).collect(), ..Writes::default() }
}

fn aside(row: &OutboxRow, attempts: u32) -> SetAside {
    SetAside {
        sequence: row.sequence,
        queue: Queue::of(&row.draft),
        hash: hash_of(&row.draft),
        attempts,
        error: "too large".into(),
    }
}

async fn released(store: &Arc<dyn Store>, slice: &Slice) -> Vec<Stuck> {
    store.released(slice, 100).await.expect("there")
}

fn sequences(stuck: &[Stuck]) -> Vec<u64> {
    stuck.iter().map(|stuck| stuck.row.sequence).collect()
}

/// I11: what a relay reads is bounded in bytes, and one row always comes.
pub async fn outbox_is_read_up_to_so_many_bytes(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let text = "x".repeat(1000);
    owner.write(0, records(&[("a", &text), ("b", &text), ("c", &text), ("d", &text)])).await;
    for (bytes, expected) in [(0, 1), (1, 1), (1000, 1), (1500, 2), (3000, 3), (100_000, 4), (usize::MAX, 4)] {
        let rows = store.outbox(P, 0, 100, bytes).await.expect("there");
        assert_eq!(rows.len(), expected, "{bytes} bytes");
    }
    assert_eq!(store.outbox(P, 2, 1, 100_000).await.expect("there").len(), 1);
}

/// In one statement.
pub async fn rows_are_set_aside_with_the_cursor(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let rows = owner.write(0, records(&[("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")])).await.outbox;
    assert_eq!(store.stuck().await, Ok([].into()));
    let done = store.set_aside(P, owner.token(0), &[aside(&rows[0], 1), aside(&rows[1], 0)]).await;
    assert_eq!((done, row(&store, 0).await.outbox_cursor), (Ok(true), 2));
    // The answer was lost, and it is asked again.
    let again = store.set_aside(P, owner.token(0), &[aside(&rows[0], 1), aside(&rows[1], 0)]).await;
    assert_eq!((again, row(&store, 0).await.outbox_cursor), (Ok(true), 2));
    assert_eq!(store.stuck().await, Ok([(Queue::of(&rows[0].draft), 2)].into()));
    // A cursor passes nothing that was not copied.
    let never = SetAside { sequence: 9, ..aside(&rows[3], 1) };
    store.set_aside(P, owner.token(0), &[aside(&rows[2], 1), never]).await.expect_err("there is no such row");
    assert_eq!(row(&store, 0).await.outbox_cursor, 2);
    assert_eq!(store.stuck().await, Ok([(Queue::of(&rows[0].draft), 2)].into()));
    store.set_aside(P, owner.token(0), &[aside(&rows[2], 1)]).await.expect("there");
    assert_eq!(store.stuck().await.expect("there").len(), 2);
}

/// I4.
pub async fn setting_aside_needs_the_current_token(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut old = Owner::take(&store, [0]).await;
    let rows = old.write(0, records(&[("a", "1")])).await.outbox;
    let new = Owner::take(&store, [0]).await;
    for token in [old.token(0), Token::draw()] {
        assert_eq!(store.set_aside(P, token, &[aside(&rows[0], 1)]).await, Ok(false));
    }
    assert_eq!((row(&store, 0).await.outbox_cursor, store.stuck().await), (0, Ok([].into())));
    assert_eq!(store.set_aside(P, new.token(0), &[aside(&rows[0], 1)]).await, Ok(true));
}

/// A record that only queues goes once nothing is before it; one that was refused does not.
pub async fn stuck_queues_are_released_in_order(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let rows = owner.write(0, records(&[("a", "1"), ("b", "2"), ("a", "3"), ("b", "4"), ("a", "5")])).await.outbox;
    let all: Vec<SetAside> = rows.iter().map(|row| aside(row, u32::from(row.sequence == 1))).collect();
    store.set_aside(P, owner.token(0), &all).await.expect("there");
    let first = released(&store, &everything(1)).await;
    assert_eq!(sequences(&first), [2], "b's first; a's first was refused");
    assert_eq!(first[0].row, rows[1]);
    let token = owner.token(0);
    assert_eq!(store.end_release(P, token, first[0].position, &Release::Done).await, Ok(true));
    assert_eq!(store.end_release(P, token, first[0].position, &Release::Done).await, Ok(true), "ended already");
    let second = released(&store, &everything(1)).await;
    assert_eq!(sequences(&second), [4]);
    store.end_release(P, token, second[0].position, &Release::Refused("again".into())).await.expect("there");
    assert_eq!(sequences(&released(&store, &everything(1)).await), [] as [u64; 0]);
    assert_eq!(store.stuck().await.expect("there").values().copied().collect::<Vec<_>>().iter().sum::<u64>(), 4);
}

/// I4.
pub async fn ending_a_release_needs_the_current_token(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut old = Owner::take(&store, [0]).await;
    let rows = old.write(0, records(&[("a", "1")])).await.outbox;
    store.set_aside(P, old.token(0), &[aside(&rows[0], 0)]).await.expect("there");
    let position = released(&store, &everything(1)).await[0].position;
    let _new = Owner::take(&store, [0]).await;
    for end in [Release::Done, Release::Refused("again".into())] {
        assert_eq!(store.end_release(P, old.token(0), position, &end).await, Ok(false));
    }
    assert_eq!(sequences(&released(&store, &everything(1)).await), [1]);
}

/// The count of the look-up decides, not the partition that set the records aside.
pub async fn stuck_records_are_found_by_the_home_of_their_key(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let mut owner = Owner::take(&store, [0]).await;
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let list: Vec<(&str, &str)> = keys.iter().map(|key| (*key, *key)).collect();
    let mut entries = vec![entry(0, records(&list))];
    let mut keyless = draft("t.dlq", "", "keyless");
    keyless.key = None;
    entries.push(entry(0, Writes { outbox: vec![keyless], ..Writes::default() }));
    let rows = owner.commit(entries).await.expect("sound").outbox;
    let all: Vec<SetAside> = rows.iter().map(|row| aside(row, 0)).collect();
    store.set_aside(P, owner.token(0), &all).await.expect("there");
    for count in [1, 3] {
        let mut found = 0;
        for partition in (0..count).map(PartitionId) {
            let stuck = released(&store, &Slice { partitions: vec![partition], count }).await;
            for stuck in &stuck {
                let key = String::from_utf8_lossy(stuck.row.draft.key.as_deref().unwrap_or_default()).into_owned();
                assert_eq!((stuck.hash, hash(&key).home(count)), (hash(&key), partition), "{key} of {count}");
            }
            found += stuck.len();
        }
        assert_eq!(found, keys.len() + 1);
    }
    assert_eq!(released(&store, &Slice { partitions: vec![], count: 1 }).await, []);
    assert_eq!(store.released(&everything(1), 2).await.expect("there").len(), 2);
}
