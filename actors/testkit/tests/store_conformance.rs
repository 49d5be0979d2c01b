//! The in-memory store keeps the laws of its port, and the list of laws is whole.

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_core::{
    AggregateId, PartitionId,
    batch::{DeadLetter, Unfiled},
    epoch::Generation,
    port::store::Store,
};
use holdfast_testkit::{
    MemoryStore,
    conformance::store::{Damage, Features, StoreHarness},
};
use serde_json::Value;

struct Memory(MemoryStore);

#[async_trait]
impl StoreHarness for Memory {
    async fn connect(&self) -> Arc<dyn Store> {
        Arc::new(self.0.node())
    }

    fn features(&self) -> Features {
        Features::ALL
    }

    async fn view(&self, id: &AggregateId) -> Option<Value> {
        self.0.view(id)
    }

    async fn dead_letters(&self) -> Vec<DeadLetter> {
        self.0.contents().dead_letters
    }

    async fn unfiled(&self) -> Vec<Unfiled> {
        self.0.contents().unfiled
    }

    async fn damage(&self, what: Damage) -> bool {
        match what {
            Damage::Claim(id) => self.0.spoil_claim(id),
            Damage::State(id) => self.0.spoil(&id),
            Damage::MailReason(id) => self.0.tamper(|contents| {
                contents.mailbox.values_mut().filter(|mail| mail.id == id).for_each(|mail| mail.reason = None);
            }),
            Damage::MailHeaders(_) => return false,
        }
        true
    }

    async fn set_generation(&self, generation: Generation) {
        self.0.set_generation(generation);
    }

    async fn hold_rows(&self, partitions: &[PartitionId]) -> Box<dyn Send> {
        Box::new(self.0.hold_rows(partitions).await)
    }
}

mod on_one_thread {
    holdfast_testkit::store_conformance!(async || super::Memory(super::MemoryStore::new()));
}

mod in_paused_time {
    holdfast_testkit::store_conformance! {
        #[tokio::test(start_paused = true)]
        async || super::Memory(super::MemoryStore::new())
    }
}

mod on_two_threads {
    holdfast_testkit::store_conformance! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async || super::Memory(super::MemoryStore::new())
    }
}

/// I9: each way of breaking the contract is found out by a law.
mod sabotaged {
    use super::{Memory, MemoryStore};
    use holdfast_testkit::{conformance::store as laws, store::Sabotage};

    fn sabotaged(change: impl FnOnce(&mut Sabotage)) -> Memory {
        let store = MemoryStore::new();
        store.sabotage(change);
        Memory(store)
    }

    #[tokio::test]
    #[should_panic(expected = "assertion")]
    async fn without_a_fence() {
        laws::stale_token_commits_nothing(&sabotaged(|store| store.no_fence = true)).await;
    }

    #[tokio::test]
    #[should_panic(expected = "assertion")]
    async fn with_offsets_stored_first() {
        laws::stale_token_commits_nothing(&sabotaged(|store| store.offsets_first = true)).await;
    }

    #[tokio::test]
    #[should_panic(expected = "assertion")]
    async fn without_a_batch_number() {
        laws::a_batch_number_used_before_commits_nothing(&sabotaged(|store| store.no_batch_number = true)).await;
    }

    #[tokio::test]
    #[should_panic(expected = "assertion")]
    async fn without_a_version_check() {
        laws::version_conflict_writes_nothing(&sabotaged(|store| store.no_version_check = true)).await;
    }

    #[tokio::test]
    #[should_panic(expected = "assertion")]
    async fn without_claims() {
        laws::claims_are_found_with_their_answers(&sabotaged(|store| store.forgetful_claims = true)).await;
    }

    #[tokio::test]
    #[should_panic(expected = "assertion")]
    async fn with_a_plain_read_back() {
        laws::retoken_settles_an_unknown_commit_for_good(&sabotaged(|store| store.retoken_by_plain_read = true)).await;
    }

    #[tokio::test]
    #[should_panic(expected = "it must wait")]
    async fn with_a_read_back_that_waits_for_nobody() {
        laws::retoken_waits_for_whoever_holds_the_row(&sabotaged(|store| store.retoken_by_plain_read = true)).await;
    }

    #[tokio::test]
    #[should_panic(expected = "assertion")]
    async fn with_an_unconditional_take() {
        laws::take_is_conditional_on_the_epoch(&sabotaged(|store| store.unconditional_take = true)).await;
    }

    #[tokio::test]
    #[should_panic(expected = "assertion")]
    async fn with_an_unfenced_cursor() {
        laws::a_cursor_needs_the_current_token(&sabotaged(|store| store.cursor_unfenced = true)).await;
    }
}

#[test]
fn every_law_is_in_the_list() {
    let list = include_str!("../src/conformance/store/mod.rs");
    let laws = [
        include_str!("../src/conformance/store/commit.rs"),
        include_str!("../src/conformance/store/narrowing.rs"),
        include_str!("../src/conformance/store/outbox.rs"),
        include_str!("../src/conformance/store/ownership.rs"),
        include_str!("../src/conformance/store/pools.rs"),
        include_str!("../src/conformance/store/waiting.rs"),
    ];
    for law in laws.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("pub async fn ")) {
        let name = law.split('(').next().unwrap();
        assert!(list.lines().any(|line| line.trim() == name), "{name} is not in store_conformance!");
    }
}
