//! Laws of effects: what is to be called out of the system, until it is known how it ended (I2, I7).

use std::{sync::Arc, time::Duration};

use holdfast_core::{
    PartitionId,
    batch::Writes,
    port::store::{DueEffect, Slice, Store},
};

use super::{StoreHarness, eventually, registered};
use crate::sample::{KIND, Owner, effect, everything, hash};

const HOUR: Duration = Duration::from_hours(1);
const SOON: Duration = Duration::from_millis(150);
const NOW: Option<Duration> = Some(Duration::ZERO);

fn effects(list: &[(&str, &str, Option<Duration>)]) -> Writes {
    Writes { effects: list.iter().map(|(key, name, hold)| effect(key, name, *hold)).collect(), ..Writes::default() }
}

async fn due(store: &Arc<dyn Store>, hold: Duration) -> Vec<DueEffect> {
    store.due_effects(&everything(1), 100, hold).await.expect("there")
}

fn names(due: &[DueEffect]) -> Vec<String> {
    due.iter().map(|effect| format!("{}/{}", effect.key, effect.name)).collect()
}

async fn single(harness: &dyn StoreHarness) -> (Arc<dyn Store>, Owner) {
    let store = registered(harness, 1).await;
    let owner = Owner::take(&store, [0]).await;
    (store, owner)
}

/// The owner that intends an effect makes the first attempt; a node that finds it due makes the next.
pub async fn effect_is_due_for_others_after_its_hold_and_counts_attempts(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner.write(0, effects(&[("a", "e", NOW), ("a", "f", Some(SOON)), ("a", "g", Some(HOUR))])).await;
    let found = due(&store, HOUR).await;
    assert_eq!(names(&found), ["a/e"]);
    let [first] = found.as_slice() else { panic!("one") };
    assert_eq!((first.kind.as_str(), &*first.request, first.attempts), (KIND, &b"a e"[..], 2));
    assert_eq!((first.correlation.as_deref(), first.traceparent.as_deref()), (Some("flow"), None));
    assert!(first.age < Duration::from_mins(1), "{:?}", first.age);
    assert_eq!(due(&store, HOUR).await, [], "it is held for the first call");
    eventually("the second falls due", || async { names(&due(&store, Duration::ZERO).await) == ["a/f"] }).await;
    let again = due(&store, Duration::ZERO).await;
    assert_eq!((names(&again), again[0].attempts), (vec!["a/f".to_owned()], 3));
}

/// Its first attempt may be under way.
pub async fn an_effect_that_is_intended_again_stays_as_it_is(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner.write(0, effects(&[("a", "e", Some(HOUR))])).await;
    owner.write(0, effects(&[("a", "e", NOW)])).await;
    assert_eq!(due(&store, HOUR).await, []);
}

/// And to end what is not there is no error: two attempts may have been made at once.
pub async fn an_effect_that_has_ended_is_gone_and_stays_so(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner.write(0, effects(&[("a", "e", NOW), ("a", "f", NOW)])).await;
    owner.write(0, effects(&[("a", "e", None), ("a", "none", None), ("b", "f", None)])).await;
    store.put_off_effect(KIND, "a", "e", Duration::ZERO, "an attempt that ended late").await.expect("no error");
    assert_eq!(names(&due(&store, HOUR).await), ["a/f"]);
}

/// For a person to see; and not before its time.
pub async fn an_effect_that_was_put_off_is_due_later_with_its_error(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    owner.write(0, effects(&[("a", "e", NOW), ("a", "f", NOW)])).await;
    assert_eq!(due(&store, HOUR).await.len(), 2);
    store.put_off_effect(KIND, "a", "e", Duration::ZERO, "the bank is away").await.expect("there");
    store.put_off_effect(KIND, "a", "f", HOUR, "the bank is away").await.expect("there");
    let found = due(&store, HOUR).await;
    assert_eq!((names(&found), found[0].attempts), (vec!["a/e".to_owned()], 3));
}

/// Not by who wrote them: nothing is rewritten when the count grows.
pub async fn due_effects_come_by_home_and_limit_to_one_asker_each(harness: &dyn StoreHarness) {
    let (store, mut owner) = single(harness).await;
    let keys: Vec<String> = (0..40).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        owner.write(0, effects(&[(key, "e", NOW)])).await;
    }
    let slice = Slice { partitions: vec![PartitionId(0), PartitionId(2)], count: 3 };
    let mut expected: Vec<&str> =
        keys.iter().filter(|key| [0, 2].contains(&hash(key).home(3).0)).map(String::as_str).collect();
    let (mut found, mut asked) = (Vec::new(), 0);
    while found.len() < expected.len() {
        let (one, two) = tokio::join!(store.due_effects(&slice, 5, HOUR), store.due_effects(&slice, 5, HOUR));
        let (one, two) = (one.expect("there"), two.expect("there"));
        assert!(one.len() <= 5 && two.len() <= 5);
        found.extend(one.into_iter().chain(two).map(|effect| effect.key.to_string()));
        asked += 1;
        assert!(asked < 100, "{} of {} found", found.len(), expected.len());
    }
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}
