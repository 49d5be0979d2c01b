//! Laws of counts, generations and acknowledgements (I3, I4).

use std::{collections::BTreeSet, sync::Arc};

use holdfast_core::{
    PartitionId,
    epoch::{Generation, Token},
    growth::{Counts, Growth},
    port::store::Store,
};

use super::{StoreHarness, published, registered, row};
use crate::sample::{Owner, draft, entry};

const TOPIC: &str = "t.commands";

async fn growth(store: &Arc<dyn Store>) -> Growth {
    store.growth().await.expect("there")
}

async fn counts(store: &Arc<dyn Store>) -> Counts {
    growth(store).await.topics.remove(TOPIC).expect("noted")
}

async fn note(store: &Arc<dyn Store>, count: u32) {
    store.note_count(TOPIC, count).await.expect("there");
}

/// What is seen first is no growth.
pub async fn a_first_count_opens_no_transition_and_each_larger_one_does(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    note(&store, 2).await;
    assert_eq!(counts(&store).await, Counts { first: 2, steps: Vec::new() });
    note(&store, 4).await;
    note(&store, 8).await;
    let found = counts(&store).await;
    assert_eq!((found.first, found.oldest_in_transition(), found.count()), (2, Some(2), 8));
    assert_eq!(found.steps.iter().map(|step| step.count).collect::<Vec<_>>(), [4, 8]);
    assert!(found.steps.iter().all(|step| step.ends.is_empty() && step.marked.is_empty() && !step.ended));
}

/// Stale metadata tells an older count.
pub async fn a_count_that_is_not_above_the_newest_changes_nothing(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    for count in [2, 4, 4, 3, 2] {
        note(&store, count).await;
    }
    let found = counts(&store).await;
    assert_eq!((found.first, found.steps.len(), found.count()), (2, 1, 4));
}

/// Without a row nothing is read, so the row comes with what makes its readers wait.
pub async fn new_partition_gets_row_with_transition_in_current_generation(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    note(&store, 2).await;
    store.bump(Generation(1), 2).await.expect("there");
    note(&store, 5).await;
    let growth = growth(&store).await;
    let rows: Vec<_> = growth.rows.iter().map(|row| (row.partition.0, row.generation, row.released)).collect();
    assert_eq!(rows, (0..5).map(|partition| (partition, Generation(2), true)).collect::<Vec<_>>());
}

/// Every node may try.
pub async fn a_generation_is_put_on_all_rows_at_once_and_only_once(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0]).await;
    let others: Vec<_> = [harness.connect().await, harness.connect().await, harness.connect().await].into();
    let bumps = others.iter().map(|store| store.bump(Generation(1), 4));
    for bump in futures::future::join_all(bumps).await {
        bump.expect("there");
    }
    let growth = growth(&store).await;
    assert_eq!(growth.current(), (Generation(2), 4));
    assert_eq!(growth.count_of(Generation(1)), Some(2));
    assert_eq!(growth.rows.iter().map(|row| row.generation).collect::<Vec<_>>(), [Generation(2); 4]);
    let stale = owner.commit(vec![entry(0, holdfast_core::batch::Writes::default())]).await.expect("there").stale;
    assert_eq!(stale, [PartitionId(0)], "the older generation commits nothing");
}

/// The head is where the older generation's rows end; what other contexts wait for stands there.
pub async fn generation_is_acknowledged_once_with_its_mark_as_last_row(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    let mut owner = Owner::take(&store, [0]).await;
    let writes = holdfast_core::batch::Writes { outbox: vec![draft("t.events", "a", "event")], ..Default::default() };
    owner.write(0, writes).await;
    store.bump(Generation(1), 4).await.expect("there");
    let token = row(&store, 0).await.token.expect("taken");
    let acknowledge = |mark: &str| {
        let mark = draft("t.events", "a", mark);
        store.acknowledge(PartitionId(0), token, Generation(2), Some(mark))
    };
    let found = acknowledge("mark").await.expect("there").expect("ours");
    assert_eq!((found.outbox_head, found.generation), (2, Generation(2)));
    assert_eq!(found, row(&store, 0).await);
    let again = acknowledge("again").await.expect("there").expect("ours");
    assert_eq!(again.outbox_head, 2);
    assert_eq!(published(&store, 0).await, ["event", "mark"]);
    let key = (PartitionId(0), Generation(2));
    assert_eq!(growth(&store).await.acknowledged.get(&key), Some(&2));
}

/// Who was overtaken, by an owner or by a generation, has nothing to say.
pub async fn an_acknowledgement_needs_the_current_token_and_generation(harness: &dyn StoreHarness) {
    let store = registered(harness, 1).await;
    let _owner = Owner::take(&store, [0]).await;
    let token = row(&store, 0).await.token.expect("taken");
    store.bump(Generation(1), 2).await.expect("there");
    let before = growth(&store).await;
    for (token, generation) in [(Token::draw(), Generation(2)), (token, Generation(1)), (token, Generation(3))] {
        let mark = Some(draft("t.events", "a", "mark"));
        let found = store.acknowledge(PartitionId(0), token, generation, mark).await.expect("there");
        assert_eq!(found, None);
    }
    assert_eq!(growth(&store).await, before);
    assert_eq!(published(&store, 0).await, [""; 0]);
}

/// Another context may move before its topic's growth is noticed here.
pub async fn a_mark_counts_for_every_step_up_to_it_noticed_or_not(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    note(&store, 2).await;
    store.note_mark(TOPIC, PartitionId(1), 4).await.expect("there");
    note(&store, 4).await;
    note(&store, 8).await;
    store.note_mark(TOPIC, PartitionId(0), 8).await.expect("there");
    store.note_mark(TOPIC, PartitionId(0), 4).await.expect("there");
    store.note_mark("t.other", PartitionId(1), 8).await.expect("there");
    let marked: Vec<BTreeSet<u32>> =
        counts(&store).await.steps.iter().map(|step| step.marked.iter().map(|p| p.0).collect()).collect();
    assert_eq!(marked, [BTreeSet::from([0, 1]), BTreeSet::from([0])]);
}

/// Two nodes may measure; what one already waits for must not move.
pub async fn ends_noted_first_stand_and_an_ended_transition_stays_ended(harness: &dyn StoreHarness) {
    let store = registered(harness, 2).await;
    for count in [2, 4, 8] {
        note(&store, count).await;
    }
    store.note_ends(TOPIC, 4, &[7, 0, 3, 0]).await.expect("there");
    store.note_ends(TOPIC, 4, &[9, 9, 9, 9]).await.expect("there");
    assert_eq!(counts(&store).await.steps[0].ends, [7, 0, 3, 0]);
    assert_eq!(counts(&store).await.steps[1].ends, [0; 0]);
    store.end_transition(TOPIC, 4).await.expect("there");
    note(&store, 4).await;
    let found = counts(&store).await;
    assert!(found.steps[0].ended && !found.steps[1].ended);
    assert_eq!(found.oldest_in_transition(), Some(4));
}
